"""What a masked model puts where tokens are hidden."""

from __future__ import annotations

from typing import NamedTuple

import torch

from firstlight.model import LanguageModel
from firstlight.support.errors import ConfigError
from firstlight.tokens.tokenizer import Tokenizer


class Guess(NamedTuple):
    """A token that may stand at a hidden place."""

    text: str
    """As it is decoded; a space before a word belongs to it."""
    probability: float


def fill(model: LanguageModel, tokenizer: Tokenizer, text: str, top_k: int = 5) -> list[list[Guess]]:
    """The `top_k` likeliest tokens at each mask token that is written in `text`, likeliest first.

    The text stands between two end-of-document tokens, as a document in training does. A space before a mask token is
    part of what is hidden. Every place is filled by itself: the others stay hidden. Raises ConfigError when the text
    has no mask token, or more tokens than the model has positions, or the model is causal.
    """
    if model.config.causal:
        raise ConfigError(
            "a causal model does not fill in hidden tokens; it writes on from a prompt: "
            "firstlight generate RUN --prompt 'text'."
        )
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}; at least 1 is due.")
    limit = model.config.max_position_embeddings
    assert limit is not None
    ids = [tokenizer.eod_id, *_encoded(tokenizer, text), tokenizer.eod_id]
    if len(ids) > limit:
        raise ConfigError(
            f"the text has {len(ids)} tokens with its two ends and the model reads at most {limit} "
            f"(max_position_embeddings); shorten it by at least {len(ids) - limit} tokens."
        )
    return [
        [Guess(tokenizer.decode([token], skip_special_tokens=False), probability) for token, probability in guesses]
        for guesses in fill_ids(model, tokenizer, ids, top_k)
    ]


@torch.no_grad()
def fill_ids(model: LanguageModel, tokenizer: Tokenizer, ids: list[int], top_k: int) -> list[list[tuple[int, float]]]:
    """(token id, probability) of the `top_k` likeliest tokens at each mask id in `ids`; rows that pad the vocabulary
    are left out."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    row = torch.tensor([ids], device=device)
    hidden = model.model(row)[row == tokenizer.mask_id]
    model.train(was_training)
    probabilities = model.logits(hidden)[:, : tokenizer.vocab_size].float().softmax(1)
    best = probabilities.topk(min(top_k, tokenizer.vocab_size), dim=1)
    return [
        list(zip(tokens, shares, strict=True))
        for tokens, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text in which the mask token's text stands for the mask token; `encode` would read it as text."""
    mask = tokenizer.mask_token
    if mask is None or tokenizer.mask_id is None:
        raise ConfigError(f"{tokenizer.name}: the tokenizer has no mask token, so nothing can be filled in.")
    *parts, last = text.split(mask)
    if not parts:
        raise ConfigError(f"the text has no {mask}; write it where a token is to be filled in.")
    ids = list[int]()
    for part in parts:
        ids += [*tokenizer.encode(part.removesuffix(" ")), tokenizer.mask_id]
    return ids + tokenizer.encode(last)
