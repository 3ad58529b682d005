"""Loss, perplexity and bits per byte on held-out text, weighted by tokens.

A mean of batch means is wrong whenever batches differ in size, so sums of token losses are kept and divided once.
Bits per byte = Σ nats / (ln 2 · Σ UTF-8 bytes of the predicted tokens) does not depend on the tokenizer, so models
with different vocabularies compare; special tokens stand for no text and are left out of it (as in nanochat).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from firstlight.support.errors import DataError
from firstlight.tokens.batches import document_ids
from firstlight.tokens.dataset import Split
from firstlight.tokens.tokenizer import Tokenizer

IGNORED = -100


@dataclass(frozen=True)
class Share:
    """One process's part of an evaluation that several share; alone by default."""

    rank: int = 0
    ranks: int = 1
    total: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums
    """Sums a tensor over all parts."""


@dataclass(frozen=True)
class Score:
    """Sums over the evaluated tokens; the rates follow from them, and scores add up exactly."""

    tokens: int = 0
    nats: float = 0.0
    text_nats: float = 0.0
    """Nats of the tokens that stand for text (not special)."""
    text_bytes: int = 0
    """UTF-8 bytes those tokens stand for."""

    def __add__(self, other: Score) -> Score:
        return Score(
            self.tokens + other.tokens,
            self.nats + other.nats,
            self.text_nats + other.text_nats,
            self.text_bytes + other.text_bytes,
        )

    @property
    def loss(self) -> float:
        """Mean nats per token."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of text."""
        return self.text_nats / (math.log(2) * self.text_bytes) if self.text_bytes else math.nan

    def as_dict(self) -> dict[str, float]:
        """Numbers for metrics and tables."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
        }


def evaluate_split(
    model: Any,
    split: Split,
    *,
    sequence_length: int,
    token_bytes: np.ndarray,
    batch_size: int,
    device: torch.device,
    max_tokens: int | None = None,
    eod_id: int | None = None,
    advance: Callable[[int], None] | None = None,
    share: Share | None = None,
) -> Score:
    """Score of `model` on a split of a token dataset.

    The split is cut into windows of `sequence_length` predictions; every token but the first is predicted once. With
    `max_tokens`, windows spread evenly over the whole split are taken. `eod_id` given: attention within documents.
    token_bytes: [vocabulary] int32, bytes each token stands for, 0 for special ones. `advance` is told the number of
    tokens evaluated, batch by batch. share: this process's part among several, which all come to the same score.
    """
    windows = -(-(split.num_tokens - 1) // sequence_length)
    if windows < 1:
        raise DataError("a validation split of fewer than two tokens cannot be evaluated; hold out more text.")
    chosen = windows
    if max_tokens is not None:
        chosen = max(1, min(windows, max_tokens // sequence_length))
    starts = [i * windows // chosen * sequence_length for i in range(chosen)]
    rows = (
        np.asarray(split.read(start, min(sequence_length + 1, split.num_tokens - start)), dtype=np.int64)
        for start in starts
    )
    return _score(model, rows, token_bytes, sequence_length, batch_size, device, eod_id, advance, share or Share())


def evaluate_pretraining(
    model: nn.Module,
    tokenizer: Tokenizer,
    dataset: Iterable[str] | Mapping[str, Iterable[str]],
    *,
    sequence_length: int | None = None,
    batch_size: int = 8,
    max_tokens: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Loss, perplexity and bits per byte of `model` on texts, weighted by tokens.

    dataset: texts, or a mapping of domain → texts. Each text is one document, evaluated by itself: it begins after an
    end-of-document token and its own end is predicted too. Returns {"loss", "perplexity", "bits_per_byte", "tokens"}
    over everything, and for a mapping also {"domains": {name: the same four}}.
    `sequence_length`: predictions per window; unset: the model's max_position_embeddings. `max_tokens`: stop after the
    window that reaches so many predictions in a domain. `advance` is told the number of tokens evaluated.
    """
    config = getattr(model, "config", None)
    length = sequence_length or getattr(config, "max_position_embeddings", None) or 1024
    device = next(model.parameters()).device
    token_bytes = tokenizer.token_bytes()
    domains = dataset if isinstance(dataset, Mapping) else {"": dataset}
    training = model.training
    model.eval()
    scores = {}
    for name, texts in domains.items():
        windows = _at_most(_windows(texts, tokenizer, length), max_tokens)
        scores[name] = _score(model, windows, token_bytes, length, batch_size, device, None, advance, Share())
    model.train(training)
    total = sum(scores.values(), Score())
    if not total.tokens:
        raise DataError("the dataset to evaluate holds no text.")
    result: dict[str, Any] = total.as_dict()
    if isinstance(dataset, Mapping):
        result["domains"] = {name: score.as_dict() for name, score in scores.items()}
    return result


