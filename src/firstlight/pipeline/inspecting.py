"""The verb `inspect`: what a step of a run read, which steps read a document, and what a token dataset holds.

Nothing of this is recorded while training: which samples a step reads is a function of its number, so any step of any
run can be asked, also one that is still to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.config import RunConfig
from firstlight.pipeline.course import Course, course_of
from firstlight.pipeline.diagnosing import read_lines
from firstlight.support.errors import CheckpointError, ConfigError, DataError, did_you_mean
from firstlight.tokens.batches import rank_slice
from firstlight.tokens.lineage import parts_of
from firstlight.tokens.masking import IGNORED
from firstlight.tokens.objective import objective_of
from firstlight.tokens.origins import Origin, origins
from firstlight.tokens.sources import SourceTokens, open_source
from firstlight.tokens.split import Split
from firstlight.tokens.stream import Stream
from firstlight.tokens.streams import open_stream
from firstlight.tokens.tokenizer import Tokenizer
from firstlight.training.run_folder import RunFolder

OPENING, CLOSING = "⟦", "⟧"
"""Around hidden tokens."""
TEXT_TOKENS = 200
"""Of the text of a document that is shown by its beginning."""


class InspectedRun:
    """A run with the data that it was trained on, found and compared with what it began with."""

    def __init__(self, folder: str | Path) -> None:
        """CheckpointError where `folder` is no run, DataError where its data are not here or not those."""
        self.run = RunFolder.open(folder)
        self.config: RunConfig = self.run.config
        self.tokenizer: Tokenizer = self.run.tokenizer
        self.course: Course = course_of(self.run)
        self.sources = {
            name: open_source(source, self.config.data.split)
            for name, source in self.config.data.sources.items()
            if not source.only_validates
        }
        self._check_data()
        self.stream = self._stream()
        self.width = self.config.data.sequence_length + self.config.model.causal
        """Tokens of a sample that the model is told of: the last one of a causal model is a target only."""

    def _check_data(self) -> None:
        began = self.run.provenance["datasets"]
        for name, tokens in self.sources.items():
            if began.get(name, {}).get("fingerprint") != tokens.fingerprint:
                raise DataError(
                    f"{tokens.path}: not the data of '{name}' that {self.run.path} began with; put them back, or write "
                    f"where they are into data.sources.{name}.tokens of {self.run.config_file}."
                )

    def _stream(self) -> Stream:
        splits = {name: tokens.splits["train"] for name, tokens in self.sources.items()}
        samples = self.course.total_steps * self.course.batch
        identities = {name: tokens.fingerprint for name, tokens in self.sources.items()}
        stream = open_stream(splits, self.config, samples, identities)
        try:
            stream.samples(0, 1)
        except DataError:  # an order that is kept in files, which are not here: built again, in memory
            stream = open_stream(splits, self.config, samples)
        return stream

    def step(
        self, step: int, *, rank: int | None = None, row: int | None = None, most: int | None = None
    ) -> dict[str, Any]:
        """What a step (from 1) reads: facts of the step, and of its first `most` samples the documents.

        rank: only what this data-parallel rank reads, at the layout of the run's last start. row: only this sample of
        the batch (of the rank's part), from 0. ConfigError for what the run has not.
        """
        course = self.course
        if not 1 <= step <= course.total_steps:
            raise ConfigError(f"--step {step}: {self.run.path} has steps 1 to {course.total_steps}.")
        first, count = course.first_sample(step), course.batch
        offset = 0
        if rank is not None:
            ranks = self.config.layout(self.config.declared_world_size).data
            if not 0 <= rank < ranks:
                raise ConfigError(f"--rank {rank}: {self.run.path} has data-parallel ranks 0 to {ranks - 1}.")
            offset, count = rank_slice(0, course.batch, rank, ranks)
        rows = range(offset, offset + count)
        if row is not None:
            if not 0 <= row < count:
                raise ConfigError(f"--sample {row}: the step reads samples 0 to {count - 1} here.")
            rows = rows[row : row + 1]
        shown = rows if most is None else rows[:most]
        return {
            "run": str(self.run.path),
            "step": step,
            "total_steps": course.total_steps,
            "trained": step <= course.reached,
            "did_not_count": self._why_not(step),
            "first_sample": first,
            "samples": course.batch,
            "rank": rank,
            "tokens_per_sample": self.config.data.sequence_length,
            "passed_over": [list(part) for part in course.passed_over if part[0] <= first],
            "rows": [self._row(first, number) for number in shown],
            "more_rows": len(rows) - len(shown),
        }

    def add_origins(self, rows: Sequence[dict[str, Any]]) -> None:
        """Give every document of `rows` its `origin`: file, entry and metadata; the inputs are read for it.

        ConfigError for a source that does not record its inputs, DataError as `firstlight.tokens.origins`.
        """
        for source in dict.fromkeys(row["source"] for row in rows):
            documents = [document for row in rows if row["source"] == source for document in row["documents"]]
            found = origins_in(self.sources[source], "train", {document["document"] for document in documents})
            for document in documents:
                document["origin"] = asdict(found[document["document"]])

    def _row(self, first: int, number: int) -> dict[str, Any]:
        sample = first + number
        ids, tokens = self.stream.samples(sample, 1), self.stream.read(sample, 1)
        source = self.stream.sources[int(ids.source[0])]
        row, hidden = tokens[0, : self.width], np.zeros(self.width, bool)
        if not self.config.model.causal:
            hidden = objective_of(self.config, self.tokenizer)(tokens, sample)[1][0] != IGNORED
        parts = parts_of(self.stream.split(source), self.stream.pieces(sample), self.width)
        return {
            "row": number,
            "sample": sample,
            "source": source,
            "epoch": int(ids.epoch[0]),
            "hidden_tokens": None if self.config.model.causal else int(hidden.sum()),
            "documents": [
                {
                    **asdict(part),
                    "text": marked_text(
                        self.tokenizer,
                        row[part.column : part.column + part.tokens],
                        hidden[part.column : part.column + part.tokens],
                    ),
                }
                for part in parts
            ],
        }

    def _why_not(self, step: int) -> str | None:
        """ "skipped" or "overflow" where the model did not move at this step; the last time that it came to it."""
        reason: str | None = None
        events, _ = read_lines(self.run.events)
        for event in events:
            kind = event.get("event")
            if kind in ("skipped", "overflow") and event.get("step") == step:
                reason = str(kind)
            elif kind in ("resumed", "rolled_back"):
                back_to = event.get("step" if kind == "resumed" else "to_step")
                if isinstance(back_to, int) and back_to < step:
                    reason = None  # it is trained again
        return reason

    def document(self, name: str) -> dict[str, Any]:
        """Which steps read document SOURCE:NUMBER of a training split. ConfigError for one that there is not."""
        source, number = self._named(name)
        split = self.sources[source].splits["train"]
        first, end = split.document_bounds(number)
        readings = [
            reading
            for sample in (self._samples_with(source, first, end) if end > first else ())
            for reading in self._readings(sample, source, number)
        ]
        return {
            "run": str(self.run.path),
            "source": source,
            "document": number,
            "tokens": end - first,
            "text": marked_text(self.tokenizer, split.read(first, min(end - first, TEXT_TOKENS))),
            "steps_trained": self.course.reached,
            "total_steps": self.course.total_steps,
            "readings": readings,
        }

    def _named(self, name: str) -> tuple[str, int]:
        source, colon, given = name.rpartition(":")
        if not colon or not given.isdecimal():
            raise ConfigError(f"--document {name}: of a run it is written SOURCE:NUMBER, as books:17.")
        if source not in self.sources:
            raise ConfigError(
                f"--document {name}: the run has no training source '{source}'.{did_you_mean(source, self.sources)}"
            )
        check_document(self.sources[source].splits["train"], int(given), f"source '{source}'")
        return source, int(given)

    def _samples_with(self, source: str, first: int, end: int) -> list[int]:
        if source not in self.stream.sources:
            return []  # without a weight in any mixture
        return self.stream.samples_with(source, first, end, self.course.total_samples)

    def _readings(self, sample: int, source: str, document: int) -> Iterator[dict[str, Any]]:
        ids, step = self.stream.samples(sample, 1), self.course.step_of(sample)
        for part in parts_of(self.stream.split(source), self.stream.pieces(sample), self.width):
            if part.document == document:
                yield {
                    "step": step,
                    "sample": sample,
                    "epoch": int(ids.epoch[0]),
                    "first": part.first,
                    "tokens": part.tokens,
                    "trained": step is not None and step <= self.course.reached,
                    "did_not_count": None if step is None else self._why_not(step),
                }

    def overview(self) -> dict[str, Any]:
        """What the run draws from each source: so far, and in all."""
        course, stream = self.course, self.stream
        read = course.first_sample(course.reached + 1)
        return {
            "run": str(self.run.path),
            "steps_trained": course.reached,
            "total_steps": course.total_steps,
            "samples_per_step": course.batch,
            "tokens_per_sample": self.config.data.sequence_length,
            "sources": {
                name: {
                    **source_facts(tokens),
                    "epochs_trained": stream.epochs_used(read).get(name, 0.0),
                    "epochs": stream.epochs_used(course.total_samples).get(name, 0.0),
                }
                for name, tokens in self.sources.items()
            },
        }


def source_facts(tokens: SourceTokens) -> dict[str, Any]:
    """Where a source's tokens lie and how many there are, by split."""
    return {
        "path": str(tokens.path),
        "documents": {name: split.num_documents for name, split in tokens.splits.items()},
        "tokens": {name: split.num_tokens for name, split in tokens.splits.items()},
    }


def origins_in(tokens: SourceTokens, split: str, numbers: Collection[int]) -> dict[int, Origin]:
    """Where documents came from. ConfigError for a prefix, which does not record its inputs."""
    if tokens.folder is None or tokens.folder.splits.get(split) is not tokens.splits.get(split):
        raise ConfigError(
            f"--origin: {tokens.path} is a prefix of Megatron-LM's, which does not record the files it was made from."
        )
    return origins(tokens.folder, split, numbers)


def check_document(split: Split, number: int, whose: str) -> None:
    """ConfigError for a number that no document of a split has."""
    if number >= split.num_documents:
        raise ConfigError(f"--document {number}: {whose} has documents 0 to {split.num_documents - 1:,}.")


def marked_text(tokenizer: Tokenizer, tokens: Any, hidden: Any = None) -> str:
    """The text of tokens, special ones included; hidden ones, where there are any, stand between ⟦ and ⟧."""
    ids = np.asarray(tokens).tolist()
    if hidden is None or not np.any(hidden):
        return tokenizer.decode(ids, skip_special_tokens=False)
    edges = [0, *(np.flatnonzero(np.diff(hidden)) + 1).tolist(), len(ids)]
    texts = []
    for start, end in pairwise(edges):
        text = tokenizer.decode(ids[start:end], skip_special_tokens=False)
        texts.append(f"{OPENING}{text}{CLOSING}" if hidden[start] else text)
    return "".join(texts)


def is_run(target: str | Path) -> bool:
    """Whether `target` is a run folder."""
    return (Path(target) / "config.yaml").is_file()


def run_of(target: str | Path) -> InspectedRun:
    """A run to ask. CheckpointError where `target` is none."""
    if not is_run(target):
        raise CheckpointError(f"{target}: not a run folder; --step, --rank and --sample are for runs.")
    return InspectedRun(target)
