"""From windows of tokens to scores: what is to be predicted, what a model makes of it, and how much of it is right.

A causal model predicts every token after the first of a window. A masked model predicts the tokens that are hidden,
from both sides; which ones is drawn by the number of the window, so that every evaluation of a text hides the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firstlight.evaluation.score import Score, Share
from firstlight.model.loss import IGNORE_INDEX
from firstlight.support.errors import DataError
from firstlight.tokens.batches import document_ids
from firstlight.tokens.tokenizer import Tokenizer

Tokens = NDArray[np.int64]
Masks = Callable[[Tokens, int], tuple[Tokens, Tokens]]
"""(rows [n, length], number of the first) → (inputs, targets), both [n, length]."""
Window = tuple[int, Tokens]
"""Its number in the text, and its tokens."""


class Examples(NamedTuple):
    """What a model is asked, [rows, columns] int64 each; targets are -100 where nothing is asked."""

    inputs: Tokens
    targets: Tokens
    lengths: Tokens
    """[rows]: columns that hold text; the rest is padding."""


@dataclass(frozen=True)
class Scorer:
    """A model and how its evaluation goes."""

    model: Any
    tokenizer: Tokenizer
    length: int
    """Columns of what the model reads."""
    batch_size: int
    """Rows of what the model reads."""
    device: torch.device
    masks: Masks | None = None
    """What to hide; None: the model is causal."""
    within_documents: bool = False
    """Attention stays within documents."""
    share: Share = field(default_factory=Share)
    """This process's part among several, which all come to the same score."""

    @property
    def window_tokens(self) -> int:
        """Tokens of a whole window; of a causal model one more than it predicts."""
        return self.length + (self.masks is None)

    @cached_property
    def bytes_of(self) -> Tensor:
        """[vocabulary + 1] int64: bytes that each token stands for; all 0 where the tokenizer cannot say."""
        sizes = torch.zeros(self.tokenizer.vocab_size + 1, dtype=torch.int64)
        with contextlib.suppress(DataError):  # WordPiece does not keep white space
            sizes[:-1] = torch.from_numpy(self.tokenizer.token_bytes().astype(np.int64))
        return sizes

    def score(self, windows: Iterable[Window], advance: Callable[[int], None] | None = None) -> Score:
        """Score of all windows together; `advance` is told the number of tokens evaluated, batch by batch."""
        total = Score()
        for batch in _batched(windows, self.batch_size * self.share.ranks):
            mine = batch[self.share.rank * self.batch_size : (self.share.rank + 1) * self.batch_size]
            total += self.score_examples(self._examples(mine))  # mine: none for some in the last batch
            if advance:
                advance(sum(len(tokens) for _, tokens in batch) - len(batch) * (self.window_tokens - self.length))
        return self.share.whole(total, self.tokenizer.vocab_size)

    @torch.no_grad()
    def score_examples(self, examples: Examples) -> Score:
        """Score of one batch, on this process alone."""
        targets = torch.from_numpy(examples.targets)
        losses, hits = self._token_scores(examples, targets.to(self.device)).cpu().double()
        predicted = targets != IGNORE_INDEX
        sizes = self.bytes_of[torch.where(predicted, targets, -1)]
        counts = np.bincount(targets[predicted].numpy(), minlength=1)
        text_nats, text_bytes = float(losses[sizes > 0].sum()), int(sizes.sum())
        return Score(int(predicted.sum()), float(losses.sum()), int(hits.sum()), text_nats, text_bytes, counts)

    def _examples(self, windows: Sequence[Window]) -> Examples:
        """The windows as one batch of whole size, whose last rows may ask nothing."""
        filler = self.tokenizer.eod_id
        inputs = np.full((self.batch_size, self.length), filler, dtype=np.int64)
        targets = np.full_like(inputs, IGNORE_INDEX)
        lengths = np.full(self.batch_size, self.length)
        for row, (number, tokens) in enumerate(windows):
            if self.masks is None:
                lengths[row] = len(tokens) - 1
                inputs[row, : lengths[row]], targets[row, : lengths[row]] = tokens[:-1], tokens[1:]
            else:
                lengths[row] = len(tokens)
                inputs[row, : lengths[row]] = tokens
                hidden, wanted = self.masks(inputs[row : row + 1], number)  # a filler is special, and never hidden
                inputs[row], targets[row] = hidden[0], wanted[0]
        return Examples(inputs, targets, lengths)

    def _token_scores(self, examples: Examples, targets: Tensor) -> Tensor:
        """[2, rows, columns]: losses in nats and hits, 0 where the target is ignored; any model with logits will do."""
        inputs = torch.from_numpy(examples.inputs).to(self.device)
        text = torch.arange(inputs.shape[1]) < torch.from_numpy(examples.lengths)[:, None]
        padded = self.masks is not None and not text.all()  # no causal model looks at what comes later
        if hasattr(self.model, "token_scores"):
            documents = None
            if self.within_documents:
                documents = torch.from_numpy(document_ids(examples.inputs, self.tokenizer.eod_id))
            if padded:
                documents = torch.where(text, 0 if documents is None else documents, -1)
            return self.model.token_scores(inputs, targets, None if documents is None else documents.to(self.device))
        output = self.model(inputs, attention_mask=text.long().to(self.device)) if padded else self.model(inputs)
        logits = (output["logits"] if isinstance(output, Mapping) else output.logits).float()
        losses = nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORE_INDEX, reduction="none"
        )
        wanted = logits.gather(2, targets.clamp(min=0)[..., None])[..., 0]
        return torch.stack((losses, (wanted == logits.amax(2)) & (targets != IGNORE_INDEX)))


def _batched(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    batch: list[Window] = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
