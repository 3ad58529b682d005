"""Tasks: what a name or a file on the command line or in a recipe means, and how a model is scored on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from firstlight.config import RunConfig
from firstlight.evaluation.likelihood import Likelihood, Likelihoods, Request, cached_likelihoods
from firstlight.evaluation.packed import packed_likelihoods
from firstlight.evaluation.tasks import SUFFIXES, Numbers, Task, centred_average, read_task, score_tasks
from firstlight.model import CausalLanguageModel
from firstlight.parallel.parallel_model import ParallelModel
from firstlight.parallel.ranks import Ranks
from firstlight.pipeline.evaluated import open_model, record_evaluation
from firstlight.pipeline.scoring import batch_size_of, rank_scorer, scorer_of
from firstlight.support.console import progress
from firstlight.support.errors import ConfigError
from firstlight.tokens.null import check_has_text
from firstlight.tokens.tokenizer import Tokenizer

YAML = (".yaml", ".yml")
TaskScores = dict[str, Numbers]


@dataclass
class _Tasks:
    local: list[Task] = field(default_factory=list)
    described: dict[Path, list[str]] = field(default_factory=dict)
    """Names of lm-eval's tasks that YAML files of a folder describe, by folder."""
    named: list[str] = field(default_factory=list)
    """Names of tasks that come with lm-eval."""

    @property
    def names(self) -> list[str]:
        return [task.name for task in self.local] + [n for names in self.described.values() for n in names] + self.named


def evaluate_tasks(
    run: str | Path,
    tasks: Sequence[str],
    *,
    step: int | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
) -> TaskScores:
    """Numbers of a run, or of the folder of a Hugging Face model, on tasks, by task; fp32.

    tasks: files of JSON lines (see `read_task`), YAML files of lm-eval's, folders of either, or names of tasks that
    come with lm-eval. limit: most items of each. batch_size: continuations that are read at once; unset: 16, or what
    the run evaluates with where that is more. The baselines are those of the run's `evaluation.task_baselines`. What
    comes out is also a line in the run's `evaluations.jsonl`. ConfigError for what is no task, DataError for a file
    that is damaged.
    """
    found = find_tasks(tasks)
    trained = open_model(run, step, device)
    check_has_text(trained.tokenizer, "a task", Path(run))
    model, config = trained.model, trained.config
    size = batch_size or max(16, batch_size_of(config))
    limit_of_model = config.model.max_position_embeddings
    assert limit_of_model is not None
    with progress("tasks", None, "answers") as bar:

        def likelihoods(requests: Sequence[Request]) -> list[Likelihood]:
            if isinstance(model, CausalLanguageModel):
                return cached_likelihoods(model, requests, batch_size=size, advance=bar.advance)
            return packed_likelihoods(scorer_of(trained), requests, bar.advance)

        scores = _scores(
            found,
            trained.tokenizer,
            likelihoods,
            limit_of_model if config.model.causal else config.data.sequence_length,
            limit=limit,
            baselines=config.evaluation.task_baselines,
            writer=model if isinstance(model, CausalLanguageModel) else None,
            causal=config.model.causal,
            batch_size=size,
        )
    record_evaluation(trained, {"tasks": scores, "task_limit": limit})
    return scores


def task_scorer(
    config: RunConfig, tokenizer: Tokenizer, ranks: Ranks
) -> Callable[[ParallelModel], dict[str, Any]] | None:
    """A function model → {"tasks": numbers by task of `evaluation.tasks`, "tasks_centred": their centred average}, for
    all processes together; None where no task is named.

    ConfigError or DataError at once for a task that cannot be read, and for a baseline of none of them.
    """
    evaluation = config.evaluation
    if not evaluation.tasks:
        return None
    check_has_text(tokenizer, "a task", config.run_folder)
    found = find_tasks(evaluation.tasks)
    if found.described or found.named:
        from firstlight.evaluation import lm_eval_model  # noqa: F401  whether it is installed is told before training
    unknown = set(evaluation.task_baselines) - set(found.names)
    if unknown and not found.named:  # a group of lm-eval's has members of other names
        raise ConfigError(
            f"evaluation.task_baselines names '{min(unknown)}', and the tasks are {', '.join(found.names)}."
        )

    def score(model: ParallelModel) -> dict[str, Any]:
        scores = _scores(
            found,
            tokenizer,
            partial(packed_likelihoods, rank_scorer(model, config, tokenizer, ranks)),
            config.data.sequence_length,
            limit=evaluation.task_limit,
            baselines=evaluation.task_baselines,
            causal=config.model.causal,
        )
        average = centred_average(scores)
        return {"tasks": scores} if average is None else {"tasks": scores, "tasks_centred": average}

    return score


def _scores(
    tasks: _Tasks,
    tokenizer: Tokenizer,
    likelihoods: Likelihoods,
    max_length: int,
    *,
    limit: int | None,
    baselines: Mapping[str, float],
    writer: CausalLanguageModel | None = None,
    causal: bool,
    batch_size: int = 16,
) -> TaskScores:
    scores = score_tasks(tasks.local, tokenizer, likelihoods, limit=limit, baselines=baselines) if tasks.local else {}
    if tasks.described or tasks.named:
        from firstlight.evaluation.lm_eval_model import FirstlightLM, evaluate_with_lm_eval

        model = FirstlightLM(tokenizer, likelihoods, max_length, writer=writer, causal=causal, batch_size=batch_size)
        for folder, names in [*tasks.described.items(), *([(None, tasks.named)] if tasks.named else [])]:
            scores |= evaluate_with_lm_eval(model, names, folder=folder, limit=limit, baselines=baselines)
    return scores


def find_tasks(entries: Sequence[str]) -> _Tasks:
    """Files are read; names of lm-eval's are taken as they are. ConfigError for a folder without tasks or two tasks of
    one name."""
    found = _Tasks()
    for entry in entries:
        path = Path(entry)
        files = sorted(file for file in path.iterdir() if _is_task_file(file)) if path.is_dir() else [path]
        if not files:
            raise ConfigError(f"{entry}: no task in this folder; .jsonl files or lm-eval's .yaml files are due.")
        for file in files:
            if not _is_task_file(file):
                found.named.append(entry)
            elif file.suffix in YAML:
                found.described.setdefault(file.parent, []).extend(_described(file, must=not path.is_dir()))
            else:
                found.local.append(read_task(file))
    names = found.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two tasks are called '{twice}'; rename a file, or leave one out.")
    if not names:
        raise ConfigError("no task is named; give files of JSON lines, or names of lm-eval's tasks.")
    return found


def _is_task_file(path: Path) -> bool:
    return path.name.endswith((*SUFFIXES, *YAML))


def _described(file: Path, must: bool) -> list[str]:
    """The name of the task in a YAML file; none in one that others include."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text.") from None
    name = re.search(r"^task:[ \t]*['\"]?([^'\"#\s]+)", text, re.MULTILINE)
    if name is None and must:
        raise ConfigError(f"{file}: names no task; a line `task: NAME` is due, as lm-eval has it.")
    return [name.group(1)] if name else []
