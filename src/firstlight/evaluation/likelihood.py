"""How likely a causal model holds each of several continuations of a context, with the context computed once.

Requests that share a context are rows that share one key-value cache: the context is read once and its keys and values
are repeated for each row. Contexts of about the same length are read together; what the longer ones have more is read
with the continuations, so no row is padded on the left and none sees padding. Logits are computed only where a token is
to be scored, which is most of the work where the vocabulary is large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from firstlight.model import CausalLanguageModel
from firstlight.model.cache import KeyValueCache
from firstlight.support.errors import DataError
from firstlight.tokens.tokenizer import Tokenizer

LOGITS_AT_ONCE = 1 << 25
"""So many numbers of logits are held at a time."""
Ids = tuple[int, ...]


class Request(NamedTuple):
    """A continuation that is to be scored after a context; both are token ids, and both have one at least."""

    context: Ids
    continuation: Ids


class Likelihood(NamedTuple):
    """What a model makes of a continuation."""

    nats: float
    """log p(continuation | context), 0 or below."""
    greedy: bool
    """Whether each of its tokens was the likeliest."""


Likelihoods = Callable[[Sequence[Request]], list[Likelihood]]
"""One for each request, in their order."""


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> Request:
    """Ids of a context and of what follows, split as lm-eval does: where the context's own tokens end.

    White space at the end of the context goes to the continuation, where most tokenizers have it. An empty context is
    the end-of-document token. DataError when nothing is left of the continuation.
    """
    kept = context.rstrip()
    context, continuation = kept, context[len(kept) :] + continuation
    before = tokenizer.encode(context)
    after = tokenizer.encode(context + continuation)[len(before) :] or tokenizer.encode(continuation)
    if not after:
        raise DataError("a continuation without a token cannot be scored.")
    return Request(tuple(before) or (tokenizer.eod_id,), tuple(after))


def fit_request(request: Request, limit: int) -> Request:
    """The request with its context cut on the left to what a model of `limit` positions reads.

    DataError for a continuation that no context fits before.
    """
    context, continuation = request
    if len(continuation) > limit:
        raise DataError(
            f"a continuation of {len(continuation)} tokens is longer than the {limit} that the model reads at once; "
            "shorten it."
        )
    room = limit + 1 - len(continuation)  # the last token is predicted, not read
    return Request(tuple(context[-room:]), tuple(continuation))


class _Batch(NamedTuple):
    contexts: list[Ids]
    rows: list[tuple[int, Ids]]
    """(which context, continuation without its last token)."""
    members: list[list[int]]
    """The requests of each row."""


@torch.no_grad()
def cached_likelihoods(
    model: CausalLanguageModel,
    requests: Sequence[Request],
    *,
    batch_size: int = 16,
    advance: Callable[[int], None] | None = None,
) -> list[Likelihood]:
    """Likelihoods of `requests`, `batch_size` rows at a time; the same at any size but for rounding.

    Rows of the vocabulary that only pad it have no probability, as in an export. `advance` is told the number of
    requests done. DataError for a continuation longer than the model's positions.
    """
    limit = model.config.max_position_embeddings
    assert limit is not None
    fitted = [fit_request(request, limit) for request in requests]
    results = [Likelihood(0.0, False)] * len(fitted)
    was_training = model.training
    model.eval()
    try:
        for batch in _batches(fitted, batch_size):
            for index, likelihood in _of_batch(model, fitted, batch):
                results[index] = likelihood
            if advance:
                advance(sum(map(len, batch.members)))
    finally:
        model.train(was_training)
    return results


def _batches(requests: Sequence[Request], size: int) -> Iterator[_Batch]:
    """Groups of one context, longest context first, joined until they have `size` rows."""
    groups: dict[Ids, dict[Ids, list[int]]] = {}
    for index, (context, continuation) in enumerate(requests):
        groups.setdefault(context, {}).setdefault(continuation[:-1], []).append(index)
    batch = _Batch([], [], [])
    for context, rows in sorted(groups.items(), key=lambda group: (-len(group[0]), -max(map(len, group[1])))):
        fits = len(batch.rows) + len(rows) <= size
        if batch.rows and not fits:
            yield batch
            batch = _Batch([], [], [])
        for number, (row, members) in enumerate(rows.items()):
            if len(batch.rows) == size:
                yield batch
                batch = _Batch([], [], [])
            if not number or not batch.rows:
                batch.contexts.append(context)
            batch.rows.append((len(batch.contexts) - 1, row))
            batch.members.append(members)
    if batch.rows:
        yield batch


def _of_batch(
    model: CausalLanguageModel, requests: Sequence[Request], batch: _Batch
) -> Iterator[tuple[int, Likelihood]]:
    device = next(model.parameters()).device
    shared = min(map(len, batch.contexts)) - 1  # the last token of a context predicts the first of what follows
    if len(batch.contexts) == len(batch.rows):
        shared = 0  # nothing is read twice
    rests = [batch.contexts[context][shared:] + row for context, row in batch.rows]
    width = max(map(len, rests))
    inputs = torch.tensor([rest + (0,) * (width - len(rest)) for rest in rests], device=device)
    if shared:
        prefix = torch.tensor([context[:shared] for context in batch.contexts], device=device)
        which = torch.tensor([context for context, _ in batch.rows], device=device)
        hidden = model.model(inputs, cache=_repeated(model, prefix, which, shared + width))
    else:
        hidden = model.model(inputs)
    rows, places, targets, ends = list[int](), list[int](), list[int](), list[int]()
    members = [(row, index) for row, indices in enumerate(batch.members) for index in indices]
    for row, index in members:
        context, continuation = requests[index]
        first = len(context) - 1 - shared
        rows += [row] * len(continuation)
        places += range(first, first + len(continuation))
        targets += continuation
        ends.append(len(targets))
    nats, greedy = _scores(model, hidden[rows, places], torch.tensor(targets, device=device))
    start = 0
    for (_, index), end in zip(members, ends, strict=True):
        yield index, Likelihood(float(nats[start:end].sum()), bool(greedy[start:end].all()))
        start = end


def _repeated(model: CausalLanguageModel, prefix: Tensor, which: Tensor, room: int) -> KeyValueCache:
    """A cache with room for `room` positions whose row r has read prefix[which[r]]."""
    read = model.new_cache(prefix.shape[1])
    model.model(prefix, cache=read)
    cache = model.new_cache(room)
    for layer, given in zip(cache.layers, read.layers, strict=True):
        layer.append(given.keys[which], given.values[which])
    return cache


def _scores(model: CausalLanguageModel, hidden: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """log p of each target, and whether it is the likeliest: hidden [tokens, hidden_size], targets [tokens]."""
    assert model.config.vocab_size is not None
    words = model.config.vocab_size - model.config.vocab_padding
    nats, greedy = [], []
    size = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    for part, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = model.logits(part)[:, :words].float()
        chosen = logits.gather(1, wanted[:, None])[:, 0]
        nats.append((chosen - logits.logsumexp(1)).cpu())
        greedy.append((logits.argmax(1) == wanted).cpu())
    return torch.cat(nats).double().numpy(), torch.cat(greedy).numpy()
