"""The verb `inspect` for a token dataset or a prefix: what is in it, and the text of a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from firstlight.config import SourceConfig
from firstlight.pipeline.inspecting import TEXT_TOKENS, check_document, marked_text, origins_in, source_facts
from firstlight.support.errors import ConfigError
from firstlight.tokens.null import NullTokenizer
from firstlight.tokens.prefix import PrefixDataset, is_prefix
from firstlight.tokens.sources import SourceTokens, open_source
from firstlight.tokens.split import Split
from firstlight.tokens.tokenizer import Tokenizer

MOST_ID = 2**31
"""Ids of a prefix without a tokenizer are shown as they are, whatever they are."""


def inspect_dataset(target: str | Path, *, most: int, tokenizer: str | None = None) -> dict[str, Any]:
    """What a token dataset or prefix holds, and the beginnings of the first `most` documents of each split.

    tokenizer: of a prefix, to see its text; unset: its ids are shown.
    """
    tokens = _opened(target)
    spells = _tokenizer(tokens, tokenizer)
    facts = {**source_facts(tokens), "splits": {}, **_recorded(tokens)}
    for name, split in tokens.splits.items():
        facts["splits"][name] = {
            "text_bytes": split.text_bytes or None,
            "languages": {language: asdict(counts) for language, counts in split.by_language.items()},
            "first_documents": [
                _document(split, number, spells, TEXT_TOKENS) for number in range(min(most, split.num_documents))
            ],
        }
    return facts


def dataset_document(
    target: str | Path, name: str, *, split: str = "train", tokenizer: str | None = None, origin: bool = False
) -> dict[str, Any]:
    """One document by its number in a split: its whole text, and with `origin` where it came from."""
    tokens = _opened(target)
    if split not in tokens.splits:
        raise ConfigError(f"--split {split}: {target} has {', '.join(tokens.splits)}.")
    if not name.isdecimal():
        raise ConfigError(f"--document {name}: of a token dataset it is a number, as 17.")
    number = int(name)
    check_document(tokens.splits[split], number, f"{split} of {target}")
    facts = {
        "path": str(tokens.path),
        "split": split,
        **_document(tokens.splits[split], number, _tokenizer(tokens, tokenizer)),
    }
    if origin:
        facts["origin"] = asdict(origins_in(tokens, split, {number})[number])
    return facts


def _opened(target: str | Path) -> SourceTokens:
    return open_source(SourceConfig(tokens=str(target)), "1" if is_prefix(target) else None)


def _tokenizer(tokens: SourceTokens, given: str | None) -> Tokenizer:
    if tokens.folder is None:
        return Tokenizer.load(given) if given else NullTokenizer(MOST_ID)
    if given:
        raise ConfigError(f"--tokenizer is for prefixes; {tokens.path} has the tokenizer that made it.")
    return tokens.folder.tokenizer


def _recorded(tokens: SourceTokens) -> dict[str, Any]:
    """What `dataset.json` says beside the splits; a prefix says nothing."""
    if tokens.folder is None:
        reader = PrefixDataset(tokens.path).reader
        return {"kind": "prefix", "dtype": reader.dtype.name, "sequences": reader.num_sequences}
    description: Mapping[str, Any] = tokens.folder.description
    return {
        "kind": "token dataset",
        "source": tokens.folder.source,
        "dtype": tokens.folder.dtype.name,
        "vocab_size": tokens.folder.vocab_size,
        "tokenizer": description["tokenizer"].get("name"),
        "inputs": [given.get("path") for given in description.get("inputs") or ()],
    }


def _document(split: Split, number: int, tokenizer: Tokenizer, most: int | None = None) -> dict[str, Any]:
    first, end = split.document_bounds(number)
    shown = end - first if most is None else min(end - first, most)
    return {"document": number, "tokens": end - first, "text": marked_text(tokenizer, split.read(first, shown))}
