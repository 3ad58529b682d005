"""One unit of tokenization: a few input files become shards of their own, all of them or none.

A unit's folder is written under a name that no other process uses and renamed when `record.json` is in it, so that a
kill at any moment leaves the unit done or not begun, and a process that outlives its parent disturbs nobody.
Run as a program, this module does units that arrive as JSON lines on standard input.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from firstlight.documents import read_documents
from firstlight.support.errors import FirstlightError
from firstlight.support.files import fsync_folder, write_json
from firstlight.tokens.dataset import SPLITS, Shard
from firstlight.tokens.indexed import IndexedWriter, token_dtype
from firstlight.tokens.tally import Tally
from firstlight.tokens.tokenizer import Tokenizer

RECORD = "record.json"
BATCH_DOCUMENTS = 2048
BATCH_CHARACTERS = 2_000_000


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
    """Write the shards of `inputs` and `record.json` into `folder`; returns the record {"splits", "tally"}.

    Shards are named `train-00000`, … within the unit; a shard ends before the document that would take it over
    `shard_tokens`. `report(bytes, tokens)` hears of progress: bytes taken from disk, tokens written.
    """
    attempt = folder.with_name(f".{folder.name}.{os.getpid()}")
    attempt.mkdir(parents=True)
    try:
        tally = Tally()
        writers = {split: _ShardWriter(attempt, split, tokenizer, settings.shard_tokens) for split in SPLITS}
        with contextlib.ExitStack() as open_shards:
            for writer in writers.values():
                open_shards.push(writer.leave)
            for batch, consumed in _batches(inputs, settings, tally):
                tokens = 0
                for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
                    data = text.encode("utf-8")
                    held_out = is_held_out(data, settings.validation_fraction)
                    writers["validation" if held_out else "train"].add(ids, len(data))
                    tokens += len(ids) + 1
                report(consumed, tokens)
        record = {
            "splits": {split: [asdict(shard) for shard in writer.shards] for split, writer in writers.items()},
            "tally": tally.as_dict(),
        }
        write_json(attempt / RECORD, record)
        try:
            attempt.rename(folder)
        except OSError:
            if not (folder / RECORD).is_file():
                raise
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    return record


def _batches(inputs: Sequence[str], settings: TokenizeSettings, tally: Tally) -> Iterator[tuple[list[str], int]]:
    """(texts, bytes taken from disk since the last batch); the last batch may be empty."""
    consumed = 0

    def count(size: int) -> None:
        nonlocal consumed
        consumed += size

    batch: list[str] = []
    characters = 0
    for path in inputs:
        for entry in read_documents(
            path, text_field=settings.text_field, invalid_utf8=settings.invalid_utf8, consumed=count
        ):
            text = tally.take(entry)
            if text is None:
                continue
            batch.append(text)
            characters += len(text)
            if len(batch) >= BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
                yield batch, consumed
                batch, characters, consumed = [], 0, 0
    yield batch, consumed


class _ShardWriter:
    """Documents of one split into one shard after another."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._dtype, self._eod = token_dtype(tokenizer.vocab_size), tokenizer.eod_id
        self._writer: IndexedWriter | None = None
        self._text_bytes = 0

    def add(self, ids: list[int], text_bytes: int) -> None:
        """One document; EOD is appended here."""
        if self._writer and self._writer.num_tokens + len(ids) + 1 > self._shard_tokens:
            self._finish()
        if self._writer is None:
            self._writer = IndexedWriter(self._folder / f"{self._split}-{len(self.shards):05d}", self._dtype)
        self._writer.add_document([*ids, self._eod])
        self._text_bytes += text_bytes

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


def main() -> None:
    """Do the units that arrive on standard input; answer with progress, record or error, a JSON object a line."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        try:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), channel.fileno())
            raise SystemExit(1) from None

    place = "standard input"
    try:
        setup = json.loads(sys.stdin.readline())
        tokenizer = Tokenizer.load(setup["tokenizer"])
        settings = TokenizeSettings(**setup["settings"])
        for line in sys.stdin:
            unit = json.loads(line)
            place = unit["folder"]
            tokenize_unit(
                unit["inputs"],
                tokenizer,
                Path(unit["folder"]),
                settings,
                lambda consumed, tokens: send(kind="progress", bytes=consumed, tokens=tokens),
            )
            send(kind="done")
    except FirstlightError as problem:
        send(kind="error", message=str(problem))
    except OSError as problem:
        send(kind="error", message=f"{problem.filename or place}: {problem.strerror or problem}.")


if __name__ == "__main__":
    main()
