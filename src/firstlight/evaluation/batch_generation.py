"""Continuations of many prompts at once, through one key-value cache.

What all prompts of a batch have in length is read together; the longer ones then read on, a token a step, while the
others already write, so no row is padded and every one writes what it would write alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from firstlight.evaluation.generation import choose
from firstlight.model import CausalLanguageModel
from firstlight.tokens.tokenizer import Tokenizer


class Ending(NamedTuple):
    """When a continuation ends and how tokens are chosen."""

    max_new_tokens: int
    stops: tuple[str, ...] = ()
    """Texts before which it ends; the end-of-document token ends it too."""
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None


@torch.no_grad()
def continuations(
    model: CausalLanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    ending: Ending,
    *,
    batch_size: int = 16,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt (token ids, one at least), up to the first of `ending.stops`.

    A prompt is cut on the left where the model has no position left for `max_new_tokens`. Each prompt has a random
    stream of its own, drawn from `seed` and its number. `advance` is told the number of prompts done.
    """
    limit = model.config.max_position_embeddings
    assert limit is not None
    new = min(ending.max_new_tokens, limit - 1)
    cut = [list(prompt)[-(limit - new) :] for prompt in prompts]
    texts = [""] * len(cut)
    order = sorted(range(len(cut)), key=lambda number: -len(cut[number]))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            for number, text in _of_batch(model, tokenizer, numbers, cut, ending._replace(max_new_tokens=new), seed):
                texts[number] = text
            if advance:
                advance(len(numbers))
    finally:
        model.train(was_training)
    return texts


def _of_batch(
    model: CausalLanguageModel,
    tokenizer: Tokenizer,
    numbers: Sequence[int],
    prompts: Sequence[list[int]],
    ending: Ending,
    seed: int,
) -> Iterator[tuple[int, str]]:
    device = next(model.parameters()).device
    ids = {number: list(prompts[number]) for number in numbers}
    draws = {number: torch.Generator().manual_seed(seed + number) for number in numbers}
    unfinished = set(numbers)
    read, longest = min(map(len, ids.values())), max(map(len, ids.values()))
    cache = model.new_cache(longest + ending.max_new_tokens)
    unread = torch.tensor([ids[number][:read] for number in numbers], device=device)
    while unfinished:
        logits = model.decode_step(unread, cache)[:, : tokenizer.vocab_size].float().cpu()
        for row, number in enumerate(numbers):
            if len(ids[number]) > read or number not in unfinished:
                continue
            token = choose(logits[row], ending.temperature, ending.top_k, ending.top_p, draws[number])
            ids[number].append(token)
            written = ids[number][len(prompts[number]) :]
            text = tokenizer.decode(written[:-1] if token == tokenizer.eod_id else written)
            ends = [place for stop in ending.stops if stop and (place := text.find(stop)) >= 0]
            if ends or token == tokenizer.eod_id or len(written) == ending.max_new_tokens:
                unfinished.discard(number)
                yield number, text[: min(ends)] if ends else text
        unread = torch.tensor([[ids[n][read] if len(ids[n]) > read else 0] for n in numbers], device=device)
        read += 1
