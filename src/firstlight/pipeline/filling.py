"""The verb `fill`, and the sample of a masked quickstart: hidden words of a passage, and what is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from firstlight.evaluation.fill import Guess, fill_ids
from firstlight.evaluation.fill import fill as fill_in
from firstlight.pipeline.show import show_guesses, show_words
from firstlight.support.console import note, out, printable
from firstlight.tokens.split import Split
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.tokens.words import word_numbers
from firstlight.training.load import load_trained

PASSAGE_TOKENS = 96
PASSAGES = 20
"""Looked at in each source."""
HIDDEN_WORDS = 8
LEAST_BYTES = 4
"""Of a word worth hiding: four letters, or two Chinese characters."""


def fill(
    run: str | Path, text: str, *, step: int | None = None, top_k: int = 5, device: str | None = None
) -> list[list[Guess]]:
    """What the model of a run puts at each mask token in `text`: its `top_k` likeliest tokens, likeliest first."""
    trained = load_trained(run, step, device)
    return fill_in(trained.model, trained.tokenizer, text, top_k)


def show_filled(run: str | Path, prompt: str, held_out: Mapping[str, Split]) -> None:
    """Print a passage with words hidden, and what the model of a run makes of each, beside the word.

    The passage is `prompt`; unset: the first held-out one with words enough. A prompt with mask tokens is filled in.
    """
    trained = load_trained(run, device="cpu")
    tokenizer = trained.tokenizer
    if tokenizer.mask_token and tokenizer.mask_token in prompt:
        show_guesses(fill_in(trained.model, tokenizer, prompt))
        return
    ids = tokenizer.encode(prompt) or _passage(tokenizer, held_out)
    ids = ids[: (trained.config.model.max_position_embeddings or PASSAGE_TOKENS) - 1]
    places = words_to_hide(tokenizer, ids)
    if not places:
        note("there is no text with words to hide; give some with --prompt.")
        return
    assert tokenizer.mask_id is not None
    hidden = [tokenizer.mask_id if place in places else token for place, token in enumerate(ids)]
    guesses = fill_ids(trained.model, tokenizer, [tokenizer.eod_id, *hidden], top_k=3)
    out.print(printable(_with_gaps(tokenizer, ids, places)), markup=False)
    out.print()
    words = [tokenizer.decode([ids[place]]) for place in places]
    show_words(words, [[Guess(tokenizer.decode([t]), p) for t, p in row] for row in guesses])


def _passage(tokenizer: Tokenizer, held_out: Mapping[str, Split]) -> list[int]:
    """The first passage of the first sources in which `HIDDEN_WORDS` can be hidden, or else the one with the most."""
    best, most = list[int](), 0
    for split in held_out.values():
        for start in range(0, min(PASSAGES * PASSAGE_TOKENS, split.num_tokens), PASSAGE_TOKENS):
            ids = np.asarray(split.read(start, min(PASSAGE_TOKENS, split.num_tokens - start))).tolist()
            ids = ids[: ids.index(tokenizer.eod_id)] if tokenizer.eod_id in ids else ids
            count = len(words_to_hide(tokenizer, ids))
            if count > most:
                best, most = ids, count
            if most == HIDDEN_WORDS:
                return best
    return best


def words_to_hide(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Places of words that are one token each, at most `HIDDEN_WORDS`, spread evenly."""
    if not ids:
        return []
    begins, ends = (edges[ids] for edges in tokenizer.word_edges)
    words = word_numbers(begins[None], ends[None])[0]
    whole = np.bincount(words)[words] == 1
    texts = [tokenizer.decode([token]).strip() for token in ids]
    worth = [text.isalpha() and len(text.encode()) >= LEAST_BYTES for text in texts]
    places = np.flatnonzero(whole & np.array(worth)).tolist()
    chosen = min(HIDDEN_WORDS, len(places))
    return [places[i * len(places) // chosen] for i in range(chosen)]


def _with_gaps(tokenizer: Tokenizer, ids: list[int], places: list[int]) -> str:
    """The text with [1], [2], … for the words at `places`."""
    parts, start = list[str](), 0
    for number, place in enumerate(places, 1):
        space = " " if tokenizer.decode([ids[place]]).startswith(" ") else ""
        parts += [tokenizer.decode(ids[start:place]), f"{space}[{number}]"]
        start = place + 1
    return "".join([*parts, tokenizer.decode(ids[start:])])
