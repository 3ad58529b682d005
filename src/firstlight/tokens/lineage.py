"""From samples back to documents: which texts a step read."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from firstlight.tokens.batches import SampleStream
from firstlight.tokens.dataset import Split
from firstlight.tokens.tokenizer import Tokenizer

SHOWN_CHARACTERS = 80
TOKENS_OF_TEXT = 64
"""Enough for that many characters in most languages."""


def describe_samples(
    stream: SampleStream, tokenizer: Tokenizer, first: int, count: int, most: int = 3
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
        start = int(ids.sequence[0]) * stream.sequence_length
        split = stream.split(source)
        tokens = split.read(start, min(TOKENS_OF_TEXT, stream.sequence_length))
        described.append(
            {
                "sample": sample,
                "source": source,
                "epoch": int(ids.epoch[0]),
                "document": document_at(split, start),
                "text": tokenizer.decode(tokens.tolist(), skip_special_tokens=False)[:SHOWN_CHARACTERS],
            }
        )
    return described


def document_at(split: Split, position: int) -> int:
    """Number of the document that token `position` of a split lies in; by bisection, O(log documents)."""
    return bisect_right(range(split.num_documents), position, key=lambda document: split.document_bounds(document)[1])
