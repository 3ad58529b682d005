"""A token dataset: a folder of shards, the tokenizer that made them, and `dataset.json`, which says what is in them.

A split reads as one long row of tokens over all its shards. Opening reads `dataset.json` and compares file sizes;
shards are mapped when first read, so the first token of a trillion is as near as the first of a thousand. The
description is written last, inside a folder that is then renamed: a folder with `dataset.json` is whole, one without
is no dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.support.console import progress
from firstlight.support.errors import DataError, FirstlightError
from firstlight.support.files import fingerprint, read_json, write_json
from firstlight.support.recorded import RecordedFile
from firstlight.tokens.indexed import IndexedReader, data_path, index_path, token_dtype
from firstlight.tokens.split import DESCRIPTION, TOKENS_AT_ONCE, LanguageCounts, Shard, Split, check_ids
from firstlight.tokens.tokenizer import Tokenizer

TOKENIZER_FOLDER = "tokenizer"
FORMAT_VERSION = 1
SPLITS = ("train", "validation")


class TokenDataset:
    """An opened folder; `open` makes one. `splits` has "train" and, where documents are held out, "validation"."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description
        try:
            if description["format_version"] != FORMAT_VERSION:
                raise DataError(
                    f"{folder / DESCRIPTION}: format version {description['format_version']}; this program reads "
                    f"version {FORMAT_VERSION}. Tokenize again, or use the program that wrote it."
                )
            tokenizer = description["tokenizer"]
            self.source = str(description["source"])
            self.tokenizer_fingerprint = str(tokenizer["fingerprint"])
            self.vocab_size = _count(tokenizer["vocab_size"])
            self.eod_id = _count(tokenizer["eod_id"])
            self.dtype = np.dtype(str(description["dtype"])).newbyteorder("<")
            if self.dtype != token_dtype(self.vocab_size) or self.eod_id >= self.vocab_size:
                raise ValueError("dtype, vocab_size and eod_id do not agree")
            self.splits = {
                name: _split(folder, description["splits"][name], self.dtype) for name in _names(description)
            }
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise DataError(f"{folder / DESCRIPTION}: damaged description of a token dataset ({problem!r}).") from None

    @classmethod
    def open(cls, folder: str | Path) -> TokenDataset:
        """Open a folder in a time that does not depend on the number of tokens.

        Raises DataError when the folder is no token dataset, or a shard is missing or has another size than recorded.
        """
        dataset = cls.described(folder)
        for fault in dataset.faults(quick=True):
            raise DataError(fault)
        return dataset

    @classmethod
    def described(cls, folder: str | Path) -> TokenDataset:
        """The dataset that `dataset.json` describes, whether or not its shards are so. DataError when it is none."""
        folder = Path(folder)
        if not (folder / DESCRIPTION).is_file():
            what = f"no {DESCRIPTION} in this folder" if folder.is_dir() else "no such folder"
            raise DataError(f"{folder}: {what}; a finished token dataset (from `firstlight tokenize`) is due.")
        try:
            return cls(folder, read_json(folder / DESCRIPTION, "description of a token dataset"))
        except DataError:
            raise
        except FirstlightError as problem:
            raise DataError(str(problem)) from None

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the description, which holds the hash of every shard."""
        return fingerprint(self.description)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the dataset. DataError when the copy in the folder is another one."""
        tokenizer = Tokenizer.load(self.folder / TOKENIZER_FOLDER)
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise DataError(
                f"{self.folder / TOKENIZER_FOLDER}: not the tokenizer that made this dataset "
                f"({tokenizer.fingerprint[:8]}, not {self.tokenizer_fingerprint[:8]})."
            )
        return tokenizer

    def files(self) -> Iterator[RecordedFile]:
        """Every shard file as recorded."""
        for split in self.splits.values():
            for shard in split.shards:
                prefix = self.folder / shard.name
                yield RecordedFile(data_path(prefix), shard.bin_bytes, shard.bin_sha256, DESCRIPTION)
                yield RecordedFile(index_path(prefix), shard.idx_bytes, shard.idx_sha256, DESCRIPTION)

    def faults(self, *, quick: bool = False, advance: Callable[[int], None] | None = None) -> Iterator[str]:
        """A sentence for each thing that is not as it was written: hash of every shard, every entry of every index, ids
        outside the vocabulary, the tokenizer. quick: sizes of the files only. advance: is told bytes that were read."""
        damaged = set()
        for file in self.files():
            if fault := file.fault(quick=quick, advance=advance):
                damaged.add(file.path.stem)
                yield fault
        if quick:
            return
        for split in self.splits.values():
            start = 0
            for shard in split.shards:
                if shard.name not in damaged:
                    try:
                        IndexedReader(self.folder / shard.name).verify()
                        self._check_ids(split, start, shard.tokens)
                    except DataError as problem:
                        yield str(problem)
                start += shard.tokens
        try:
            assert self.tokenizer.vocab_size == self.vocab_size
        except DataError as problem:
            yield str(problem)

    def _check_ids(self, split: Split, start: int, tokens: int) -> None:
        for first in range(start, start + tokens, TOKENS_AT_ONCE):
            part = split.read(first, min(TOKENS_AT_ONCE, start + tokens - first))
            check_ids(part, self.vocab_size, split, first)

    def verify(self) -> None:
        """Read everything. DataError for the first fault."""
        with progress(f"verify {self.source}", sum(file.size for file in self.files()), "bytes") as bar:
            for fault in self.faults(advance=bar.advance):
                raise DataError(fault)


