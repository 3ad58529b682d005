"""Steps applied to a block one after another, each counted.

A step limited to some sources or languages gets only their documents; the others pass it by, in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from firstlight.config.step import StepConfig
from firstlight.corpus.funnel import StepCounts
from firstlight.corpus.step import Block, Result

Ids = NDArray[np.int64]


@dataclass
class Link:
    """One step of a chain: its place in the recipe, its settings, what it does, and what it counted so far."""

    number: int
    config: StepConfig
    apply: Callable[[Block, Ids], Result]
    counts: StepCounts = field(default_factory=StepCounts)


def run_chain(chain: Sequence[Link], block: Block, ids: Ids, samples: int) -> tuple[Block, Ids]:
    """The documents of `block` that no step dropped, as the steps left them; ids: [len(block)]."""
    for link in chain:
        if not len(block):
            break
        places = in_scope(link.config, block)
        if not len(places):
            link.counts.passed(block)
            continue
        whole = len(places) == len(block)
        result = link.apply(block if whole else block.select(places), ids[places])
        left, kept = _left(block, places, result)
        link.counts.judged(block, places, result, left, samples)
        block, ids = left, ids[kept]
    return block, ids


def in_scope(config: StepConfig, block: Block) -> NDArray[np.int64]:
    """Places of the documents that a step is for, rising."""
    if (config.sources and block.source not in config.sources) or block.source in config.except_sources:
        return np.empty(0, dtype=np.int64)
    if not config.languages:
        return np.arange(len(block))
    wanted = set(config.languages)
    return np.array([n for n, about in enumerate(block.metadata) if about.get("language") in wanted], dtype=np.int64)


def _left(block: Block, places: NDArray[np.int64], result: Result) -> tuple[Block, NDArray[np.int64]]:
    """What a result leaves of a block, and where it stood."""
    alive = np.ones(len(block), dtype=bool)
    alive[places] = [reason is None for reason in result.reasons]
    kept = np.flatnonzero(alive)
    changed = result.texts is not None and any(
        new is not block.texts[place] for new, place in zip(result.texts, places, strict=True)
    )
    texts, metadata = block.texts, block.metadata
    if changed:
        assert result.texts is not None
        texts = list(texts)
        for place, text in zip(places, result.texts, strict=True):
            texts[place] = text
    if result.metadata is not None:
        metadata = list(metadata)
        for place, about in zip(places, result.metadata, strict=True):
            metadata[place] = about
    if not changed and len(kept) == len(block):
        return block.with_metadata(metadata), kept
    if changed:
        return Block([texts[n] for n in kept], [metadata[n] for n in kept], block.source), kept
    return block.with_metadata(metadata).select(kept), kept
