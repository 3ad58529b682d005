"""What an evaluation sums up, and the rates that follow.

A mean of batch means is wrong whenever batches differ in size, so sums over tokens are kept and divided once.
Bits per byte = Σ nats / (ln 2 · Σ UTF-8 bytes of the predicted tokens) does not depend on the tokenizer, so models
with different vocabularies compare; special tokens stand for no text and are left out of it (as in nanochat).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

RESAMPLES = 1000
"""Draws of the bootstrap."""


@dataclass(frozen=True)
class Score:
    """Sums over the predicted tokens; the rates follow from them, and scores add up exactly."""

    tokens: int = 0
    nats: float = 0.0
    correct: int = 0
    """Tokens that no other token was likelier than."""
    text_nats: float = 0.0
    """Nats of the tokens that stand for text (not special)."""
    text_bytes: int = 0
    """UTF-8 bytes those tokens stand for; 0 where the tokenizer does not say."""
    targets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), compare=False, repr=False)
    """How often each token was the one to predict, by id; ids after the last one were not."""
    documents: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)), compare=False, repr=False)
    """[documents, 4]: tokens, nats, text nats and text bytes of each; none where windows hold parts of several."""

    def __add__(self, other: Score) -> Score:
        targets = np.zeros(max(len(self.targets), len(other.targets)), np.int64)
        documents = np.zeros((max(len(self.documents), len(other.documents)), 4))
        for part in (self, other):
            targets[: len(part.targets)] += part.targets
            documents[: len(part.documents)] += part.documents
        return Score(
            self.tokens + other.tokens,
            self.nats + other.nats,
            self.correct + other.correct,
            self.text_nats + other.text_nats,
            self.text_bytes + other.text_bytes,
            targets,
            documents,
        )

    @property
    def loss(self) -> float:
        """Mean nats per predicted token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))

    @property
    def accuracy(self) -> float:
        """Share of the predicted tokens that no other token was likelier than."""
        return self.correct / self.tokens if self.tokens else math.nan

    @property
    def baseline_accuracy(self) -> float:
        """Share of the commonest token: the accuracy of whoever knows it and always says it."""
        return int(self.targets.max(initial=0)) / self.tokens if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of text; not a number where the bytes are not known."""
        return self.text_nats / (math.log(2) * self.text_bytes) if self.text_bytes else math.nan

    def intervals(self, seed: int = 0, *, causal: bool = True) -> dict[str, float]:
        """95 % intervals of perplexity, and of a causal model's bits per byte: {"perplexity_low", "perplexity_high", …,
        "documents"}.

        Percentiles of the rates of documents drawn with replacement, as many as there are (Efron & Tibshirani 1993,
        chapter 13), because tokens of one document are not independent. `seed` draws them. {} for fewer than two.
        """
        rows = self.documents[self.documents[:, 0] > 0]
        if len(rows) < 2:
            return {}
        draws = np.random.default_rng(seed)
        sums = np.array([rows[draws.integers(len(rows), size=len(rows))].sum(0) for _ in range(RESAMPLES)])
        rates = {"perplexity": np.exp(np.minimum(sums[:, 1] / sums[:, 0], 700.0))}
        if causal and sums[:, 3].all():
            rates["bits_per_byte"] = sums[:, 2] / (math.log(2) * sums[:, 3])
        numbers = dict[str, float]()
        for name, values in rates.items():
            low, high = np.percentile(values, (2.5, 97.5)).tolist()
            numbers |= {f"{name}_low": low, f"{name}_high": high}
        return {**numbers, "documents": len(rows)}

    def as_dict(self, *, causal: bool = True) -> dict[str, float | None]:
        """Numbers for metrics and tables.

        Of a masked model without bits per byte, which mean nothing where most tokens are given; of a causal one None
        stands for those that are not known.
        """
        numbers: dict[str, float | None] = {"loss": self.loss, "perplexity": self.perplexity}
        if causal:
            numbers["bits_per_byte"] = self.bits_per_byte if self.text_bytes else None
        rates = {"accuracy": self.accuracy, "baseline_accuracy": self.baseline_accuracy}
        return {**numbers, **rates, "tokens": self.tokens}


@dataclass(frozen=True)
class Share:
    """One process's part of an evaluation that several share; alone by default."""

    rank: int = 0
    ranks: int = 1
    total: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums
    """Sums a tensor over all parts."""

    def whole(self, part: Score, vocab_size: int, documents: torch.Tensor | None = None) -> Score:
        """The score of all parts together, the same on every process.

        documents: [documents, 4] of this part, as many on every process.
        """
        sums = torch.zeros(5 + vocab_size, dtype=torch.float64)
        sums[:5] = torch.tensor([part.tokens, part.nats, part.correct, part.text_nats, part.text_bytes])
        sums[5 : 5 + len(part.targets)] = torch.from_numpy(part.targets)
        sums = self.total(sums)
        tokens, nats, correct, text_nats, text_bytes = sums[:5].tolist()
        targets = sums[5:].round().to(torch.int64).numpy()
        if documents is None or not len(documents):
            documents = torch.zeros(0, 4)
        else:
            documents = self.total(documents)
        return Score(round(tokens), nats, round(correct), text_nats, round(text_bytes), targets, documents.numpy())
