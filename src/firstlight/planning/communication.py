"""Bytes that a rank sends in a training step, by what they are for, from the shape of the model and its layout.

Counted is what a rank must put on the wire with ring algorithms, which no other sends less than (Rajbhandari et al.
2020, arXiv:1910.02054, §7.1). Of n ranks that hold S bytes together each sends (n-1)/n · S in an all-gather or a
reduce-scatter and 2 (n-1)/n · S in an all-reduce; a message between two ranks is its size. A library may send more in a
small group, and inside a machine nothing goes over the network.

FSDP sends a unit's weights once for each gathering and its fp32 gradients once a step. A tensor-parallel block has four
collectives over its activations in each direction (Korthikanti et al. 2022, arXiv:2205.05198, §4.2.2), a pipeline one
activation in each direction for each boundary and micro-batch (Narayanan et al. 2021, arXiv:2104.04473, §3.2), context
parallelism the keys and values of each block and, on the way back, their gradients. Sizes are taken as evenly divided;
where they are, the figures are exact: the tests and `benchmarks/communication.py` compare them with what ranks send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout, Schedule
from firstlight.planning.flops import block_norms
from firstlight.planning.pipeline import divide_layers
from firstlight.planning.schedules import Action, schedule_order
from firstlight.planning.sizes import FP32, RankSizes

FP64 = 8
"""Bytes of a number."""


@dataclass(frozen=True, slots=True)
class StepTraffic:
    """Bytes that one rank sends in a step."""

    gather: int
    """FSDP: weights, in the type of matrix products."""
    reduce: int
    """FSDP: fp32 gradients, once a step."""
    replicate: int
    """HSDP: sums of the sharded gradients over copies."""
    tensor: int
    """Activations and their gradients within tensor-parallel groups, three numbers a token for the loss, and the
    gradients of norms."""
    context: int
    """Keys and values, and their gradients."""
    pipeline: int
    """Activations and their gradients from stage to stage, and the gradient of a tied matrix."""
    scalars: int
    """Number of targets, loss, gradient norm and stop flag over all ranks."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, field.name) for field in fields(self))


