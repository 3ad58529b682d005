"""One unit of a corpus build: a phase's steps over a few input files, or over what the phase before left of them.

A unit's folder is written under a name that no other process uses and renamed when `record.json` is in it, so that a
kill at any moment leaves the unit done or not begun. Run as a program, this module does units that arrive as JSON
lines on standard input; it is the same program on one machine and on a cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config import CorpusConfig
from firstlight.corpus.chain import Link, in_scope, run_chain
from firstlight.corpus.funnel import sizes
from firstlight.corpus.intermediate import IntermediateWriter, read_intermediate
from firstlight.corpus.shards import ShardWriter
from firstlight.corpus.statistics import KeptStatistics, ReadingStatistics
from firstlight.corpus.step import Block, Comparison
from firstlight.corpus.steps import make_comparison, make_step
from firstlight.documents import BadLine, Document, document_weight, read_documents
from firstlight.engine.folders import finished_folder
from firstlight.engine.workers import Send, serve
from firstlight.support.errors import DataError
from firstlight.support.files import write_json

RECORD = "record.json"
DOCUMENTS = "documents.arrow"
BLOCK_WEIGHT = 4_000_000
"""Characters of texts and metadata; a block is worked on in memory."""
BLOCK_DOCUMENTS = 4096
EARLY_LINES = 10_000
"""After so many lines of a unit, it is given up at once when most of them are bad."""

Blocks = Iterator[tuple[Block, NDArray[np.int64], int]]


@dataclass(frozen=True)
class Plan:
    """What a worker is to do with every unit of a phase."""

    settings: dict[str, Any]
    """The corpus section of the configuration."""
    verdicts: dict[int, str]
    """Folder of the decision of each comparison of the phase before, by its number, in order."""
    steps: list[int]
    comparisons: list[int]


def signals_file(number: int) -> str:
    """Name of the file that holds a unit's signals for comparison `number`."""
    return f"signals-{number}.parquet"


class PhaseWorker:
    """The steps of one phase, loaded once, for one unit after another."""

    def __init__(self, plan: Plan) -> None:
        self.settings = CorpusConfig.model_validate(plan.settings)
        self._plan = plan
        self._appliers: list[tuple[int, Callable[..., Any]]] = []
        for number, folder in plan.verdicts.items():
            comparison = make_comparison(self.settings.steps[number])
            comparison.load(Path(folder))
            self._appliers.append((number, comparison.apply))
        for number in plan.steps:
            step = make_step(self.settings.steps[number])
            self._appliers.append((number, lambda block, ids, step=step: step.apply(block)))
        self._comparisons = {number: make_comparison(self.settings.steps[number]) for number in plan.comparisons}

    def do(self, job: dict[str, Any], report: Callable[[int, int], None]) -> None:
        """One unit: {"number", "source", "inputs", "documents", "folder"}; `documents` is the phase before's, or None.

        Leaves in the folder: `record.json`; and either `documents.arrow` and signals, or `documents-*.jsonl.zst`.
        `report(bytes, documents)` hears of what was taken in and what was kept. DataError when most lines are bad.
        """
        with finished_folder(Path(job["folder"]), RECORD) as folder:
            write_json(folder / RECORD, self._work(job, folder, report))

    def _work(self, job: dict[str, Any], folder: Path, report: Callable[[int, int], None]) -> dict[str, Any]:
        started = time.process_time()
        reading, kept = ReadingStatistics(), KeptStatistics()
        if job["documents"]:
            blocks = read_intermediate(Path(job["documents"]), job["source"])
        else:
            blocks = self._read(job, reading)
        chain = [Link(number, self.settings.steps[number], apply) for number, apply in self._appliers]
        arrived = arrived_bytes = kept_bytes = 0
        with _Output(folder, job["source"], self.settings, self._comparisons, kept) as output:
            for block, ids, consumed in blocks:
                arrived += len(block)
                if len(block):
                    arrived_bytes += int(sizes(block).sum())
                    block, ids = run_chain(chain, block, ids, self.settings.samples_per_step)
                    output.write(block, ids)
                report(consumed, len(block))
                kept_bytes += int(sizes(block).sum())
        return {
            "documents_in": arrived,
            "bytes_in": arrived_bytes,
            "kept_bytes": kept_bytes,
            "reading": reading.as_dict(),
            "kept": kept.as_dict(),
            "steps": {str(link.number): link.counts.as_dict() for link in chain},
            "files": output.files,
            "cpu_seconds": round(time.process_time() - started, 3),
        }

    def _read(self, job: dict[str, Any], reading: ReadingStatistics) -> Blocks:
        """Documents of the unit's inputs; the id of a document is unit number · 2^32 + its place in the unit."""
        first = job["number"] << 32
        consumed = 0

        def count(size: int) -> None:
            nonlocal consumed
            consumed += size

        texts: list[str] = []
        metadata: list[dict[str, Any]] = []
        weight = lines = 0
        for path in job["inputs"]:
            for item in read_documents(
                path, text_field=self.settings.text_field, invalid_utf8=self.settings.invalid_utf8, consumed=count
            ):
                if isinstance(item, Document):
                    reading.read(item)
                    texts.append(item.text)
                    metadata.append({**item.metadata, "source": item.metadata.get("source", job["source"])})
                    weight += document_weight(item)
                    lines += 1
                elif isinstance(item, BadLine):
                    reading.bad(item)
                    lines += 1
                else:
                    reading.skip(item)
                    continue
                if lines == EARLY_LINES and reading.bad_share() > max(0.5, self.settings.max_bad_fraction):
                    raise DataError(hopeless(job["source"], reading, self.settings.max_bad_fraction))
                if weight >= BLOCK_WEIGHT or len(texts) >= BLOCK_DOCUMENTS:
                    yield Block(texts, metadata, job["source"]), np.arange(first, first + len(texts)), consumed
                    first += len(texts)
                    texts, metadata, weight, consumed = [], [], 0, 0
        yield Block(texts, metadata, job["source"]), np.arange(first, first + len(texts)), consumed