def describe(
    source: str,
    tokenizer: Tokenizer,
    splits: Mapping[str, Sequence[Shard]],
    by_language: Mapping[str, Mapping[str, LanguageCounts]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The content of `dataset.json`; `more` is recorded beside what the format asks for. Empty splits are left out.

    `by_language`: counts by split and language.
    """
    return {
        "format_version": FORMAT_VERSION,
        "source": source,
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "eod_id": tokenizer.eod_id,
            "name": tokenizer.name,
        },
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "splits": {
            name: {
                "tokens": sum(shard.tokens for shard in shards),
                "documents": sum(shard.documents for shard in shards),
                "text_bytes": sum(shard.text_bytes for shard in shards),
                **({"by_language": _as_dicts(by_language[name])} if by_language else {}),
                "shards": [asdict(shard) for shard in shards],
            }
            for name, shards in splits.items()
            if shards
        },
        **more,
    }


def write_description(folder: Path, description: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Complete a folder of shards: the tokenizer first, `dataset.json` last."""
    tokenizer.save(folder / TOKENIZER_FOLDER)
    write_json(folder / DESCRIPTION, description)


def _names(description: Mapping[str, Any]) -> list[str]:
    unknown = sorted(set(description["splits"]) - set(SPLITS))
    if unknown or "train" not in description["splits"]:
        raise ValueError(f"splits are train and validation, not {', '.join(unknown) or 'validation alone'}")
    return [name for name in SPLITS if name in description["splits"]]


def _split(folder: Path, record: Mapping[str, Any], dtype: np.dtype[Any]) -> Split:
    shards = [Shard(**shard) for shard in record["shards"]]
    for shard in shards:
        if not isinstance(shard.name, str) or Path(shard.name).name != shard.name:
            raise ValueError(f"shard name {shard.name!r} is no plain name")
        _count(shard.documents), _count(shard.text_bytes), _count(shard.idx_bytes)
        if _count(shard.tokens) * dtype.itemsize != shard.bin_bytes or not shard.tokens:
            raise ValueError(f"shard {shard.name}: {shard.tokens} tokens are not {shard.bin_bytes} bytes")
    if not shards:
        raise ValueError("a split without shards")
    by_language = {str(name): LanguageCounts(**counts) for name, counts in record.get("by_language", {}).items()}
    for counts in by_language.values():
        _count(counts.documents), _count(counts.tokens), _count(counts.text_bytes), _count(counts.characters)
    return Split(folder, shards, dtype, by_language)


def _as_dicts(by_language: Mapping[str, LanguageCounts]) -> dict[str, dict[str, int]]:
    return {language: asdict(by_language[language]) for language in sorted(by_language)}


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