def _windows(texts: Iterable[str], tokenizer: Tokenizer, length: int) -> Iterator[np.ndarray]:
    """Windows of up to length + 1 tokens; neighbours share one, so that every token is predicted once."""
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"a dataset to evaluate is made of texts, not of {type(text).__name__}.")
        tokens = np.asarray([tokenizer.eod_id, *tokenizer.encode(text), tokenizer.eod_id], dtype=np.int64)
        for start in range(0, len(tokens) - 1, length):
            yield tokens[start : start + length + 1]


def _at_most(windows: Iterable[np.ndarray], max_tokens: int | None) -> Iterator[np.ndarray]:
    """Windows until their predictions reach `max_tokens`."""
    seen = 0
    for window in windows:
        yield window
        seen += len(window) - 1
        if max_tokens is not None and seen >= max_tokens:
            return


@torch.no_grad()
def _score(
    model: Any,
    windows: Iterable[np.ndarray],
    token_bytes: np.ndarray,
    length: int,
    batch_size: int,
    device: torch.device,
    eod_id: int | None,
    advance: Callable[[int], None] | None,
    share: Share,
) -> Score:
    bytes_of = torch.zeros(int(token_bytes.shape[0]) + 1, dtype=torch.int64)
    bytes_of[:-1] = torch.from_numpy(token_bytes.astype(np.int64))
    total = Score()
    for batch in _batched(windows, batch_size * share.ranks):
        rows = batch[share.rank * batch_size : (share.rank + 1) * batch_size]  # none for some in the last batch
        padded = np.full((batch_size, length + 1), IGNORED, dtype=np.int64)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = row
        inputs = np.where(padded[:, :-1] == IGNORED, 0, padded[:, :-1])
        targets = torch.from_numpy(np.ascontiguousarray(padded[:, 1:]))
        documents = None
        if eod_id is not None:
            documents = torch.from_numpy(document_ids(inputs, eod_id)).to(device)
        losses = _token_losses(model, torch.from_numpy(inputs).to(device), targets.to(device), documents).cpu().double()
        predicted = targets != IGNORED
        sizes = bytes_of[torch.where(predicted, targets, -1)]
        total += Score(int(predicted.sum()), float(losses.sum()), float(losses[sizes > 0].sum()), int(sizes.sum()))
        if advance:
            advance(sum(len(row) - 1 for row in batch))
    sums = share.total(torch.tensor([total.tokens, total.nats, total.text_nats, total.text_bytes], dtype=torch.float64))
    tokens, nats, text_nats, text_bytes = sums.tolist()
    return Score(int(tokens), nats, text_nats, int(text_bytes))


def _token_losses(
    model: Any, inputs: torch.Tensor, targets: torch.Tensor, documents: torch.Tensor | None
) -> torch.Tensor:
    """[batch, sequence] losses in nats, 0 where the target is ignored; any model that returns logits will do."""
    if hasattr(model, "token_losses"):
        return model.token_losses(inputs, targets, documents)
    output = model(inputs)
    logits = output["logits"] if isinstance(output, Mapping) else output.logits
    return nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")


def _batched(rows: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    batch: list[np.ndarray] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