def hopeless(source: str, reading: ReadingStatistics, allowed: float) -> str:
    """The sentence for a source of which too many lines are bad."""
    bad, lines = reading.counts["bad_lines"], reading.counts["bad_lines"] + reading.counts["documents_in"]
    first = reading.first_bad[0]
    return (
        f"source '{source}': {bad:,} of {lines:,} lines ({reading.bad_share():.2%}) cannot be read, more than the "
        f"{allowed:.2%} that corpus.max_bad_fraction allows; the first is {first['path']}, line {first['line']}: "
        f"{first['reason']}."
    )


class _Output:
    """Where a phase's documents go: the corpus itself, or an intermediate file and the signals of comparisons."""

    def __init__(
        self,
        folder: Path,
        source: str,
        settings: CorpusConfig,
        comparisons: dict[int, Comparison],
        kept: KeptStatistics,
    ) -> None:
        self._folder, self._settings, self._comparisons, self._kept = folder, settings, comparisons, kept
        self._signals: dict[int, Any] = {}
        self._shards = None if comparisons else ShardWriter(folder, settings.shard_bytes)
        self._intermediate = IntermediateWriter(folder / DOCUMENTS) if comparisons else None
        self.files: list[str] = []

    def write(self, block: Block, ids: NDArray[np.int64]) -> None:
        """Documents that the steps kept."""
        if self._shards is not None:
            for text, about, size in zip(block.texts, block.metadata, sizes(block).tolist(), strict=True):
                self._shards.write(Document(text, about))
                language = about.get("language")
                self._kept.kept(text, size, language if isinstance(language, str) else "unknown")
        elif len(block):
            assert self._intermediate is not None
            self._intermediate.write(block, ids)
            for number, comparison in self._comparisons.items():
                places = in_scope(self._settings.steps[number], block)
                if len(places):
                    chosen = block if len(places) == len(block) else block.select(places)
                    self._write_signals(number, comparison.signals(chosen, ids[places]))

    def _write_signals(self, number: int, table: Any) -> None:
        import pyarrow.parquet

        writer = self._signals.get(number)
        if writer is None:
            path = self._folder / signals_file(number)
            writer = self._signals[number] = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, kind: Any, problem: Any, trace: Any) -> None:
        for writer in self._signals.values():
            writer.close()
        if self._intermediate is not None:
            self._intermediate.__exit__(kind, problem, trace)
        if self._shards is not None:
            self._shards.__exit__(kind, problem, trace)
            self.files = self._shards.files


def main() -> None:
    """The worker program."""

    def start(setup: dict[str, Any]) -> Callable[[dict[str, Any], Send], None]:
        verdicts = {int(number): folder for number, folder in setup["verdicts"].items()}
        worker = PhaseWorker(Plan(setup["settings"], verdicts, setup["steps"], setup["comparisons"]))
        return lambda job, send: worker.do(
            job, lambda consumed, kept: send(kind="progress", bytes=consumed, documents=kept)
        )

    serve(start)


if __name__ == "__main__":
    main()
