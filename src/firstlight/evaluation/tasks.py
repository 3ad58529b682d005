"""Tasks that measure what a model can do: questions with choices, and contexts to go on from, in files of JSON lines.

A choice is the model's answer when it is the likeliest continuation of the question: `acc`. `acc_norm` divides each
log-likelihood by the choice's UTF-8 bytes first, so that long choices are not at a disadvantage (Gao 2021, "Multiple
choice normalization in LM evaluation"). How far tasks lie above chance is averaged after centring,
(acc - chance) / (1 - chance), as DCLM's CORE does (Li et al. 2024, arXiv:2406.11794, section 3.5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.documents.streams import DamagedLine, lines, open_bytes
from firstlight.evaluation.likelihood import Likelihood, Likelihoods, encode_pair
from firstlight.support.errors import DataError
from firstlight.tokens.tokenizer import Tokenizer

Numbers = dict[str, float]
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True)
class Item:
    """One question."""

    context: str
    continuations: tuple[str, ...]
    """The choices, each with what stands between it and the context; one alone is the only right one."""
    sizes: tuple[int, ...]
    """UTF-8 bytes of the choices, without what stands between."""
    answer: int


@dataclass(frozen=True)
class Task:
    """Questions of one kind: with choices, or with one continuation each."""

    name: str
    items: tuple[Item, ...]
    has_choices: bool

    @property
    def chance(self) -> float:
        """Accuracy of guessing: the mean of 1 / choices; 0 without choices."""
        return float(np.mean([1 / len(item.continuations) for item in self.items])) if self.has_choices else 0.0

    def part(self, limit: int | None) -> Task:
        """At most `limit` items, spread evenly over the file."""
        count = len(self.items)
        chosen = min(count, limit or count)
        return Task(self.name, tuple(self.items[i * count // chosen] for i in range(chosen)), self.has_choices)


def task_name(path: str | Path) -> str:
    """The file's name without what says its format."""
    name = Path(path).name
    return next((name.removesuffix(end) for end in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(end)), name)


def read_task(path: str | Path) -> Task:
    """A file of JSON lines, one item each, all of one of two kinds.

    {"query" or "question": str, "choices": [str, …], "answer": number of the right one from 0, or its text};
    "delimiter" stands between question and choice, a space unless given. {"context": str, "continuation": str}, joined
    as they are. DataError, with file and line, for anything else, and for a file without an item.
    """
    items, kinds = list[Item](), dict[bool, int]()
    for number, line in _lines(path):
        place = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{place}: not JSON; one object a line is due.") from None
        items.append(_item(value, place))
        kinds.setdefault("choices" in value, number)
    if not items:
        raise DataError(f"{path}: holds no item; one JSON object a line is due.")
    if len(kinds) == 2:
        raise DataError(
            f"{path}: line {kinds[True]} has choices and line {kinds[False]} a continuation; put the two kinds into "
            "files of their own."
        )
    return Task(task_name(path), tuple(items), True in kinds)


def _lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open_bytes(str(path)) as handle:
            for number, line in lines(handle):
                if line is None:
                    raise DataError(f"{path}, line {number}: too long to be an item of a task.")
                yield number, line
    except DamagedLine as problem:
        raise DataError(f"{path}, line {problem.line}: {problem.reason}.") from None


