"""Likelihoods of continuations from token scores alone: what every layout of a training run and every objective has.

Several requests lie side by side in one row, each attending to itself only, so rows are full whatever their lengths. Of
a masked model the likelihood is the pseudo-log-likelihood (Salazar et al. 2020, arXiv:1910.14659, equation 2) of the
continuation: each of its tokens is hidden alone, and all others are given, those of the context too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from firstlight.evaluation.likelihood import Likelihood, Request, fit_request
from firstlight.evaluation.scorer import Examples, Scorer
from firstlight.model.loss import IGNORE_INDEX
from firstlight.support.errors import DataError


class _Entry(NamedTuple):
    """What is asked of a model for one request, or for one hidden token of it."""

    request: int
    inputs: list[int]
    targets: dict[int, int]
    """Place → token."""


def packed_likelihoods(
    scorer: Scorer, requests: Sequence[Request], advance: Callable[[int], None] | None = None
) -> list[Likelihood]:
    """Likelihoods of `requests`, shared among the processes of `scorer.share`, all of which get the same.

    `advance` is told the number of tokens scored. DataError for a continuation longer than `scorer.length` allows.
    """
    sums = torch.zeros(len(requests), 2, dtype=torch.float64)
    rows = _rows(_entries(scorer, requests), scorer.length)
    size, share = scorer.batch_size, scorer.share
    for start in range(0, len(rows), size * share.ranks):
        first = start + share.rank * size
        mine = rows[first : min(first + size, start + size * share.ranks)]
        scores = scorer.token_scores(_examples(scorer, mine)).cpu().double()
        for row, entries in enumerate(mine):
            for place, entry in entries:
                places = [place + target for target in entry.targets]
                sums[entry.request] += scores[:, row, places].sum(1)
        if advance:
            batch = rows[start : start + size * share.ranks]
            advance(sum(len(entry.targets) for row in batch for _, entry in row))
    nats, hits = share.total(sums).T.tolist()
    return [
        Likelihood(-loss, round(hit) == len(request.continuation))
        for loss, hit, request in zip(nats, hits, requests, strict=True)
    ]


def _entries(scorer: Scorer, requests: Sequence[Request]) -> Iterator[_Entry]:
    if scorer.masks is None:
        for number, given in enumerate(requests):
            context, continuation = fit_request(given, scorer.length)
            first = len(context) - 1
            ids = [*context, *continuation]
            yield _Entry(number, ids[:-1], {first + n: token for n, token in enumerate(continuation)})
        return
    eod, mask = scorer.tokenizer.eod_id, scorer.tokenizer.mask_id
    if mask is None:
        raise DataError(f"{scorer.tokenizer.name}: the tokenizer has no mask token, so nothing can be hidden.")
    for number, given in enumerate(requests):
        begun = given._replace(context=given.context[1:] if given.context[:1] == (eod,) else given.context)
        context, continuation = fit_request(begun, scorer.length - 3)  # two ends, and all is read
        ids = [eod, *context, *continuation, eod]
        first = 1 + len(context)
        for place, token in enumerate(continuation, first):
            yield _Entry(number, [*ids[:place], mask, *ids[place + 1 :]], {place: token})


def _rows(entries: Iterator[_Entry], length: int) -> list[list[tuple[int, _Entry]]]:
    """(column, entry) by row: each entry in the first of a few open rows that has room for it, longest first."""
    rows: list[list[tuple[int, _Entry]]] = []
    used: list[int] = []
    open_rows: list[int] = []
    for entry in sorted(entries, key=lambda entry: -len(entry.inputs)):
        size = len(entry.inputs)
        row = next((row for row in open_rows if used[row] + size <= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            used.append(0)
            open_rows = [*open_rows[-63:], row]
        rows[row].append((used[row], entry))
        used[row] += size
    return rows


def _examples(scorer: Scorer, rows: Sequence[list[tuple[int, _Entry]]]) -> Examples:
    if scorer.whole_batches:
        shape = (scorer.batch_size, scorer.length)
    else:
        shape = (len(rows), max((row[-1][0] + len(row[-1][1].inputs) for row in rows), default=0))
    inputs = np.full(shape, scorer.tokenizer.eod_id, dtype=np.int64)
    targets = np.full_like(inputs, IGNORE_INDEX)
    documents = np.full_like(inputs, -1)
    lengths = np.full(shape[0], shape[1])
    for row, entries in enumerate(rows):
        for number, (start, entry) in enumerate(entries):
            end = start + len(entry.inputs)
            inputs[row, start:end], documents[row, start:end] = entry.inputs, number
            for place, token in entry.targets.items():
                targets[row, start + place] = token
            lengths[row] = end
    return Examples(inputs, targets, lengths, documents)
