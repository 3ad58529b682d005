"""Memory of a rank in a training step, from the shape of the model and its layout, before anything is built.

States are exact: fp32 weights, gradients and two moments, 16 bytes a parameter (Rajbhandari et al. 2020,
arXiv:1910.02054, §3.1), divided as the layout divides them. Activations are a list of what a block really keeps for its
backward pass, in the manner of Korthikanti et al. 2022 (arXiv:2205.05198, eq. 1-5), whose 34·s·b·h is another block:
here the residual stream is fp32, attention keeps no scores and nothing is dropped out. On a CPU the list is exact for
eager execution of pre-norm models, in every mode (the tests measure it); elsewhere it supposes fused norms and
attention kernels, and for compiled blocks, which choose what they keep, and for FSDP's buffers, which come and go, it
is an estimate.

Not counted: token ids, masks of documents, what lives within one operation, buffers of the communication library, the
allocator's fragmentation, and the device's own context (1 to 2 GB on CUDA). Leave a margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from firstlight.config import ModelConfig
from firstlight.config.parallel import Layout, Schedule
from firstlight.planning.pipeline import divide_layers
from firstlight.planning.schedules import peak_in_flight, schedule_order
from firstlight.planning.sizes import FP32, RankSizes

Precision = Literal["fp32", "bf16", "fp16", "fp8"]
Recompute = Literal["none", "selective", "full"]
CHUNK_TOKENS, CHUNK_TOKENS_ELSEWHERE = {"cpu": 1024}, 4096
BLOCK_LOGITS, BLOCK_LOGITS_ELSEWHERE = {"cpu": 1 << 19}, 1 << 27
"""Those of `firstlight.model.loss`."""


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Bytes of one rank when it needs the most: between the forward and the backward pass with the most in flight."""

    parameters: int
    """This rank's part of the fp32 weights, which are the master weights."""
    gradients: int
    """fp32: those of its part; of a sharded model with accumulation all, since sums wait for the last micro-batch."""
    earlier_gradients: int
    """Of `gradients`, what earlier micro-batches left: nothing when a step has only one."""
    optimizer: int
    """AdamW's two fp32 moments of its part."""
    compute_weights: int
    """Weights in the type of matrix products: gathered by FSDP, or cast by autocast; and FSDP's gradients under way."""
    activations: int
    """What blocks keep for the backward pass, of all micro-batches in flight."""
    backward: int
    """What recomputation brings back of one block at a time, and the gradients of its activations."""
    head: int
    """Gradients that the chunked head makes ahead of the backward pass, and its chunk of logits."""

    @property
    def total(self) -> int:
        """The most at a time: the head comes when the forward pass ends, and is done when blocks go backward."""
        fixed = self.parameters + self.optimizer + self.compute_weights + self.activations
        return fixed + max(self.earlier_gradients + self.head, self.gradients + self.backward)


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
    taken as evenly divided.
    """
    sizes = _Sizes(model, layout, precision, device_type)
    owners, split = divide_layers(
        model,
        sequence_length,
        schedule=schedule,
        ranks=layout.pipeline,
        stages_per_rank=stages_per_rank,
        recompute=recompute,
        predicted=predicted,
    )
    tokens = micro_batch_size * sequence_length // layout.context
    in_block = tokens * sizes.kept_per_token(recompute)
    between_stages = tokens * FP32 * model.hidden_size / layout.tensor
    orders = None
    if layout.pipeline > 1:
        orders = schedule_order(schedule, layout.pipeline, stages_per_rank, accumulation)
    estimates = []
    for rank in range(layout.pipeline):
        stages = [stage for stage, owner in enumerate(owners) if owner == rank]
        num_blocks = sum(len(split[stage]) for stage in stages)
        first, last = 0 in stages, len(owners) - 1 in stages
        kept = {stage: len(split[stage]) * in_block + (between_stages if orders else 0) for stage in stages}
        activations = peak_in_flight(orders[rank], kept) if orders else sum(kept.values())
        always, gathering = sizes.units(first, last, pipeline=len(owners) > 1)
        units = [*gathering, *always, *[sizes.block] * num_blocks]
        if sizes.sharded:
            reshard = layout.pipeline == 1 if reshard_after_forward is None else reshard_after_forward
            gathered = sum(always) + min(2, num_blocks) * sizes.block if reshard else sum(units)
            # A unit's gradients are reduced in fp32 while those of the next are on their way.
            compute_weights = sizes.width * (gathered + max(units)) + FP32 * sum(sorted(units)[-2:])
        else:
            copies = activations / sum(kept.values()) if recompute == "none" else 1
            compute_weights = sizes.width * sizes.block_matrices * num_blocks * copies if sizes.width < FP32 else 0
        states = FP32 * sum(units) / (layout.shard * layout.context)
        gradients = FP32 * sum(units) if sizes.sharded and accumulation > 1 else states
        estimates.append(
            RankMemory(
                parameters=round(states),
                gradients=round(gradients),
                earlier_gradients=round(gradients) if accumulation > 1 else 0,
                optimizer=round(2 * states),
                compute_weights=round(compute_weights),
                activations=round(activations),
                backward=round(tokens * sizes.backward_per_token(recompute)) if num_blocks else 0,
                head=round(sizes.head_bytes(tokens, predicted)) if last else 0,
            )
        )
    return estimates


class _Sizes(RankSizes):
    """And activations, in bytes, of the parts of a model on one tensor-parallel rank."""

    def __init__(self, model: ModelConfig, layout: Layout, precision: Precision, device_type: str) -> None:
        super().__init__(model, layout, precision)
        self.device_type = device_type

    def kept_per_token(self, recompute: Recompute) -> float:
        """Bytes that a block keeps for the backward pass, for each token of this rank's part of the sequences."""
        model, tensor, context, width = self.model, self.layout.tensor, self.layout.context, self.width
        assert model.head_dim and model.num_key_value_heads and model.intermediate_size
        stream = FP32 * model.hidden_size / tensor
        whole = width * model.hidden_size  # a norm's output as the linear layers after it read it: gathered
        queries = model.num_attention_heads * model.head_dim / tensor
        keys = model.num_key_value_heads * model.head_dim / tensor
        inner = width * model.intermediate_size / tensor
        kernel = width * queries + FP32 * model.num_attention_heads / tensor  # its result and each row's normalizer
        gated, rms = model.family.gated, model.family.norm == "rms"
        if recompute == "full":
            return stream
        if recompute == "selective":
            projected = width * (queries + 2 * keys) + inner * (2 if gated else 1)
            return stream + projected + kernel + 2 * width * model.hidden_size / tensor
        # Gathered keys and values have a copy for every query head.
        attention = width * (queries + 2 * (queries * context if context > 1 else keys)) + kernel
        feed_forward = inner * (4 if gated else 2)
        norms = 2 * FP32 * (1 if rms else 2)  # 1 / deviation, and the mean
        head_norms = 0.0
        if model.family.qk_norm != "none":
            rows = (queries + keys) / model.head_dim if model.family.qk_norm == "head" else 2
            head_norms = FP32 * (queries + keys) + norms * rows / 2
        unfused = 0.0
        if rms and self.device_type == "cpu":
            # There RMSNorm is several operations, and the kernel returns rotated heads before tokens.
            unfused = 2 * stream + width * queries + (FP32 * (queries + keys) if head_norms else 0)
        return 2 * stream + 2 * whole + attention + feed_forward + norms + head_norms + unfused

    def backward_per_token(self, recompute: Recompute) -> float:
        """Bytes that a block's backward pass needs besides, for each token: what was not kept, and gradients, of which
        those of the feed-forward layer are the widest."""
        assert self.model.intermediate_size is not None
        inner = self.width * self.model.intermediate_size / self.layout.tensor
        stream = FP32 * self.model.hidden_size / self.layout.tensor
        return self.kept_per_token("none") - self.kept_per_token(recompute) + 2 * inner + stream

    def head_bytes(self, all_tokens: int, predicted: float) -> float:
        """Bytes of the last norm and the loss (`firstlight.model.loss`), at their peak in the forward pass."""
        tokens = round(predicted * all_tokens)
        hidden_size, width, vocabulary = self.model.hidden_size, self.width, self.vocabulary / self.model.hidden_size
        chunks = max(1, -(-tokens // CHUNK_TOKENS.get(self.device_type, CHUNK_TOKENS_ELSEWHERE)))
        chunk = -(-tokens // chunks)
        rows = (
            chunk
            if self.layout.tensor > 1
            else min(chunk, BLOCK_LOGITS.get(self.device_type, BLOCK_LOGITS_ELSEWHERE) // int(vocabulary))
        )
        # fp32 logits (where they are not that already) and probabilities of a block of rows, and of the one before it.
        softmax = FP32 * rows * vocabulary * (2 if width < FP32 else 1) * (2 if rows < tokens else 1)
        norm = all_tokens * hidden_size * ((2 if self.device_type == "cpu" else 1) * FP32 / self.layout.tensor + width)
        cast = width * self.vocabulary if width < FP32 and not self.sharded else 0
        gradients = tokens * hidden_size * width + FP32 * self.vocabulary
        return norm + cast + gradients + width * (chunk * vocabulary + self.vocabulary) + softmax