def traffic_per_rank(
    model: ModelConfig,
    layout: Layout,
    *,
    micro_batch_size: int,
    sequence_length: int,
    accumulation: int = 1,
    precision: Literal["fp32", "bf16", "fp16", "fp8"] = "bf16",
    recompute: Literal["none", "selective", "full"] = "none",
    schedule: Schedule = "1f1b",
    stages_per_rank: int = 1,
    reshard_after_forward: bool | None = None,
    device_type: str = "cuda",
    predicted: float = 1.0,
) -> list[StepTraffic]:
    """One figure for each pipeline rank of a resolved `model`; ranks that differ in other dimensions send the same.

    Arguments as for `firstlight.planning.memory.memory_per_rank`.
    """
    owners, split = divide_layers(
        model,
        sequence_length,
        schedule=schedule,
        ranks=layout.pipeline,
        stages_per_rank=stages_per_rank,
        recompute=recompute,
        predicted=predicted,
    )
    sizes = _Sizes(model, layout, micro_batch_size, sequence_length // layout.context, precision)
    reshard = layout.pipeline == 1 if reshard_after_forward is None else reshard_after_forward
    orders = None
    if layout.pipeline > 1:
        orders = schedule_order(schedule, layout.pipeline, stages_per_rank, accumulation)
    shards = layout.shard * layout.context
    share, last = (shards - 1) / shards, len(owners) - 1
    traffic = []
    for rank in range(layout.pipeline):
        stages = [stage for stage, owner in enumerate(owners) if owner == rank]
        num_blocks, first, ends = sum(len(split[stage]) for stage in stages), 0 in stages, last in stages
        weights = held = 0.0
        for stage in stages:
            stays, freed = map(sum, sizes.units(stage == 0, stage == last, pipeline=last > 0))
            freed += len(split[stage]) * sizes.block
            times = accumulation * (1 + reshard)
            if orders:
                times = _gatherings([action for action in orders[rank] if action.stage == stage]) if reshard else 1
            weights += stays * (1 if orders else accumulation) + freed * times
            held += FP32 * (stays + freed)
        once, always = sizes.tensor(num_blocks, first, ends, recompute, accumulation, predicted)
        neighbours = [(stage, other) for stage in stages for other in (stage - 1, stage + 1) if 0 <= other <= last]
        messages = sum(owners[stage] != owners[other] for stage, other in neighbours)
        tied = model.tie_word_embeddings and first != ends
        traffic.append(
            StepTraffic(
                gather=round(share * sizes.width * weights),
                reduce=round(share * held),
                replicate=round(2 * (layout.replicate - 1) / layout.replicate * held / shards),
                tensor=round(once + accumulation * always),
                context=round(accumulation * num_blocks * sizes.context(recompute)),
                pipeline=round(
                    accumulation * messages * FP32 * sizes.stream + (FP32 * sizes.vocabulary / shards if tied else 0)
                ),
                scalars=round(_all_reduce(layout.world_size, FP32 + 3 * (FP64 if device_type == "cpu" else FP32))),
            )
        )
    return traffic


class _Sizes(RankSizes):
    """And bytes that a block, embedding or head sends."""

    def __init__(self, model: ModelConfig, layout: Layout, rows: int, columns: int, precision: str) -> None:
        """rows, columns: of a micro-batch on this context rank."""
        super().__init__(model, layout, precision)
        self.rows, self.tokens = rows, rows * columns
        self.stream = self.tokens * model.hidden_size / layout.tensor
        """Hidden states as a rank keeps them between blocks."""

    def tensor(
        self, num_blocks: int, first: bool, last: bool, recompute: str, accumulation: int, predicted: float
    ) -> tuple[float, float]:
        """Bytes within a tensor-parallel group: (once a step, for each micro-batch)."""
        ranks, sharded = self.layout.tensor, self.sharded
        collective = (ranks - 1) * self.stream  # elements that a gather or a scatter of all hidden states sends
        # Gathered inputs are gathered again; of the two scattered results the second only where a norm reads it.
        last_is_read = self.model.family.norm_place != "pre"
        again = {"none": 0, "selective": 2, "full": 3 + last_is_read}[recompute]
        always = num_blocks * (8 + again) * self.width * collective
        if first:
            positions = collective / self.rows if self.positions else 0  # one row serves all
            # FSDP gathers the table in the type of matrix products, and a look-up keeps its type.
            always += 2 * (self.width if sharded else FP32) * (collective + positions)
        chosen = predicted * self.tokens
        if last and self.model.causal:
            always += 2 * self.width * collective
        elif last:  # hidden states are made whole before some are chosen, whose gradients every rank needs
            always += self.width * collective + _all_reduce(ranks, self.width * chosen * self.model.hidden_size)
        if last:
            always += (ranks - 1) * 3 * FP32 * chosen
        if self.model.family.qk_norm == "all":  # a mean of squares for queries and keys, and its gradient
            again = 1 if recompute == "none" else 2
            always += num_blocks * 2 * FP32 * (ranks - 1) * self.tokens * (1 + again)
        norms = num_blocks * block_norms(self.model) + (self.norm * int(self.model.family.last_norm) if last else 0)
        norms += self.embedding if first else 0
        # FSDP leaves gradients in the type of its weights unless it adds them up in fp32.
        width = self.width if sharded and accumulation == 1 else FP32
        return _all_reduce(ranks, width * norms), always

    def context(self, recompute: str) -> float:
        """Bytes of a block and micro-batch within a context-parallel group."""
        assert self.model.num_key_value_heads and self.model.head_dim
        heads = 2 * self.tokens * self.model.num_key_value_heads * self.model.head_dim / self.layout.tensor
        return (self.layout.context - 1) * self.width * heads * (2 if recompute == "none" else 3)


def _gatherings(actions: Sequence[Action]) -> int:
    """How often a stage in a pipeline gathers what it frees after each forward pass: a backward pass keeps it."""
    count, gathered = 0, False
    for action in actions:
        if action.kind != "W":
            count += not gathered
            gathered = action.kind != "F"
    return count


def _all_reduce(ranks: int, size: float) -> float:
    return 2 * (ranks - 1) / ranks * size
