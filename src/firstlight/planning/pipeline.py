"""What the parts of a model cost, and which blocks therefore go to which pipeline stage.

A pipeline is as fast as its slowest rank, and the vocabulary head of a small model can cost as much as several blocks;
so blocks are dealt out by cost, with the embedding counted in the first stage and the head in the last.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from firstlight.config import ModelConfig
from firstlight.config.parallel import Schedule
from firstlight.planning.flops import block_flops, head_matrices
from firstlight.planning.schedules import stage_ranks
from firstlight.support.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """What each part of a model costs, in any one unit: FLOPs by `stage_costs`, or seconds that were measured."""

    embedding: float
    block: float
    """One Transformer block; where some attend locally, the mean of all."""
    num_blocks: int
    head: float
    """Last norm, output matrix and loss."""

    def of_stages(self, split: Sequence[range]) -> list[float]:
        """Cost of every stage of a `split`: its blocks, the embedding in the first, the head in the last."""
        costs = [len(blocks) * self.block for blocks in split]
        costs[0] += self.embedding
        costs[-1] += self.head
        return costs


def stage_costs(
    model: ModelConfig,
    sequence_length: int,
    recompute: Literal["none", "selective", "full"] = "none",
    predicted: float = 1.0,
) -> LayerCosts:
    """FLOPs of forward and backward for one token, in the convention of `firstlight.planning.flops`.

    Without recomputation the parts add up to `training_flops_per_token`. Full recomputation runs a block's forward
    pass twice, four thirds of the work; selective keeps every matrix product, so it adds none. The embedding is a
    look-up, 0 FLOPs: it weighs on the first stage in memory (`firstlight.planning.memory`), not in time. The head is
    a matrix product like any other, 6 · vocabulary · hidden, at the share of positions that a masked model predicts.
    """
    layers = model.num_hidden_layers
    block = sum(block_flops(model, sequence_length, layer) for layer in range(layers)) / layers
    head = 6.0 * predicted * head_matrices(model)
    return LayerCosts(0.0, block * (4 / 3 if recompute == "full" else 1), layers, head)


def divide_layers(
    model: ModelConfig,
    sequence_length: int,
    *,
    schedule: Schedule,
    ranks: int,
    stages_per_rank: int,
    recompute: Literal["none", "selective", "full"],
    predicted: float = 1.0,
) -> tuple[list[int], list[range]]:
    """(pipeline rank, blocks) of every stage of a resolved `model` over `ranks` pipeline ranks; one stage for one."""
    owners = stage_ranks(schedule, ranks, stages_per_rank) if ranks > 1 else [0]
    return owners, split_layers(stage_costs(model, sequence_length, recompute, predicted), owners)


def split_layers(costs: LayerCosts, ranks: Sequence[int]) -> list[range]:
    """The blocks of every stage, contiguous and in order; `ranks[stage]` is the rank that holds it (`stage_ranks`).

    Minimises first the costliest rank, which sets the pace, then the costliest stage, which sets how long the pipeline
    takes to fill; exactly, since all blocks cost the same. What that leaves open is dealt out evenly, and an odd block
    goes to a later stage, because earlier ones hold the activations of more micro-batches. Every stage has a block,
    except that the last may hold the head alone where that makes the costliest rank or stage cheaper. Raises
    ConfigError when there are fewer blocks than stages.
    """
    if costs.num_blocks < len(ranks):
        raise ConfigError(
            f"parallel.pipeline: {costs.num_blocks} blocks (model.num_hidden_layers) do not fill {len(ranks)} pipeline "
            f"stages; use at most {costs.num_blocks} stages (ranks × stages per rank), or a deeper model."
        )
    every, alone = _Split(costs, ranks, last_minimum=1), _Split(costs, ranks, last_minimum=0)
    counts = (alone if alone.limits < every.limits else every).counts()
    ends = [sum(counts[: stage + 1]) for stage in range(len(ranks))]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


class _Split:
    """The least limits on the cost of a rank and of a stage that the blocks fit into, and a way to fill them."""

    def __init__(self, costs: LayerCosts, ranks: Sequence[int], last_minimum: int) -> None:
        self.costs, self.ranks = costs, ranks
        self.minimum = [1] * (len(ranks) - 1) + [last_minimum]
        self.extra = costs.of_stages([range(0)] * len(ranks))
        unlimited = costs.num_blocks * costs.block + sum(self.extra)
        rank_limit = self._least(self._per_rank(self.extra), lambda limit: self._fits(limit, unlimited))
        self.limits = rank_limit, self._least(self.extra, lambda limit: self._fits(rank_limit, limit))

    def counts(self) -> list[int]:
        """Blocks of every stage: each next block to the cheapest rank with room, and there to the cheapest stage."""
        rank_room, stage_room = self._room(*self.limits)
        counts = list(self.minimum)
        for _ in range(self.costs.num_blocks - sum(counts)):
            cost = self.costs.of_stages([range(count) for count in counts])
            of_rank, full = self._per_rank(cost), self._per_rank(counts)
            open_stages = [
                stage
                for stage, rank in enumerate(self.ranks)
                if counts[stage] < stage_room[stage] and full[rank] < rank_room[rank]
            ]
            counts[min(open_stages, key=lambda s: (of_rank[self.ranks[s]], cost[s], -s))] += 1
        return counts

    def _least(self, extras: Sequence[float], fits: Callable[[float], bool]) -> float:
        """The smallest sum of whole blocks and one of `extras` that `fits`."""
        blocks = range(self.costs.num_blocks + 1)
        sums = sorted({extra + count * self.costs.block for extra in extras for count in blocks})
        return sums[bisect.bisect_left(sums, True, key=fits)]

    def _fits(self, rank_limit: float, stage_limit: float) -> bool:
        rank_room, stage_room = self._room(rank_limit, stage_limit)
        least = [
            *zip(self.minimum, stage_room, strict=True),
            *zip(self._per_rank(self.minimum), rank_room, strict=True),
        ]
        if any(minimum > room for minimum, room in least):
            return False
        room = [
            min(of_rank, of_stages) for of_rank, of_stages in zip(rank_room, self._per_rank(stage_room), strict=True)
        ]
        return sum(room) >= self.costs.num_blocks

    def _room(self, rank_limit: float, stage_limit: float) -> tuple[list[int], list[int]]:
        """Blocks that fit in every rank and in every stage; -1 where the embedding or head alone is too much."""
        rank_room = [self._blocks(rank_limit - extra) for extra in self._per_rank(self.extra)]
        return rank_room, [self._blocks(stage_limit - extra) for extra in self.extra]

    def _blocks(self, cost: float) -> int:
        return max(-1, math.floor(cost / self.costs.block + 1e-9))

    def _per_rank(self, values: Sequence[float]) -> list[float]:
        """Sums over the stages of every rank."""
        sums = [0.0] * (max(self.ranks) + 1)
        for rank, value in zip(self.ranks, values, strict=True):
            sums[rank] += value
        return sums
