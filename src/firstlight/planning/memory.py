"""Memory of a rank in a training step, from the shape of the model and its layout, before anything is built.

States are exact: fp32 weights, gradients and AdamW's two moments, 16 bytes a parameter at any precision (Rajbhandari et
al. 2020, arXiv:1910.02054, §3.1), divided as the layout divides them. Activations are those of
`firstlight.planning.activations`, for as many micro-batches as the pipeline has in flight. What tensors of a step come
to is compared with what PyTorch measures by `benchmarks/memory.py`.

Two things beside tensors are added where there is an accelerator: a margin for what the allocator cannot hand out, and
the device's own context. Not counted: token ids, masks of documents, what lives within one operation, a library's own
communication buffers beyond the context, and what evaluation, a checkpoint on its way or the user's code take.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout, Schedule
from firstlight.planning.activations import ActivationSizes, Precision, Recompute
from firstlight.planning.in_flight import SPLIT_BACKWARD, peak_held
from firstlight.planning.pipeline import divide_layers
from firstlight.planning.sizes import FP32

FRAGMENTATION = 0.05
"""Share of the tensors' memory by which the caching allocator's reserve exceeds them: what fits published runs on
GPUs best (docs/memory.md)."""
DEVICE_CONTEXT_BYTES = 1_600_000_000
"""CUDA's kernels and context, and NCCL's channels: 1,271 to 1,573 MiB before the first tensor (BigScience, chronicles
of the 176B model)."""


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Bytes of one rank when it needs the most: between the forward and the backward pass with the most in flight."""

    parameters: int
    """This rank's part of the fp32 weights, which are the master weights."""
    gradients: int
    """fp32: those of its part; of a sharded model with accumulation all, since sums wait for the last micro-batch."""
    earlier_gradients: int
    """Of `gradients`, what earlier micro-batches left: nothing when a step has only one."""
    head_gradients: int
    """Of `gradients`, those of the head, which are the first."""
    optimizer: int
    """AdamW's two fp32 moments of its part."""
    compute_weights: int
    """Weights in the type of matrix products, where that is not fp32 or they are divided: cast, or gathered by FSDP."""
    buffers: int
    """FSDP's gradients on their way between ranks."""
    activations: int
    """What blocks keep for the backward pass, of all micro-batches in flight."""
    head_activations: int
    """Of `activations`, the most that is there while the head is at work: a rank with several stages holds more while
    the last one has nothing in flight."""
    block_activations: int
    """Of `activations`, what one block keeps of one micro-batch."""
    backward: int
    """What recomputation brings back of one block at a time, and the gradients of its activations; of a backward pass
    that is taken apart also what waits for the half that is due to the weights, beyond `activations`."""
    head: int
    """Gradients that the chunked head makes ahead of the backward pass, and its chunk of logits."""
    device_context: int = 0
    """What the device's runtime takes before the first tensor."""
    margin: float = 0.0
    """Share of `tensors` that `fragmentation` is."""

    @property
    def tensors(self) -> int:
        """The most at a time: when the forward pass ends and the head is at work, when the last block goes backward,
        or when the first one does, whose pass ends with all gradients there and no other activations left."""
        head = self.head_activations + self.earlier_gradients + self.head
        passing = self.buffers + self.backward
        last_block = self.activations + max(self.earlier_gradients, self.head_gradients) + passing
        first_block = self.block_activations + self.gradients + passing
        return self.parameters + self.optimizer + self.compute_weights + max(head, last_block, first_block)

    def at_peak(self) -> dict[str, int]:
        """`tensors` by part at that moment. Apart from it, because a search asks for thousands of sums."""
        passing = {"buffers": self.buffers, "backward": self.backward}
        last_gradients = max(self.earlier_gradients, self.head_gradients)
        moments: tuple[dict[str, int], ...] = (
            {"activations": self.head_activations, "gradients": self.earlier_gradients, "head": self.head},
            {"activations": self.activations, "gradients": last_gradients, **passing},
            {"activations": self.block_activations, "gradients": self.gradients, **passing},
        )
        always = {"parameters": self.parameters, "optimizer": self.optimizer, "compute_weights": self.compute_weights}
        return always | max(moments, key=lambda moment: sum(moment.values()))

    @property
    def fragmentation(self) -> int:
        """What the allocator holds and cannot hand out."""
        return round(self.margin * self.tensors)

    @property
    def total(self) -> int:
        """What the device must have: tensors, margin and context."""
        return self.tensors + self.fragmentation + self.device_context


@dataclass(frozen=True, slots=True)
class _Stages:
    """Which blocks each pipeline rank holds."""

    blocks: NDArray[np.float64]
    """[ranks, stages of a rank]."""
    first: int
    """Rank of the first stage."""
    last: int
    """Rank of the last stage."""


