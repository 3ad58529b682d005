"""How text is cut for evaluation: windows of one document, or windows of a split that hold parts of several.

A causal model's windows may overlap: each begins `stride` tokens after the one before and is scored on the tokens that
no earlier window reached, so every token is predicted once, with at least `length - stride` tokens of its own document
before it where there are so many (the sliding window of Hugging Face's page on perplexity).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.support.errors import DataError
from firstlight.tokens.split import Split, check_ids
from firstlight.tokens.tokenizer import Tokenizer

Tokens = NDArray[np.int64]


class Window(NamedTuple):
    """What a model reads at once."""

    number: int
    """In its text; what is hidden of it is drawn by this number."""
    tokens: Tokens
    new: int | None = None
    """So many of its last tokens are predicted; None: all that a model can predict of it."""
    document: int | None = None
    """Number of the document that it is of; None: it holds parts of several."""


def document_windows(
    documents: Iterable[Tokens], length: int, stride: int | None = None, *, causal: bool = True, first: int = 0
) -> Iterator[Window]:
    """Windows of each document by itself: `length` columns, and one token more of a causal model, its last target.

    stride: tokens between the beginnings of neighbours; unset: `length`. first: number of the first document.
    """
    number, step, more = 0, stride or length, int(causal)
    for document, tokens in enumerate(documents, first):
        reached = more  # the first token of a causal model's document is not predicted
        for start in range(0, len(tokens) - more, step):
            end = min(start + length + more, len(tokens))
            yield Window(number, tokens[start:end], end - reached if causal else None, document)
            number, reached = number + 1, end
            if end == len(tokens):
                break


def split_windows(
    split: Split, length: int, tokenizer: Tokenizer, *, causal: bool, max_tokens: int | None
) -> Iterator[Window]:
    """Windows of a split, wherever documents begin: every one full but the last, for what must be quick.

    With `max_tokens`, windows spread evenly over the whole split are taken. DataError for a split of fewer than two
    tokens, and for an id outside the vocabulary.
    """
    more = int(causal)
    windows = -(-(split.num_tokens - more) // length)
    if windows < 1:
        raise DataError("a validation split of fewer than two tokens cannot be evaluated; hold out more text.")
    chosen = windows if max_tokens is None else max(1, min(windows, max_tokens // length))
    for number in (i * windows // chosen for i in range(chosen)):
        start = number * length
        size = min(length + more, split.num_tokens - start)
        yield Window(number, _read(split, start, size, tokenizer))


def split_documents(split: Split, tokenizer: Tokenizer, max_tokens: int | None = None) -> Iterator[Tokens]:
    """Documents of a split, each after the end-of-document token that stands before it in training.

    With `max_tokens`, as many documents as have so many tokens on average are taken, spread evenly over the split.
    Where there is no tokenizer, that token is not known and nothing stands before. DataError as `split_windows`.
    """
    count = split.num_documents
    chosen = count if max_tokens is None else max(1, min(count, -(-count * max_tokens // split.num_tokens)))
    before = [tokenizer.eod_id] if tokenizer.has_text else []
    for document in (i * count // chosen for i in range(chosen)):
        start, end = split.document_bounds(document)
        yield np.concatenate((np.array(before, dtype=np.int64), _read(split, start, end - start, tokenizer)))


def text_documents(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Tokens]:
    """Texts as documents, each between two end-of-document tokens. DataError for what is no text."""
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"a dataset to evaluate is made of texts, not of {type(text).__name__}.")
        yield np.asarray([tokenizer.eod_id, *tokenizer.encode(text), tokenizer.eod_id], dtype=np.int64)


def at_most(windows: Iterable[Window], max_tokens: int | None) -> Iterator[Window]:
    """Windows until the tokens that they are scored on reach `max_tokens`."""
    seen = 0
    for window in windows:
        yield window
        seen += len(window.tokens) - 1 if window.new is None else window.new
        if max_tokens is not None and seen >= max_tokens:
            return


def _read(split: Split, start: int, length: int, tokenizer: Tokenizer) -> Tokens:
    tokens = np.asarray(split.read(start, length), dtype=np.int64)
    check_ids(tokens, tokenizer.vocab_size, split, start)
    return tokens
