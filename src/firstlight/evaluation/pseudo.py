"""Pseudo-perplexity: how well a masked model knows each token from all others (Salazar et al. 2020, arXiv:1910.14659).

exp(−1/N · Σ log p(token | all other tokens of its window)), with one token hidden at a time and nothing else changed
(equations 2 and 4 there). Each token costs a pass of its own, so of a large text a sample is taken, spread evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from firstlight.evaluation.score import Score
from firstlight.evaluation.scorer import Examples, Scorer
from firstlight.evaluation.windows import Tokens, Window
from firstlight.model.loss import IGNORE_INDEX
from firstlight.support.errors import DataError
from firstlight.tokens.tokenizer import Tokenizer


class EvenSample:
    """Places of ordinary tokens, at most `size`, spread evenly over all windows that are shown to it, in one pass.

    While it does not know how many there will be it keeps every n-th place, n doubling where that is too many.
    """

    def __init__(self, size: int, tokenizer: Tokenizer) -> None:
        self.size, self.special_ids = size, np.asarray(tokenizer.special_ids)
        self._kept: list[tuple[Tokens, int]] = []
        self._seen, self._stride = 0, 1

    def watch(self, windows: Iterable[Window]) -> Iterator[Window]:
        """The same windows, each looked at as it passes."""
        for window in windows:
            if self.size:
                self._look_at(window.tokens)
            yield window

    def _look_at(self, tokens: Tokens) -> None:
        ordinary = np.flatnonzero(~np.isin(tokens, self.special_ids))
        first = -self._seen % self._stride
        self._kept += [(tokens, int(place)) for place in ordinary[first :: self._stride]]
        self._seen += len(ordinary)
        while len(self._kept) >= 2 * self.size:
            self._kept, self._stride = self._kept[::2], 2 * self._stride

    @property
    def places(self) -> list[tuple[Tokens, int]]:
        """(window, place in it), in the order of the text."""
        count = len(self._kept)
        chosen = min(count, self.size)
        return [self._kept[i * count // chosen] for i in range(chosen)]


def pseudo_score(scorer: Scorer, sample: EvenSample, advance: Callable[[int], None] | None = None) -> Score:
    """Score over the places of a sample, each hidden alone; its perplexity is the pseudo-perplexity.

    `advance` is told the number of tokens, batch by batch. One process does it all. DataError when the tokenizer has
    no mask token.
    """
    total, places = Score(), sample.places
    for start in range(0, len(places), scorer.batch_size):
        batch = places[start : start + scorer.batch_size]
        total += scorer.score_examples(_hidden_alone(batch, scorer.tokenizer))
        if advance:
            advance(len(batch))
    return total


def _hidden_alone(places: list[tuple[Tokens, int]], tokenizer: Tokenizer) -> Examples:
    if tokenizer.mask_id is None:
        raise DataError(f"{tokenizer.name}: the tokenizer has no mask token, so nothing can be hidden.")
    lengths = np.array([len(tokens) for tokens, _ in places])
    inputs = np.full((len(places), lengths.max()), tokenizer.eod_id, dtype=np.int64)
    targets = np.full_like(inputs, IGNORE_INDEX)
    for row, (tokens, place) in enumerate(places):
        inputs[row, : len(tokens)] = tokens
        targets[row, place] = tokens[place]
        inputs[row, place] = tokenizer.mask_id
    return Examples(inputs, targets, lengths)


def pseudo_numbers(score: Score) -> dict[str, float | None]:
    """Numbers for tables; none where no token was hidden alone."""
    if not score.tokens:
        return {}
    return {
        "pseudo_perplexity": score.perplexity,
        "pseudo_bits_per_byte": score.bits_per_byte if score.text_bytes else None,
        "pseudo_tokens": score.tokens,
    }
