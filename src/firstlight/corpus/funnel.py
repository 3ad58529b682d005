"""What each step did, in counts that add up: documents in = documents out + dropped by reason.

A step's counts are made where its documents are and added up over units; so are the samples of what it dropped: those
with the lowest hash of their text, a choice that does not depend on who worked when.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.corpus.step import Block, Result
from firstlight.documents import encode_json

EXCERPT_CHARACTERS = 2000
METADATA_CHARACTERS = 500


@dataclass
class StepCounts:
    """Counts of one step over documents of one source; bytes are of text in UTF-8."""

    documents_in: int = 0
    bytes_in: int = 0
    looked_at: int = 0
    """Documents of the sources and languages that the step is for."""
    changed: int = 0
    """Documents that stayed with another text."""
    documents_out: int = 0
    bytes_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents by reason."""
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    """What else the step counted."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Dropped documents to look at, those with the lowest hashes."""

    def add(self, other: Mapping[str, Any], samples: int) -> None:
        """Add what another unit's `as_dict` says; keep at most `samples` samples."""
        for name in ("documents_in", "bytes_in", "looked_at", "changed", "documents_out", "bytes_out"):
            setattr(self, name, getattr(self, name) + other[name])
        self.dropped.update(other["dropped"])
        self.dropped_bytes.update(other["dropped_bytes"])
        self.counts.update(other["counts"])
        self.samples = nsmallest(samples, [*self.samples, *other["samples"]], key=_by_hash)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "documents_in": self.documents_in,
            "bytes_in": self.bytes_in,
            "looked_at": self.looked_at,
            "changed": self.changed,
            "documents_out": self.documents_out,
            "bytes_out": self.bytes_out,
            "dropped": dict(sorted(self.dropped.items())),
            "dropped_bytes": dict(sorted(self.dropped_bytes.items())),
            "counts": dict(sorted(self.counts.items())),
            "samples": self.samples,
        }

    def passed(self, block: Block) -> None:
        """Count a block that the step is not for."""
        size = int(sizes(block).sum())
        self.documents_in += len(block)
        self.documents_out += len(block)
        self.bytes_in += size
        self.bytes_out += size

    def judged(self, block: Block, places: NDArray[np.int64], result: Result, left: Block, samples: int) -> None:
        """Count a block of which the documents at `places` were judged with `result`, and `left` stayed."""
        size = sizes(block)
        self.documents_in += len(block)
        self.bytes_in += int(size.sum())
        self.looked_at += len(places)
        self.documents_out += len(left)
        self.bytes_out += int(sizes(left).sum())
        self.counts.update(result.counts)
        found = []
        for number, (place, reason) in enumerate(zip(places, result.reasons, strict=True)):
            if reason is not None:
                self.dropped[reason] += 1
                self.dropped_bytes[reason] += int(size[place])
                if samples:
                    about = block.metadata[place] if result.metadata is None else result.metadata[number]
                    digest = _digest(block, int(place))
                    if len(self.samples) < samples or digest <= self.samples[-1]["hash"]:
                        found.append(_sample(block, int(place), digest, reason, about))
            elif result.texts is not None and result.texts[number] != block.texts[place]:
                self.changed += 1
        if found:
            self.samples = nsmallest(samples, [*self.samples, *found], key=_by_hash)


def sizes(block: Block) -> NDArray[np.int64]:
    """[len(block)]: bytes of each text in UTF-8."""
    return np.diff(block.utf8().offsets)


def _by_hash(sample: Mapping[str, Any]) -> tuple[str, str]:
    return sample["hash"], sample["reason"]


def _digest(block: Block, place: int) -> str:
    """Hash of a text, by which samples are chosen."""
    data, offsets = block.utf8()
    return hashlib.blake2b(data[offsets[place] : offsets[place + 1]].tobytes(), digest_size=8).hexdigest()


def _sample(block: Block, place: int, digest: str, reason: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The text as it came to the step, the metadata as the step left them: with the score that decided."""
    text = block.texts[place]
    return {
        "hash": digest,
        "reason": reason,
        "source": block.source,
        "text": text[:EXCERPT_CHARACTERS],
        "characters": len(text),
        "metadata": {name: _shown(value) for name, value in metadata.items()},
    }


def _shown(value: Any) -> Any:
    """A value of the metadata to look at: of a long one the beginning, as JSON."""
    if not isinstance(value, str | list | dict):
        return value
    written = encode_json(value)
    return value if len(written) <= METADATA_CHARACTERS else written[:METADATA_CHARACTERS] + "…"