def _item(value: Any, place: str) -> Item:
    if not isinstance(value, dict):
        raise DataError(f"{place}: not an object.")
    if "choices" not in value:
        context, continuation = value.get("context"), value.get("continuation")
        if not isinstance(context, str) or not isinstance(continuation, str) or not continuation.strip():
            raise DataError(
                f'{place}: neither {{"query": text, "choices": [texts], "answer": number}} nor '
                '{"context": text, "continuation": text}.'
            )
        return Item(context, (continuation,), (len(continuation.encode()),), 0)
    question = value.get("query", value.get("question"))
    choices, answer = value["choices"], value.get("answer")
    if not isinstance(question, str):
        raise DataError(f"{place}: `query` (or `question`) is missing, or no text.")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise DataError(f"{place}: `choices` must be two texts or more, none of them empty.")
    if isinstance(answer, str) and choices.count(answer) == 1:
        answer = choices.index(answer)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise DataError(
            f"{place}: `answer` is {json.dumps(answer, ensure_ascii=False)}; a number from 0 to {len(choices) - 1} is "
            "due, or the text of one choice."
        )
    delimiter = value.get("delimiter", " ")
    if not isinstance(delimiter, str):
        raise DataError(f"{place}: `delimiter` is no text.")
    sizes = tuple(len(choice.encode()) for choice in choices)
    return Item(question, tuple(delimiter + choice for choice in choices), sizes, answer)


def score_tasks(
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    likelihoods: Likelihoods,
    *,
    limit: int | None = None,
    baselines: Mapping[str, float] | None = None,
) -> dict[str, Numbers]:
    """Numbers of each task: {"acc", "acc_stderr", "chance", "items"}, with choices also "acc_norm" and
    "acc_norm_stderr", without also "perplexity" (of a token) and "perplexity_stderr".

    limit: most items of each, spread evenly. baselines: by task, what is to stand for `Task.chance`.
    """
    parts = [task.part(limit) for task in tasks]
    requests = [
        encode_pair(tokenizer, item.context, continuation)
        for task in parts
        for item in task.items
        for continuation in item.continuations
    ]
    answers = iter(zip(requests, likelihoods(requests), strict=True))
    numbers = {}
    for task in parts:
        found = [[next(answers) for _ in item.continuations] for item in task.items]
        given = [[likelihood for _, likelihood in item] for item in found]
        if task.has_choices:
            scores = _with_choices(task, given)
        else:
            scores = _without([len(item[0][0].continuation) for item in found], [item[0] for item in given])
        scores |= {"chance": (baselines or {}).get(task.name, task.chance), "items": len(task.items)}
        numbers[task.name] = scores
    return numbers


def _with_choices(task: Task, given: Sequence[Sequence[Likelihood]]) -> Numbers:
    plain, by_size = [], []
    for item, likelihoods in zip(task.items, given, strict=True):
        nats = np.array([likelihood.nats for likelihood in likelihoods])
        plain.append(int(nats.argmax()) == item.answer)
        by_size.append(int((nats / item.sizes).argmax()) == item.answer)
    return {**_mean("acc", plain), **_mean("acc_norm", by_size)}


def _without(sizes: Sequence[int], given: Sequence[Likelihood]) -> Numbers:
    """Accuracy, and perplexity with its error by the delta method for a ratio of means."""
    tokens = np.array(sizes, dtype=np.float64)
    losses = np.array([-likelihood.nats for likelihood in given])
    loss = losses.sum() / tokens.sum()
    numbers = {**_mean("acc", [likelihood.greedy for likelihood in given]), "perplexity": math.exp(min(loss, 700.0))}
    if len(sizes) > 1:
        spread = math.sqrt(((losses - loss * tokens) ** 2).sum() * len(sizes) / (len(sizes) - 1)) / tokens.sum()
        numbers["perplexity_stderr"] = numbers["perplexity"] * spread
    return numbers


def _mean(name: str, values: Sequence[bool]) -> Numbers:
    """The mean and, of two values or more, its standard error."""
    numbers = {name: float(np.mean(values))}
    if len(values) > 1:
        numbers[f"{name}_stderr"] = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return numbers


def centred_average(numbers: Mapping[str, Mapping[str, float]]) -> float | None:
    """Mean over the tasks that have an accuracy of (acc - chance) / (1 - chance): 0 is chance, 1 is perfect."""
    centred = [
        (score["acc"] - score.get("chance", 0.0)) / (1 - score.get("chance", 0.0))
        for score in numbers.values()
        if "acc" in score
    ]
    return float(np.mean(centred)) if centred else None
