"""From windows of tokens to scores: what is to be predicted, what a model makes of it, and how much of it is right.

A causal model predicts every token after the first of a window. A masked model predicts the tokens that are hidden,
from both sides; which ones is drawn by the number of the window, so that every evaluation of a text hides the same.
No document is read in the light of another: where a window holds parts of several, attention stays within each.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from firstlight.evaluation.score import Score, Share
from firstlight.evaluation.windows import Tokens, Window
from firstlight.model.loss import IGNORE_INDEX
from firstlight.support.errors import DataError
from firstlight.tokens.tokenizer import Tokenizer

Masks = Callable[[Tokens, int], tuple[Tokens, Tokens]]
"""(rows [n, length], number of the first) → (inputs, targets), both [n, length]."""
BATCHES_SORTED = 32
"""Windows of so many batches are sorted by length, so that short ones share a batch."""


class Examples(NamedTuple):
    """What a model is asked, [rows, columns] int64 each; targets are -100 where nothing is asked."""

    inputs: Tokens
    targets: Tokens
    lengths: Tokens
    """[rows]: columns that hold text; the rest is padding."""
    documents: Tokens | None = None
    """Attention stays within runs of equal numbers; None: within each row."""


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
    """A causal model's attention stayed within documents in training, so none of its texts began with a token that it
    could look back to."""
    whole_batches: bool = False
    """The model takes batches of whole size only, as a pipeline of processes does."""
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
        """Score of all windows together, by document too where they are of one each.

        `advance` is told the number of tokens evaluated, batch by batch.
        """
        total, rows, documents = Score(), list[tuple[Sequence[Window], Tensor]](), 0
        for batch in _batched(windows, self.batch_size * self.share.ranks):
            mine = batch[self.share.rank * self.batch_size : (self.share.rank + 1) * self.batch_size]
            examples = self._examples(mine)
            score, sums = self._score(examples)  # mine: none for some in the last batch
            total += score
            rows.append((mine, sums[: len(mine)]))
            documents = max([documents, *(w.document + 1 for w in batch if w.document is not None)])
            if advance:
                more = self.window_tokens - self.length
                advance(sum(len(w.tokens) - more if w.new is None else w.new for w in batch))
        return self.share.whole(total, self.tokenizer.vocab_size, _by_document(rows, documents))

    def score_examples(self, examples: Examples) -> Score:
        """Score of one batch, on this process alone."""
        return self._score(examples)[0]

    def _score(self, examples: Examples) -> tuple[Score, Tensor]:
        """(score of a batch, [rows, 4] float64: tokens, nats, text nats and text bytes of each row)."""
        targets = torch.from_numpy(examples.targets)
        losses, hits = self.token_scores(examples).cpu().double()
        predicted = targets != IGNORE_INDEX
        sizes = self.bytes_of[torch.where(predicted, targets, -1)]
        counts = np.bincount(targets[predicted].numpy(), minlength=1)
        parts = (predicted.double(), losses, losses * (sizes > 0), sizes.double())
        rows = torch.stack([part.sum(1) for part in parts], dim=1)
        tokens, nats, text_nats, text_bytes = rows.sum(0).tolist()
        return Score(int(tokens), nats, int(hits.sum()), text_nats, int(text_bytes), counts), rows

    def _examples(self, windows: Sequence[Window]) -> Examples:
        """The windows as one batch: of whole size, whose last rows may ask nothing, or as large as they need."""
        filler = self.tokenizer.eod_id
        inputs = np.full((self.batch_size, self.length), filler, dtype=np.int64)
        targets = np.full_like(inputs, IGNORE_INDEX)
        lengths = np.full(self.batch_size, self.length)
        for row, window in enumerate(windows):
            tokens = window.tokens
            if self.masks is None:
                size = lengths[row] = len(tokens) - 1
                first = 0 if window.new is None else size - window.new
                inputs[row, :size], targets[row, first:size] = tokens[:-1], tokens[1 + first :]
            else:
                lengths[row] = len(tokens)
                inputs[row, : lengths[row]] = tokens
                hidden, wanted = self.masks(inputs[row : row + 1], window.number)  # a filler is special: never hidden
                inputs[row], targets[row] = hidden[0], wanted[0]
        if not self.whole_batches:
            rows, columns = len(windows), int(lengths[: len(windows)].max(initial=0))
            inputs, targets, lengths = inputs[:rows, :columns], targets[:rows, :columns], lengths[:rows]
        several = any(window.document is None for window in windows)
        return Examples(inputs, targets, lengths, self._documents(inputs, lengths, several))

    def _documents(self, inputs: Tokens, lengths: Tokens, several: bool) -> Tokens | None:
        """The document that each column belongs to, as it stands in training but alone; None: every row is one.

        The token that ends a document is the one that the next is predicted from. So of a causal model it belongs to
        the next, or stands alone where the model was trained within documents.
        """
        if not self.tokenizer.has_text or not (several or (self.masks is None and self.within_documents)):
            return None
        ends = (inputs == self.tokenizer.eod_id) & (np.arange(inputs.shape[1]) < lengths[:, None])
        ended = np.cumsum(ends, axis=1)
        if self.masks is not None:
            documents = ended - ends
        else:
            documents = 2 * ended - ends if self.within_documents else ended
        return documents.astype(np.int64) if (documents != documents[:, :1]).any() else None

    @torch.no_grad()
    def token_scores(self, examples: Examples) -> Tensor:
        """[2, rows, columns]: losses in nats and hits, 0 where the target is ignored; any model with logits will do."""
        inputs, targets = (torch.from_numpy(part).to(self.device) for part in (examples.inputs, examples.targets))
        if not inputs.numel():
            return torch.zeros(2, *inputs.shape)
        text = torch.arange(inputs.shape[1]) < torch.from_numpy(examples.lengths)[:, None]
        padded = self.masks is not None and not text.all()  # no causal model looks at what comes later
        if hasattr(self.model, "token_scores"):
            documents = None if examples.documents is None else torch.from_numpy(examples.documents)
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


def _by_document(rows: Sequence[tuple[Sequence[Window], Tensor]], documents: int) -> Tensor:
    """[documents, 4] float64 from the sums of windows of one document each."""
    total = torch.zeros(documents, 4, dtype=torch.float64)
    for windows, sums in rows if documents else ():
        total.index_add_(0, torch.tensor([window.document for window in windows], dtype=torch.int64), sums)
    return total


def _batched(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    """Batches of neighbours in length, longest first, among the windows of `BATCHES_SORTED` batches."""
    windows = iter(windows)
    while some := sorted(itertools.islice(windows, size * BATCHES_SORTED), key=lambda w: -len(w.tokens)):
        for start in range(0, len(some), size):
            yield some[start : start + size]
