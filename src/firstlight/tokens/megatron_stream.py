"""Training samples in Megatron-LM's order: sample for sample those that its `GPTDataset` and `BlendedDataset` give.

The order is that of a whole run: its length decides how many passes over a source are shuffled together. It is built
once, by one process, into files that all others map; they are named by all that decides them, so that the next run on
the same data finds them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.config import DataConfig
from firstlight.support.console import human_count, note
from firstlight.support.errors import ConfigError, DataError
from firstlight.support.files import atomic_folder, fingerprint, folder_lock
from firstlight.tokens.batches import drawn_sizes
from firstlight.tokens.megatron_blend import Blend, blend_of, rhythm
from firstlight.tokens.megatron_order import Order, build_order, passes_of
from firstlight.tokens.mixture import weight_notes
from firstlight.tokens.split import Split, check_ids
from firstlight.tokens.stream import SampleIds, Stream

ORDER_VERSION = 1
"""Raised when the same inputs give other files."""
BLEND_FILES = ("dataset_index", "dataset_sample_index")
BUILDING_SHOWN_FROM = 10_000_000
"""Sequences and samples from which on a line says that the order is built."""


class MegatronStream(Stream):
    """The samples of one run. After its last sample the first ones come again (Megatron-LM would stop there): a run
    that went back and passed over samples reads a few of them."""

    def __init__(
        self,
        splits: Mapping[str, Split],
        data: DataConfig,
        seed: int,
        samples: int,
        vocab_size: int | None = None,
        *,
        directory: Path | None = None,
        identities: Mapping[str, str] | None = None,
    ) -> None:
        """`splits`: the training split of each source, in the recipe's order. `samples`: steps × global batch.

        `directory`: where the files of the order are kept, which `prepare` makes; unset: the order is built in memory.
        `identities`: a fingerprint of each source's data, by which files are found again; needed with `directory`.
        Raises ConfigError for a mixture that cannot be drawn, DataError for a source without one whole sequence.
        """
        self._blend = blend_of(data, drawn_sizes(splits, data), samples)
        super().__init__(splits, self._blend.sources, data, vocab_size)
        self._seed, self._directory, self._identities = seed, directory, identities or {}
        self._passes = [
            passes_of(split.num_tokens, data.sequence_length, requested)
            for split, requested in zip(self._splits, self._blend.requested, strict=True)
        ]

    @property
    def mixture(self) -> Blend:
        """What is asked of each source; its counts are near, not exact."""
        return self._blend

    @property
    def num_samples(self) -> int:
        """Samples of the order, at least those of the run."""
        return self._passes[0].samples if self._blend.weights is None else self._blend.size

    def prepare(self) -> None:
        """Build the files that are not there yet. Everybody who reads the order without them gets a DataError."""
        if self._directory is None:
            return
        for number in range(len(self.sources)):
            self._build(self._order_folder(number), Order._fields, partial(self._built_order, number))
        if self._blend.weights is not None:
            self._build(self._blend_folder, BLEND_FILES, self._built_blend)

    def samples(self, first: int, count: int) -> SampleIds:
        """Which samples of its source each of samples `first` … `first + count − 1` is.

        `sequence` is its number in the source's `sample_index`, `epoch` the pass that it begins in.
        """
        source, ordinal = self._drawn(first, count)
        sequence = np.empty(count, np.int64)
        for number, order in enumerate(self._orders):
            mine = source == number
            sequence[mine] = order.shuffle_index[ordinal[mine]]
        tokens = np.array([plan.tokens for plan in self._passes], np.int64)
        return SampleIds(source, sequence * self.sequence_length // tokens[source], sequence)

    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Tokens of samples `first` … `first + count − 1`: [count, sequence_length + 1].

        Row n holds the inputs in [:-1] and their targets in [1:]. Raises DataError for an id outside the vocabulary.
        """
        ids = self.samples(first, count)
        rows = np.empty((count, self.sequence_length + 1), np.int64)
        for row, source, sequence in zip(rows, ids.source.tolist(), ids.sequence.tolist(), strict=True):
            split, filled = self._splits[source], 0
            for start, length in self._pieces(source, sequence):
                row[filled : filled + length] = split.read(start, length)
                filled += length
            assert filled == len(row)
            if self.vocab_size is not None and (row.max() >= self.vocab_size or row.min() < 0):
                for start, length in self._pieces(source, sequence):
                    whose = f"source '{self.sources[source]}': "
                    check_ids(split.read(start, length), self.vocab_size, split, start, whose)
        return rows

    def pieces(self, sample: int) -> list[tuple[int, int]]:
        """(first token in the training split of its source, tokens) of all that a sample is made of, in order."""
        ids = self.samples(sample, 1)
        return [piece for piece in self._pieces(int(ids.source[0]), int(ids.sequence[0])) if piece[1]]

    def samples_with(self, source: str, first: int, end: int, total: int) -> list[int]:
        """Which of the first `total` samples have any of tokens [first, end) of a source's training split, rising.

        The indices of the order are searched, so that this takes seconds for billions of samples.
        """
        number = self.sources.index(source)
        order, lengths = self._orders[number], self._lengths[number]
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        wanted = np.flatnonzero((starts < end) & (starts + lengths > first))
        if not len(wanted):
            return []
        index = np.asarray(order.document_index)
        places = np.flatnonzero((index >= wanted[0]) & (index <= wanted[-1]))
        begins = order.sample_index[:, 0]
        sequences = set[int]()
        for place in places.tolist():
            near = range(
                max(0, int(np.searchsorted(begins, place)) - 1), int(np.searchsorted(begins, place, side="right"))
            )
            sequences |= {
                sequence
                for sequence in near
                if sequence < len(order.shuffle_index)
                and any(start < end and start + size > first for start, size in self._pieces(number, sequence))
            }
        ordinals = np.flatnonzero(np.isin(order.shuffle_index, list(sequences)))
        if self._blend.weights is None:
            samples = ordinals
        else:
            drawn, before = self._rhythm
            samples = np.flatnonzero((np.asarray(drawn) == number) & np.isin(before, ordinals))
        turns = range(0, total, self.num_samples)
        return [turn + sample for turn in turns for sample in samples.tolist() if turn + sample < total]

    def record(self, source: str) -> dict[str, Any]:
        """What makes the order of a source's samples, beside its data and the configuration."""
        number = self.sources.index(source)
        plan = self._passes[number]
        weight = self._blend.weights[number] if self._blend.weights else None
        return {"number": number, "weight": weight, "passes": plan.passes, "last_pass_apart": plan.last_apart}

    def notes(self) -> list[str]:
        """What was derived, normalised or left unread, one sentence each, for the caller to print."""
        notes = weight_notes(self.data, self._blend.stages, self._num_tokens)
        for name, plan in zip(self.sources, self._passes, strict=True):
            together = plan.passes - plan.last_apart
            apart = ", then the last one, shuffled apart" if plan.last_apart else ""
            passes = "1 pass" if together == 1 else f"{together} passes, shuffled together"
            notes.append(
                f"Order of Megatron-LM: '{name}' gives {human_count(plan.samples)} samples of {passes}{apart}."
            )
        return notes

    def _drawn(self, first: int, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Source number, and samples of that source before, of `count` samples."""
        numbers = (first + np.arange(count, dtype=np.int64)) % self.num_samples
        if self._blend.weights is None:
            return np.zeros(count, np.int32), numbers
        source, before = self._rhythm
        return source[numbers].astype(np.int32), before[numbers]

    def _pieces(self, source: int, sequence: int) -> Iterator[tuple[int, int]]:
        """(first token in the split, tokens) of each document, or part of one, that a sample is made of."""
        split, order, lengths = self._splits[source], self._orders[source], self._lengths[source]
        (first, offset), (last, end) = order.sample_index[sequence : sequence + 2].tolist()
        for place, document in enumerate(order.document_index[first : last + 1].tolist(), first):
            beyond = end + 1 if place == last else int(lengths[document])
            yield split.sequence_start(document) + offset, beyond - offset
            offset = 0

    @cached_property
    def _lengths(self) -> list[NDArray[np.int32]]:
        return [split.sequence_lengths() for split in self._splits]

    @cached_property
    def _orders(self) -> list[Order]:
        if self._directory is None:
            return [Order(*self._built_order(number)) for number in range(len(self.sources))]
        return [Order(*_mapped(self._order_folder(number), Order._fields)) for number in range(len(self.sources))]

    @cached_property
    def _rhythm(self) -> Sequence[NDArray[Any]]:
        return self._built_blend() if self._directory is None else _mapped(self._blend_folder, BLEND_FILES)

    def _built_order(self, number: int) -> Order:
        source, plan = self.sources[number], self._passes[number]
        if plan.samples + plan.passes * self._splits[number].num_sequences >= BUILDING_SHOWN_FROM:
            note(f"building Megatron-LM's order of '{source}': {human_count(plan.samples)} samples …")
        try:
            return build_order(self._lengths[number], plan, self._seed)
        except DataError as problem:
            raise DataError(f"source '{source}': {problem}") from None

    def _built_blend(self) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        source, before = rhythm(self._blend)
        for number, (name, plan) in enumerate(zip(self.sources, self._passes, strict=True)):
            drawn = int(np.count_nonzero(source == number))
            if drawn > plan.samples:
                raise ConfigError(
                    f"the blend draws {drawn:,} samples of '{name}', which was asked for {plan.samples:,}: the run is "
                    "too short for its share, and Megatron-LM stops here too; train longer, or raise its weight."
                )
        return source, before

    def _build(self, folder: Path, names: Sequence[str], build: Callable[[], Sequence[NDArray[Any]]]) -> None:
        if folder.is_dir():
            return
        with folder_lock(folder.with_name(f".{folder.name}.building"), "this order of samples"):
            if not folder.is_dir():
                arrays = build()
                with atomic_folder(folder) as temporary:
                    for name, array in zip(names, arrays, strict=True):
                        np.save(temporary / f"{name}.npy", array)

    def _order_folder(self, number: int) -> Path:
        assert self._directory is not None
        source, split, plan = self.sources[number], self._splits[number], self._passes[number]
        cut = [split.num_sequences, plan.tokens, plan.length, plan.passes, plan.last_apart]
        inputs = [ORDER_VERSION, self._identities[source], cut, self._seed]
        return self._directory / f"megatron-order-{source}-{fingerprint(inputs)[:16]}"

    @property
    def _blend_folder(self) -> Path:
        assert self._directory is not None
        inputs = [ORDER_VERSION, [weight.hex() for weight in self._blend.weights or ()], self._blend.size]
        return self._directory / f"megatron-blend-{fingerprint(inputs)[:16]}"


def _mapped(folder: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """The arrays of a folder, mapped. DataError when one is missing or damaged."""
    try:
        return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    except (OSError, ValueError) as problem:
        raise DataError(
            f"{folder}: the order of samples is not there as it was built ({problem}); data.directory has to be on a "
            "disk that all machines of the run share. Remove the folder to have it built again."
        ) from None
