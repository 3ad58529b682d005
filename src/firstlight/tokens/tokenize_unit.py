"""One unit of tokenization: a few input files become shards of their own, all of them or none.

A unit's folder is written under a name that no other process uses and renamed when `record.json` is in it, so that a
kill at any moment leaves the unit done or not begun, and a process that outlives its parent disturbs nobody. What the
fast encoder gives is compared with the exact one on some documents of every unit; where it differs, the exact one does
the unit again. Run as a program, this module does units that arrive as JSON lines on standard input.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from firstlight.documents import Document, document_weight, read_documents
from firstlight.engine.folders import finished_folder
from firstlight.engine.workers import Send, serve
from firstlight.support.files import write_json
from firstlight.tokens.dataset import SPLITS
from firstlight.tokens.fast import Arrays
from firstlight.tokens.indexed import IndexedWriter, token_dtype
from firstlight.tokens.split import LanguageCounts, Shard, language_of
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import Tokenizer

RECORD = "record.json"
BATCH_DOCUMENTS = 2048
BATCH_WEIGHT = 2_000_000

COMPARED_CHARACTERS = 64_000
"""Characters at the beginning of a unit that both encoders encode, at least; a document that is begun is finished."""
COMPARED_SHARE = 0.002
"""Share of the characters of a unit that both encode."""
LONGEST_COMPARED = 50_000
"""Characters of a longer document that both encode."""


@dataclass(frozen=True)
class TokenizeSettings:
    """What shapes the shards beside the inputs and the tokenizer."""

    validation_fraction: float
    shard_tokens: int
    text_field: str
    invalid_utf8: Literal["repair", "reject"]


def is_held_out(text: bytes, fraction: float) -> bool:
    """Whether a document (UTF-8) belongs to the validation split: by BLAKE2b of its text, wherever it lies."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") < fraction * 2**64


