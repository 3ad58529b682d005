"""From documents of a token dataset back to the files that were tokenized: file, line and metadata.

A dataset records its inputs, not where in them each document was. That follows from the order, so the inputs are read
again up to the last document that is asked for, and what is found is tokenized and compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from firstlight.documents import Document, read_documents
from firstlight.support.errors import DataError
from firstlight.tokens.dataset import TokenDataset
from firstlight.tokens.tokenize_unit import is_held_out


@dataclass(frozen=True)
class Origin:
    """Where a document came from."""

    path: str
    """The input."""
    entry: int
    """Which entry of it, from 1: line of JSON lines (blank ones not counted), row of a table, record of an archive."""
    metadata: Mapping[str, Any]
    """What the input says about it."""


def origins(dataset: TokenDataset, split: str, numbers: Collection[int]) -> dict[int, Origin]:
    """Where documents of a split came from, by number. Raises DataError when an input is missing or was changed."""
    settings, left, found, number = dataset.description.get("settings") or {}, set(numbers), dict[int, Origin](), -1
    fraction = float(settings.get("validation_fraction", 0.0))
    for given in dataset.description.get("inputs") or ():
        items = read_documents(
            given["path"],
            text_field=settings.get("text_field", "text"),
            invalid_utf8=settings.get("invalid_utf8", "repair"),
        )
        for entry, item in enumerate(items, 1):
            if not left:
                return found
            if not isinstance(item, Document) or not item.text:
                continue
            if is_held_out(item.text.encode("utf-8"), fraction) != (split == "validation"):
                continue
            number += 1
            if number in left:
                _compare(dataset, split, number, item.text, f"{given['path']}, entry {entry}")
                left.remove(number)
                found[number] = Origin(given["path"], entry, item.metadata)
    if left:
        raise DataError(
            f"{dataset.folder}: its inputs have fewer documents than when they were tokenized; document {min(left)} "
            "is not among them."
        )
    return found


def _compare(dataset: TokenDataset, split: str, number: int, text: str, where: str) -> None:
    start, end = dataset.splits[split].document_bounds(number)
    stored = dataset.splits[split].read(start, end - start - 1).tolist()
    if dataset.tokenizer.encode(text) != stored:
        raise DataError(
            f"{where}: not the text that document {number} of {dataset.folder} was made of; the file was changed since."
        )
