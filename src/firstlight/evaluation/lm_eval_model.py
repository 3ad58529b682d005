"""A model of ours as EleutherAI's `lm-eval` asks for one, so that its tasks run on a training run without an export.

lm-eval splits texts into context and continuation and counts what is right; tokens and log-likelihoods are ours. Only
this module loads the package (extra `tasks`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from firstlight.evaluation.batch_generation import Ending, continuations
from firstlight.evaluation.likelihood import Likelihoods, Request, encode_pair
from firstlight.evaluation.tasks import Numbers
from firstlight.model import CausalLanguageModel
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer

try:
    import datasets
    import lm_eval.api.task
    import lm_eval.evaluator
    from lm_eval.api.model import TemplateLM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise ConfigError("tasks of lm-eval need the package: pip install 'firstlight[tasks]'.") from None

NEW_TOKENS = 256
"""Most tokens of an answer where a task does not say."""
RESAMPLES = 1000
"""Draws of the bootstrap for the errors that no formula gives."""
ALONE = "DISABLE_MULTIPROC"
"""Variable of the environment that keeps lm-eval from starting processes."""


class FirstlightLM(TemplateLM):
    """Requests of lm-eval answered by `likelihoods` and, where one is given, by a causal model that writes."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        likelihoods: Likelihoods,
        max_length: int,
        *,
        writer: CausalLanguageModel | None = None,
        causal: bool = True,
        batch_size: int = 16,
    ) -> None:
        """max_length: tokens that the model reads at once. causal: false where likelihoods are pseudo-likelihoods."""
        super().__init__()
        self.words, self.likelihoods, self.max_length = tokenizer, likelihoods, max_length
        self.writer, self.causal, self.batch_size = writer, causal, batch_size

    @property
    def eot_token_id(self) -> int:
        """The end-of-document token, which an empty context is replaced by."""
        return self.words.eod_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, never with special tokens added."""
        return self.words.encode(string)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log p, whether it is greedy) of (context, continuation) pairs."""
        pairs = [encode_pair(self.words, *request.args) for request in requests]
        return [(found.nats, found.greedy) for found in self.likelihoods(pairs)]

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        pairs = [Request(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        return [(found.nats, found.greedy) for found in self.likelihoods(pairs)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """log p of whole texts, in windows of `max_length` that predict every token once."""
        owners, parts = list[int](), list[Request]()
        for number, request in enumerate(requests):
            for context, tokens in self._windows(self.words.encode(request.args[0])):
                owners.append(number)
                parts.append(Request(tuple(context), tuple(tokens)))
        totals = [0.0] * len(requests)
        for number, found in zip(owners, self.likelihoods(parts), strict=True):
            totals[number] += found.nats
        return totals

    def _windows(self, tokens: list[int]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
        if not self.causal:
            size = self.max_length - 3  # both ends, and the hidden token's own place
            yield from (([self.words.eod_id], tokens[start : start + size]) for start in range(0, len(tokens), size))
            return
        for window in get_rolling_token_windows(tokens, self.words.eod_id, self.max_length, 1):
            yield make_disjoint_window(window)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """What the model writes after each context. ConfigError where there is none that writes."""
        if self.writer is None:
            why = "is for firstlight eval, not for training" if self.causal else "a masked one cannot do"
            raise ConfigError(f"the task '{requests[0].task_name}' has the model write, which {why}; leave it out.")
        texts = dict[int, str]()
        settings = [_ending(request.args[1]) for request in requests]
        order = sorted(range(len(requests)), key=lambda number: repr(settings[number]))
        for ending, group in groupby(order, key=lambda number: settings[number]):
            numbers = list(group)
            prompts = [self.words.encode(requests[number].args[0]) or [self.words.eod_id] for number in numbers]
            written = continuations(self.writer, self.words, prompts, ending, batch_size=self.batch_size)
            texts |= dict(zip(numbers, written, strict=True))
        return [texts[number] for number in range(len(requests))]


def _ending(given: Mapping[str, Any]) -> Ending:
    settings = dict(normalize_gen_kwargs(dict(given), NEW_TOKENS))
    return Ending(
        settings["max_gen_toks"],
        tuple(settings["until"]),
        settings["temperature"],
        settings.get("top_k"),
        settings.get("top_p"),
    )


def evaluate_with_lm_eval(
    model: FirstlightLM,
    names: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    baselines: Mapping[str, float] | None = None,
) -> dict[str, Numbers]:
    """Numbers of lm-eval's tasks, by task: its metrics with their standard errors, "items", and with choices "chance".

    folder: with YAML files of tasks; then only those are known. limit: the first so many items of each. baselines: by
    task, what is to stand for chance. ConfigError, with lm-eval's reason, for a task that cannot be loaded.
    """
    with _quiet():
        manager = TaskManager(include_path=None if folder is None else str(folder), include_defaults=folder is None)
        try:
            manager.load(list(names))
        except Exception as problem:  # unknown names, and whatever reading their data comes to
            reason = str(problem).strip().splitlines() or [type(problem).__name__]
            raise ConfigError(f"lm-eval cannot load {', '.join(names)}: {reason[0].rstrip('.')}.") from None
        results = simple_evaluate(
            model=model, tasks=list(names), task_manager=manager, limit=limit, bootstrap_iters=RESAMPLES
        )
    assert results is not None
    return {
        name: _numbers(found, results["samples"].get(name, []), (baselines or {}).get(name))
        for name, found in results["results"].items()
    }


def _numbers(found: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], baseline: float | None) -> Numbers:
    """lm-eval's "acc,none" is "acc" here; a filter with a name keeps it."""
    numbers = Numbers()
    for key, value in found.items():
        metric, comma, filtered = key.partition(",")
        if comma and isinstance(value, int | float):
            numbers[metric if filtered == "none" else f"{metric}_{filtered}"] = float(value)
    if samples:
        numbers["items"] = len({sample["doc_id"] for sample in samples})
    choices = [len(sample["resps"]) for sample in samples]
    if baseline is not None:
        numbers["chance"] = baseline
    elif "acc" in numbers and choices and min(choices) > 1:
        numbers["chance"] = sum(1 / count for count in choices) / len(choices)
    return numbers


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval and the package that reads its data show progress at length; what goes wrong is still said.

    Nor does lm-eval bootstrap in processes of its own: it would fork them beside this one's threads, where they hang.
    """
    log = logging.getLogger("lm_eval")
    level, shows = log.level, datasets.is_progress_bar_enabled()
    silent = {"tqdm": lambda items, **_: items, "get_git_commit_hash": lambda: None}  # the latter complains of no git
    said = [
        (module, name, getattr(module, name))
        for module in (lm_eval.api.task, lm_eval.evaluator)
        for name in silent
        if hasattr(module, name)
    ]
    alone = os.environ.get(ALONE)
    os.environ[ALONE] = "1"
    log.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    for module, name, _ in said:
        setattr(module, name, silent[name])
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints which metrics are bootstrapped
            yield
    finally:
        os.environ.pop(ALONE)
        if alone is not None:
            os.environ[ALONE] = alone
        log.setLevel(level)
        for module, name, function in said:
            setattr(module, name, function)
        if shows:
            datasets.enable_progress_bars()