def tokenize_unit(
    inputs: Sequence[str],
    tokenizer: Tokenizer,
    folder: Path,
    settings: TokenizeSettings,
    report: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the shards of `inputs` and `record.json` into `folder`; returns the record.

    The record is {"splits", "tally", "by_language", "slow_because", "other_ids"}; the last two say why `tokenizers`
    encoded, if it did: for all units alike, or because of what `gigatoken` gave for this one. Shards are named
    `train-00000`, … within the unit; a shard ends before the document that would take it over `shard_tokens`.
    `report(bytes, tokens)` hears of progress: bytes taken from disk, tokens written; less than 0 where work is redone.
    """
    other_ids = None
    with finished_folder(folder, RECORD) as attempt:
        try:
            content = _write_shards(inputs, tokenizer, attempt, settings, report, exactly=False)
        except _OtherIds as problem:
            other_ids = str(problem)
            shutil.rmtree(attempt)
            attempt.mkdir()
            content = _write_shards(inputs, tokenizer, attempt, settings, report, exactly=True)
        record = {**content, "slow_because": tokenizer.slow_because, "other_ids": other_ids}
        write_json(attempt / RECORD, record)
    return record


class _OtherIds(Exception):
    """The fast encoder does not give the ids of the exact one; names the document."""


def _write_shards(
    inputs: Sequence[str],
    tokenizer: Tokenizer,
    folder: Path,
    settings: TokenizeSettings,
    report: Callable[[int, int], None],
    *,
    exactly: bool,
) -> dict[str, Any]:
    """The shards of a unit, and what its record says of them. Raises _OtherIds unless `exactly`."""
    tally = Tally()
    writers = {split: _ShardWriter(folder, split, tokenizer, settings.shard_tokens) for split in SPLITS}
    counts: dict[str, dict[str, LanguageCounts]] = {split: defaultdict(LanguageCounts) for split in SPLITS}
    comparison = _Comparison(tokenizer)
    reported = [0, 0]
    with contextlib.ExitStack() as open_shards:
        for writer in writers.values():
            open_shards.push(writer.leave)
        for documents, consumed in _batches(inputs, settings, tally):
            texts = [document.text for document in documents]
            ids, offsets = tokenizer.encode_arrays(texts, exactly=exactly)
            if tokenizer.is_fast and not exactly:
                try:
                    comparison.compare(texts, (ids, offsets))
                except _OtherIds:
                    report(-reported[0], -reported[1])
                    raise
            lengths = np.diff(offsets) + 1
            text_bytes = np.empty(len(texts), dtype=np.int64)
            held_out = np.empty(len(texts), dtype=bool)
            for number, (document, length) in enumerate(zip(documents, lengths.tolist(), strict=True)):
                data = document.text.encode("utf-8")
                text_bytes[number] = len(data)
                held_out[number] = is_held_out(data, settings.validation_fraction)
                split = "validation" if held_out[number] else "train"
                counts[split][language_of(document.metadata)].add(1, length, len(data), len(document.text))
            rows = _with_eod(ids, offsets, tokenizer)
            for split, chosen in (("train", ~held_out), ("validation", held_out)):
                if chosen.any():
                    part = rows if chosen.all() else rows[np.repeat(chosen, lengths)]
                    writers[split].add(part, lengths[chosen], text_bytes[chosen])
            report(consumed, len(rows))
            reported = [reported[0] + consumed, reported[1] + len(rows)]
    return {
        "splits": {split: [asdict(shard) for shard in writer.shards] for split, writer in writers.items()},
        "tally": tally.as_dict(),
        "by_language": {
            split: {language: asdict(found) for language, found in sorted(languages.items())}
            for split, languages in counts.items()
        },
    }


class _Comparison:
    """Compare what the fast encoder gave for the first documents of a unit and for a share of the later ones."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._seen = self._compared = 0

    def compare(self, texts: Sequence[str], given: Arrays) -> None:
        """Raises _OtherIds for a document whose ids are not those of the exact encoder."""
        chosen = []
        for number, text in enumerate(texts):
            if self._compared <= COMPARED_CHARACTERS + COMPARED_SHARE * self._seen:
                chosen.append(number)
                self._compared += min(len(text), LONGEST_COMPARED)
            self._seen += len(text)
        ids, offsets = given
        whole = [number for number in chosen if len(texts[number]) <= LONGEST_COMPARED]
        self._compare([texts[n] for n in whole], [ids[offsets[n] : offsets[n + 1]] for n in whole])
        for number in sorted(set(chosen) - set(whole)):
            begin = texts[number][:LONGEST_COMPARED]
            self._compare([begin], [self._tokenizer.encode_arrays([begin])[0]])

    def _compare(self, texts: Sequence[str], rows: Sequence[np.ndarray]) -> None:
        expected, bounds = self._tokenizer.encode_arrays(texts, exactly=True)
        for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
            if not np.array_equal(row, expected[bounds[number] : bounds[number + 1]]):
                raise _OtherIds(f"the document that begins with {text[:60]!r}")


def _with_eod(ids: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """The ids of documents in the stored dtype, EOD after each: [tokens + documents]."""
    rows = np.empty(len(ids) + len(offsets) - 1, dtype=token_dtype(tokenizer.vocab_size))
    is_eod = np.zeros(len(rows), dtype=bool)
    is_eod[offsets[1:] + np.arange(len(offsets) - 1)] = True
    rows[is_eod] = tokenizer.eod_id
    rows[~is_eod] = ids
    return rows


def _batches(inputs: Sequence[str], settings: TokenizeSettings, tally: Tally) -> Iterator[tuple[list[Document], int]]:
    """(documents with text, bytes taken from disk since the last batch); the last batch may be empty."""
    consumed = 0

    def count(size: int) -> None:
        nonlocal consumed
        consumed += size

    batch: list[Document] = []
    weight = 0
    for path in inputs:
        for entry in read_documents(
            path, text_field=settings.text_field, invalid_utf8=settings.invalid_utf8, consumed=count
        ):
            text = tally.take(entry)
            if text is None:
                continue
            assert isinstance(entry, Document)
            batch.append(entry)
            weight += document_weight(entry)
            if len(batch) >= BATCH_DOCUMENTS or weight >= BATCH_WEIGHT:
                yield batch, consumed
                batch, weight, consumed = [], 0, 0
    yield batch, consumed


class _ShardWriter:
    """Documents of one split into one shard after another."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._writer: IndexedWriter | None = None
        self._text_bytes = 0

    def add(self, tokens: np.ndarray, lengths: np.ndarray, text_bytes: np.ndarray) -> None:
        """Documents one after the other, EOD included: their tokens, and each one's tokens and bytes of text."""
        ends = np.cumsum(lengths)
        first = begin = 0
        while first < len(lengths):
            written = self._writer.num_tokens if self._writer else 0
            fitting = int(np.searchsorted(ends, begin + self._shard_tokens - written, side="right"))
            if fitting <= first:
                if self._writer:
                    self._finish()
                    continue
                fitting = first + 1
            if self._writer is None:
                self._writer = IndexedWriter(self._folder / f"{self._split}-{len(self.shards):05d}", self._dtype)
            self._writer.add_documents(tokens[begin : ends[fitting - 1]], lengths[first:fitting])
            self._text_bytes += int(text_bytes[first:fitting].sum())
            first, begin = fitting, int(ends[fitting - 1])

    def _finish(self) -> None:
        writer = self._writer
        assert writer is not None
        writer.close()
        self.shards.append(
            Shard(
                name=writer.prefix.name,
                tokens=writer.num_tokens,
                documents=writer.num_documents,
                text_bytes=self._text_bytes,
                bin_bytes=writer.bin_bytes,
                idx_bytes=writer.idx_bytes,
                bin_sha256=writer.bin_sha256,
                idx_sha256=writer.idx_sha256,
            )
        )
        self._writer, self._text_bytes = None, 0

    def leave(self, kind: Any, problem: Any, trace: Any) -> None:
        """At the end: finish the shard in progress, or remove it after an exception."""
        if self._writer is None:
            return
        if kind is None:
            self._finish()
        else:
            self._writer.__exit__(kind, problem, trace)


def start(setup: dict[str, Any]) -> Callable[[dict[str, Any], Send], None]:
    """What a worker does with its jobs (see `firstlight.engine.workers.serve`): one unit each."""
    tokenizer = Tokenizer.load(setup["tokenizer"])
    settings = TokenizeSettings(**setup["settings"])

    def work(job: dict[str, Any], send: Send) -> None:
        def report(consumed: int, tokens: int) -> None:
            send(kind="progress", bytes=consumed, tokens=tokens)

        tokenize_unit(job["inputs"], tokenizer, Path(job["folder"]), settings, report)

    return work


if __name__ == "__main__":
    serve(start)
