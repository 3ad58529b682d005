"""Peak memory of a training step in other frameworks, to be held against what their authors measured.

A framework is described by what decides its memory: bytes of states and how they are divided, what its layers keep,
whether activations between layers are divided (sequence parallelism), and how many bytes its loss makes of a logit.
Sizes of the model, the layout and the pipeline's schedule do the rest, as for our own engine
(`firstlight.planning.memory`). The few constants are fields of the descriptions below, each with its meaning;
`benchmarks/memory_published.py` shows the error of every published row, also with constants that were chosen without
the rows of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout, Schedule
from firstlight.planning.activations import Recompute
from firstlight.planning.flops import head_widths
from firstlight.planning.in_flight import peak_held
from firstlight.planning.memory import FRAGMENTATION
from firstlight.planning.memory_conventions import STATES, States, transformers_layer_copies
from firstlight.planning.sizes import FP32, RankSizes

HALF = 2
"""Bytes of a number in 16 bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSystem:
    """What decides the memory of a framework's training step, beside model and layout."""

    states: States
    zero_stage: Literal[1, 3]
    """What data-parallel ranks divide: the optimizer's states, or everything (FSDP)."""
    layer: Literal["gpt", "llama"]
    """gpt: two-matrix feed-forward, scores kept (Korthikanti's eq. 1); llama: gated, fused attention."""
    sequence_parallel: bool = True
    logit_bytes: float = 14
    """Of the loss for each logit at its peak. 14: bf16 logits, and their fp32 copy, logarithms of probabilities and
    gradient."""
    divided_logit_bytes: float = 14
    """The same where the vocabulary is divided over tensor-parallel ranks and plain operations compute the loss."""
    step_bytes: float = 0
    """Of each parameter of a rank's part of the optimizer's states, only while it steps."""
    working_layers: float = 2
    """Layers' worth of activations while one layer goes backward: what its forward pass keeps, and their gradients."""
    fragmentation: float = FRAGMENTATION
    """Share of its tensors by which the allocator's reserve exceeds them."""
    context_bytes: float = 0
    """What is measured beside the allocator's memory: with nvidia-smi the device's context, with PyTorch nothing."""


MEGATRON_DEEPSPEED = TrainingSystem(
    states=STATES["megatron"],
    zero_stage=1,
    layer="gpt",
    sequence_parallel=False,
    step_bytes=2,
    context_bytes=1.65e9,
)
"""BigScience's: ZeRO-1 over fp32 main gradients; step_bytes is the new 16-bit weights that ranks send each other."""
TORCHTITAN = TrainingSystem(states=STATES["fsdp2"], zero_stage=3, layer="llama", divided_logit_bytes=22)
"""At the end of 2024. Its loss over a divided vocabulary makes two more fp32 copies of the logits going backward."""
TORCHTITAN_COMPILED_LOSS = TrainingSystem(
    states=STATES["fsdp2"], zero_stage=3, layer="llama", logit_bytes=6, divided_logit_bytes=6
)
"""Since its loss is compiled (2025): bf16 logits, and one fp32 tensor beside them."""


@dataclass(frozen=True, slots=True)
class SystemMemory:
    """Bytes of the fullest rank at its fullest, by part."""

    states: float
    gathered: float
    """FSDP's gathered weights and undivided gradients."""
    kept: float
    """Activations of all micro-batches in flight."""
    working: float
    """One layer's backward pass, or the loss."""
    fragmentation: float
    context: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.states + self.gathered + self.kept + self.working + self.fragmentation + self.context


def system_memory(
    system: TrainingSystem,
    model: ModelConfig,
    layout: Layout,
    *,
    micro_batch_size: int,
    sequence_length: int,
    microbatches: int = 1,
    recompute: Recompute = "full",
    schedule: Schedule = "1f1b",
    stages_per_rank: int = 1,
) -> SystemMemory:
    """Peak of the fullest rank of a resolved `model`. layout: its data-parallel ranks and context-parallel ones divide
    the states as the system's stage says. Blocks are taken as evenly divided over pipeline ranks.

    selective: for gpt without attention scores (Korthikanti); for llama every other matrix product and attention
    (torchtitan's "op").
    """
    sizes = RankSizes(model, layout, "bf16")
    tokens = micro_batch_size * sequence_length // layout.context
    pipeline = layout.pipeline
    each_stage = model.num_hidden_layers / (pipeline * stages_per_rank)
    kept_blocks = np.full((pipeline, stages_per_rank), each_stage * tokens * _kept(system, sizes, recompute))
    held = (
        peak_held(schedule, pipeline, stages_per_rank, microbatches, kept_blocks) if pipeline > 1 else kept_blocks[:, 0]
    )
    blocks = model.num_hidden_layers / pipeline
    ends = []
    for first, last in {(True, pipeline == 1), (pipeline == 1, True)}:
        always, freed = sizes.units(first, last, pipeline > 1)
        parameters = sum(always) + sum(freed) + blocks * sizes.block
        ranks = layout.data * layout.context
        states = (system.states.divided(ranks, system.zero_stage) + system.step_bytes / ranks) * parameters
        gathered = 0.0
        if system.zero_stage == 3 and ranks > 1:
            at_once = parameters if pipeline > 1 else sum(always) + 2 * sizes.block
            gathered = HALF * at_once + (FP32 * parameters if microbatches > 1 else 0)
        working = system.working_layers * tokens * _whole_layer(system, sizes)
        if last:
            per_logit = system.divided_logit_bytes if layout.tensor > 1 else system.logit_bytes
            working = max(working, per_logit * tokens * sizes.vocabulary / model.hidden_size)
        kept = float(held[0 if first else -1])
        tensors = states + gathered + kept + working
        ends.append(SystemMemory(states, gathered, kept, working, system.fragmentation * tensors, system.context_bytes))
    return max(ends, key=lambda memory: memory.total)


def _kept(system: TrainingSystem, sizes: RankSizes, recompute: Recompute) -> float:
    """Bytes a token that a block keeps."""
    model, tensor = sizes.model, sizes.layout.tensor
    between = HALF * model.hidden_size / (tensor if system.sequence_parallel else 1)
    if recompute == "full":
        return between
    if recompute == "none":
        return _whole_layer(system, sizes)
    if system.layer == "gpt":
        return _whole_layer(system, sizes, scores=False)
    queries, keys = head_widths(model)
    assert model.intermediate_size is not None
    products = HALF * (2 * queries + keys + model.intermediate_size) / tensor
    return 2 * between + products


def _whole_layer(system: TrainingSystem, sizes: RankSizes, scores: bool = True) -> float:
    """Bytes a token of everything that one layer keeps when nothing is computed again."""
    model, tensor = sizes.model, sizes.layout.tensor
    width, sequence_parallel = model.hidden_size, system.sequence_parallel
    queries, keys = head_widths(model)
    assert model.intermediate_size is not None and model.max_position_embeddings is not None
    if system.layer == "gpt":
        kept = 5 * model.num_attention_heads * model.max_position_embeddings if scores else 0
        whole = 10 * width / (tensor if sequence_parallel else 1)
        return whole + (16 * width + 8 * width * model.intermediate_size / (4 * width) + kept) / tensor
    copies = transformers_layer_copies(width, model.intermediate_size, queries, keys)
    gathered = 2 * width * HALF if tensor > 1 else 0
    return HALF * width * copies / tensor + gathered