def memory_per_rank(
    model: ModelConfig,
    layout: Layout,
    *,
    micro_batch_size: int,
    sequence_length: int,
    accumulation: int = 1,
    precision: Precision = "bf16",
    recompute: Recompute = "none",
    schedule: Schedule = "1f1b",
    stages_per_rank: int = 1,
    reshard_after_forward: bool | None = None,
    device_type: str = "cuda",
    predicted: float = 1.0,
) -> list[RankMemory]:
    """One estimate for each pipeline rank of a resolved `model`; ranks that differ in other dimensions are alike.

    accumulation: micro-batches a step. reshard_after_forward: FSDP frees a block's weights between its passes (unset:
    without a pipeline it does). predicted: share of positions whose token is predicted, 1 for a causal model. Sizes are
    taken as evenly divided. Recomputation saves nothing in schedules that take the backward pass apart, and is refused
    there by `train`; the estimate counts none.
    """
    sizes = ActivationSizes(model, layout, precision, device_type, sequence_length)
    pipeline = layout.pipeline > 1
    stages = _stages(model, sequence_length, schedule, layout.pipeline, stages_per_rank, recompute, predicted)
    tokens = micro_batch_size * sequence_length // layout.context
    between_stages = tokens * FP32 * model.hidden_size / layout.tensor if pipeline else 0.0
    split = pipeline and schedule in SPLIT_BACKWARD
    if split:
        recompute = "none"  # what one half of the backward pass brings back, the other still needs
    kept_by_block = tokens * sizes.kept_per_token(recompute)
    kept = stages.blocks * kept_by_block + between_stages
    held = most = with_head = kept[:, 0]
    if pipeline:
        schedule_sizes = schedule, layout.pipeline, stages_per_rank, accumulation
        held = most = peak_held(*schedule_sizes, kept, np.zeros_like(kept))
        with_head = peak_held(*schedule_sizes, kept, np.zeros_like(kept), in_last_stage=True)
        if split:
            waiting = stages.blocks * (tokens * sizes.waiting_per_token()) + between_stages
            most = peak_held(*schedule_sizes, kept, waiting)
    backward = tokens * sizes.backward_per_token(recompute)
    head = sizes.head_bytes(tokens, predicted)
    on_accelerator = device_type != "cpu"
    estimates = []
    per_rank = np.stack((stages.blocks.sum(1), held, with_head, most - held), axis=1).tolist()
    for rank, (blocks, activations, head_activations, waiting_bytes) in enumerate(per_rank):
        first, last = rank == stages.first, rank == stages.last
        always, gathering = sizes.units(first, last, pipeline)
        held_parameters = sum(always) + sum(gathering) + blocks * sizes.block
        buffers = 0.0
        if sizes.sharded:
            largest = sorted([*gathering, *always, *[sizes.block] * min(2, int(blocks))])[-2:]
            reshard = not pipeline if reshard_after_forward is None else reshard_after_forward
            gathered = sum(always) + min(2, blocks) * sizes.block if reshard else held_parameters
            compute_weights = sizes.width * gathered
            # A unit's gradients are reduced in fp32 while those of the next are on their way.
            buffers = sizes.width * largest[-1] + FP32 * sum(largest)
        else:
            copies = activations / float(kept[rank].sum()) if recompute == "none" else 1
            compute_weights = sizes.width * sizes.block_matrices * blocks * copies if sizes.width < FP32 else 0
        states = FP32 * held_parameters / (layout.shard * layout.context)
        gradients = FP32 * held_parameters if sizes.sharded and accumulation > 1 else states
        estimates.append(
            RankMemory(
                parameters=round(states),
                gradients=round(gradients),
                earlier_gradients=round(gradients) if accumulation > 1 else 0,
                head_gradients=round(gradients * sum(always) / held_parameters) if last else 0,
                optimizer=round(2 * states),
                compute_weights=round(compute_weights),
                buffers=round(buffers),
                activations=round(activations),
                head_activations=round(head_activations),
                block_activations=round(kept_by_block) if blocks else 0,
                backward=round(backward + waiting_bytes) if blocks else 0,
                head=round(head) if last else 0,
                device_context=DEVICE_CONTEXT_BYTES if on_accelerator else 0,
                margin=FRAGMENTATION if on_accelerator else 0.0,
            )
        )
    return estimates


@functools.lru_cache(maxsize=4096)
def _stages(
    model: ModelConfig,
    sequence_length: int,
    schedule: Schedule,
    ranks: int,
    stages_per_rank: int,
    recompute: Recompute,
    predicted: float,
) -> _Stages:
    """Remembered, because dealing out blocks takes longer than all else and a search asks for few different ways."""
    if ranks == 1:
        return _Stages(np.array([[float(model.num_hidden_layers)]]), 0, 0)
    owners, split = divide_layers(
        model,
        sequence_length,
        schedule=schedule,
        ranks=ranks,
        stages_per_rank=stages_per_rank,
        recompute=recompute,
        predicted=predicted,
    )
    blocks = [[len(part) for part, owner in zip(split, owners, strict=True) if owner == rank] for rank in range(ranks)]
    return _Stages(np.array(blocks, dtype=np.float64), owners[0], owners[-1])
