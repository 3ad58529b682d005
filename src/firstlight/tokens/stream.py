"""What every order of training samples has in common: sources, sizes, and how often each source is gone over.

Loader, trainer and reports know a `Stream` and nothing else: any part of it can be read, in any order, on any rank, and
the position in it is one integer. `SampleStream` computes its order as it goes; `MegatronStream` has it in files.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from firstlight.config import DataConfig
from firstlight.support.errors import ConfigError, DataError
from firstlight.tokens.mixture import Stage
from firstlight.tokens.split import Split


class Shares(Protocol):
    """Which source each sample comes from, as far as reports ask."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Shares, each from a sample on."""
        ...

    def counts(self, position: int) -> dict[str, int]:
        """How many of the first `position` samples come from each source."""
        ...


@dataclass(frozen=True)
class SampleIds:
    """Which sequences a run of samples is: three arrays of [count]."""

    source: NDArray[np.int32]
    """Number of the source in `Stream.sources`."""
    epoch: NDArray[np.int64]
    """Passes over the source that were complete before this one."""
    sequence: NDArray[np.int64]
    """Number of the sequence in the stream's cut of the source."""


class Stream(ABC):
    """Training samples in an order.

    `sources`: names of the sources that are drawn. `num_sequences`: samples that one pass over each gives,
    floor((tokens − 1) / sequence_length).
    """

    def __init__(
        self, splits: Mapping[str, Split], sources: Sequence[str], data: DataConfig, vocab_size: int | None
    ) -> None:
        """`splits`: the training split of each source. Raises DataError for a source without one whole sequence."""
        self.data, self.vocab_size = data, vocab_size
        self.sequence_length = data.sequence_length
        self.sources = tuple(sources)
        self._splits = [splits[source] for source in self.sources]
        self._num_tokens = {source: split.num_tokens for source, split in splits.items()}
        self.num_sequences = {name: (self._num_tokens[name] - 1) // data.sequence_length for name in self.sources}
        for source, sequences in self.num_sequences.items():
            if sequences == 0:
                tokens = self._num_tokens[source]
                raise DataError(
                    f"source '{source}' has {tokens:,} training tokens, fewer than one sequence of "
                    f"{data.sequence_length:,} and its last target; give it more text, leave it out"
                    + (f", or set data.sequence_length to at most {tokens - 1}." if tokens > 1 else ".")
                )

    @property
    @abstractmethod
    def mixture(self) -> Shares:
        """Which source each sample comes from."""

    @abstractmethod
    def samples(self, first: int, count: int) -> SampleIds:
        """Which sequences samples `first` … `first + count − 1` are."""

    @abstractmethod
    def read(self, first: int, count: int) -> NDArray[np.int64]:
        """Tokens of samples `first` … `first + count − 1`: [count, sequence_length + 1].

        Row n holds the inputs in [:-1] and their targets in [1:]. Raises DataError for an id outside the vocabulary.
        """

    @abstractmethod
    def pieces(self, sample: int) -> list[tuple[int, int]]:
        """(first token in the training split of its source, tokens) of all that a sample is made of, in order."""

    @abstractmethod
    def samples_with(self, source: str, first: int, end: int, total: int) -> list[int]:
        """Which of the first `total` samples have any of tokens [first, end) of a source's training split, rising."""

    def first_token(self, sample: int) -> int:
        """Where a sample begins in the training split of its source."""
        return self.pieces(sample)[0][0]

    @abstractmethod
    def notes(self) -> list[str]:
        """What was derived, normalised or left unread, one sentence each, for the caller to print."""

    def prepare(self) -> None:  # noqa: B027 - most orders need nothing
        """Do what has to be done once, by one process, before any reads."""

    def record(self, source: str) -> dict[str, Any] | None:
        """What of the order of a source a resumed run has to find again, beside its data and the configuration."""
        return None

    def split(self, source: str) -> Split:
        """The training split of a source."""
        return self._splits[self.sources.index(source)]

    def counts(self, total_samples: int) -> dict[str, int]:
        """Samples that the first `total_samples` draw from each source."""
        return self.mixture.counts(total_samples)

    def epochs_used(self, total_samples: int) -> dict[str, float]:
        """Passes over each source in the first `total_samples`."""
        return {name: count / self.num_sequences[name] for name, count in self.counts(total_samples).items()}

    def check_supply(self, total_samples: int, global_batch_size: int = 1) -> None:
        """Raise ConfigError when the run would go over a source more than `data.max_epochs` times.

        `total_samples` is the length of the run; `global_batch_size` (samples per step) is for the advice only.
        """
        supply, needed = self._supply(), self.counts(total_samples)
        over = [name for name in self.sources if needed[name] > supply[name]]
        if not over:
            return
        worst = max(over, key=lambda name: needed[name] / self.num_sequences[name])
        size, need = self.num_sequences[worst], needed[worst]
        others = f" (so does {', '.join(repr(name) for name in over if name != worst)})" if len(over) > 1 else ""
        choices = [
            f"data.max_epochs of {_ceil_hundredths(max(Fraction(needed[n], self.num_sequences[n]) for n in over))}"
        ]
        if supply[worst]:
            share = math.floor(10_000 * supply[worst] / total_samples) / 10_000
            choices.append(f"a share of about {share:g} or less for '{worst}' (now {need / total_samples:.4g})")
        steps = self.longest_run(total_samples // global_batch_size, global_batch_size)
        if steps:
            choices.append(f"at most {steps:,} training steps of {global_batch_size} samples")
        raise ConfigError(
            f"data.mixture draws {need:,} sequences from source '{worst}', which has {size:,} (of "
            f"{self.sequence_length} tokens; {self._num_tokens[worst]:,} tokens): {need / size:.4g} epochs, above "
            f"data.max_epochs {self.data.max_epochs:g}{others}; possible: {', or '.join(choices)}, or more text."
        )

    def longest_run(self, steps: int, global_batch_size: int) -> int:
        """Most steps, up to `steps`, for which no source is gone over more than `data.max_epochs` times."""
        supply = self._supply()
        enough, too_many = 0, steps + 1
        while too_many - enough > 1:
            middle = (enough + too_many) // 2
            counts = self.counts(middle * global_batch_size)
            if all(counts[name] <= supply[name] for name in self.sources):
                enough = middle
            else:
                too_many = middle
        return enough

    def _supply(self) -> dict[str, int]:
        """Samples that each source may give within `data.max_epochs`."""
        limit = Fraction(repr(self.data.max_epochs))
        return {name: math.floor(size * limit) for name, size in self.num_sequences.items()}


def _ceil_hundredths(number: Fraction) -> str:
    return f"{math.ceil(number * 100) / 100:g}"
