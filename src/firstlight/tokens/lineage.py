"""From samples back to documents: which texts a step read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from firstlight.tokens.split import Split
from firstlight.tokens.stream import Stream
from firstlight.tokens.tokenizer import Tokenizer

SHOWN_CHARACTERS = 80
TOKENS_OF_TEXT = 64
"""Enough for that many characters in most languages."""


def describe_samples(
    stream: Stream, tokenizer: Tokenizer, first: int, count: int, most: int = 3
) -> list[dict[str, Any]]:
    """What up to `most` of the samples `first` … are, spread over them.

    [{"sample": its number, "source", "epoch", "document": number of its first document in the source's training split,
    "text": its first characters}].
    """
    chosen = sorted({first + i * count // min(most, count) for i in range(min(most, count))})
    described = []
    for sample in chosen:
        ids = stream.samples(sample, 1)
        source = stream.sources[int(ids.source[0])]
        tokens = stream.read(sample, 1)[0, : min(TOKENS_OF_TEXT, stream.sequence_length)]
        described.append(
            {
                "sample": sample,
                "source": source,
                "epoch": int(ids.epoch[0]),
                "document": document_at(stream.split(source), stream.first_token(sample)),
                "text": tokenizer.decode(tokens.tolist(), skip_special_tokens=False)[:SHOWN_CHARACTERS],
            }
        )
    return described


def document_at(split: Split, position: int) -> int:
    """Number of the document that token `position` of a split lies in; by bisection, O(log documents)."""
    return bisect_right(range(split.num_documents), position, key=lambda document: split.document_bounds(document)[1])


@dataclass(frozen=True)
class Part:
    """What a sample has of one document."""

    document: int
    """Its number in the split of its source."""
    first: int
    """First of its tokens that the sample has."""
    tokens: int
    """How many."""
    document_tokens: int
    """All that it has, EOD included."""
    column: int
    """Where they begin in the sample."""


def parts_of(split: Split, pieces: Iterable[tuple[int, int]], most: int) -> Iterator[Part]:
    """The documents that the first `most` tokens of a sample are of; pieces: as `Stream.pieces` gives them."""
    column = 0
    for start, length in pieces:
        end = start + min(length, most - column)
        while start < end:
            document = document_at(split, start)
            begin, stop = split.document_bounds(document)
            tokens = min(stop, end) - start
            yield Part(document, start - begin, tokens, stop - begin, column)
            start, column = start + tokens, column + tokens
