"""What a block and the vocabulary head do in a training step: FLOPs of matrix products and attention, bytes moved.

FLOPs here are those that are executed, recomputation included, unlike `firstlight.planning.flops`. Bytes count every
reading and writing of an activation by the kernels that a compiled block consists of (the norm with the residual sum,
the activation function, the rotation), forward and backward; eager execution moves more, by a calibrated factor. A
matrix product reads its inputs and writes its result (roofline: Williams et al. 2009, doi:10.1145/1498765.1498785),
which is why narrow ones are slower. Attention that is not fused writes its scores (Korthikanti et al. 2022,
arXiv:2205.05198, §4.1, counts the 5·a·s²·b bytes of them that stay).
"""

from __future__ import annotations

from dataclasses import dataclass

from firstlight.config import ModelConfig
from firstlight.planning.flops import block_matrices, head_matrices, head_widths, positions_seen
from firstlight.planning.hardware import Precision
from firstlight.planning.memory import Recompute
from firstlight.planning.sizes import FP32

LOGIT_BYTES = 12
"""Moved for each logit by a fused loss besides the matrix products: probabilities and gradients of a chunk."""
OPTIMIZER_BYTES = 44
"""Moved for each parameter in a step: AdamW reads four fp32 numbers and writes three, the norm of gradients reads one,
clipping reads and writes one, and clearing writes one."""
SCORE_BYTES = 12, 16
"""Moved for each attention score that is written to memory, forward and backward: product, softmax, dropout."""


@dataclass(frozen=True, slots=True)
class Software:
    """How a training program runs a block; the defaults are Firstlight's. Others serve to read published runs."""

    compiled: bool = True
    """Element-wise operations are fused."""
    fused_attention: bool = True
    """Flash attention; else scores are written to memory, whole also where attention is causal."""
    stream_bytes: int = FP32
    """Of a number in the residual stream."""
    sequence_parallel: bool = True
    """Tensor-parallel ranks divide norms and residual sums too."""
    tensor_overlap: float = 0.0
    """Share of tensor-parallel communication that runs beside matrix products (asynchronous tensor parallelism)."""
    selective_matmuls: float = 0.0
    """Share of matrix products that selective recomputation runs again (torchtitan: every second one)."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one part of a model on one rank, forward and backward."""

    matmul_flops: float
    """For each token of a micro-batch, as the following three."""
    attention_flops: float
    matmul_bytes: float
    element_bytes: float
    weight_bytes: float
    """For each micro-batch, whatever its size: weights that matrix products read and gradients that they add up."""


def block_work(
    model: ModelConfig,
    sequence_length: int,
    tensor: int,
    precision: Precision,
    recompute: Recompute,
    software: Software,
) -> Work:
    """Of one block (the mean of all, where some attend locally) of a resolved model."""
    assert model.intermediate_size is not None
    width, hidden, inner = (FP32 if precision == "fp32" else 2), model.hidden_size, model.intermediate_size
    queries, keys = head_widths(model)
    ups = 2 if model.family.gated else 1
    shapes = [(hidden, queries), (hidden, 2 * keys), (queries, hidden), *[(hidden, inner)] * ups, (inner, hidden)]
    edges = sum(
        (inputs + outputs / tensor) if inputs == hidden else (inputs / tensor + outputs) for inputs, outputs in shapes
    )
    operand = 1 if precision == "fp8" else width
    again = {"none": 0.0, "selective": software.selective_matmuls, "full": 1.0}[recompute]  # share of forward passes
    matmul_bytes = edges * ((2 + again) * operand + (1 + again) * width)
    weights = block_matrices(model) / tensor
    forward, backward = _element_bytes(model, width, tensor, software)
    kept = recompute == "none" or (recompute == "selective" and not software.fused_attention)
    element_bytes = forward * (1 if kept else 2) + backward
    if precision == "fp8":  # inputs and gradients are read, written in 8 bits, and written once more transposed
        element_bytes += (width + 2) * edges * (1 + again / 2)
    layers = range(model.num_hidden_layers)
    core = 12.0 * queries / tensor
    if software.fused_attention:
        seen = sum(positions_seen(model, sequence_length, layer) for layer in layers) / len(layers)
        # Two products forward, five backward, which makes the scores again (Dao 2023, arXiv:2307.08691, §2.3).
        attention_again = recompute == "full"
        attention_flops = core * seen * (14 + 4 * attention_again) / 12
        element_bytes += (6 + 2 * attention_again) * (queries + keys) / tensor * width
    else:
        scores_again = recompute != "none"
        attention_flops = core * sequence_length * (12 + 4 * scores_again) / 12
        scores = model.num_attention_heads * sequence_length / tensor
        element_bytes += scores * (SCORE_BYTES[0] * (1 + scores_again) + SCORE_BYTES[1])
    return Work(
        matmul_flops=(6 + 2 * again) * weights,
        attention_flops=attention_flops,
        matmul_bytes=matmul_bytes,
        element_bytes=element_bytes,
        weight_bytes=weights * ((2 + again) * operand + 2 * FP32),
    )


def head_work(
    model: ModelConfig, tensor: int, precision: Precision, software: Software, predicted: float = 1.0
) -> Work:
    """Of the last norm, the vocabulary's matrix and the loss, with the embedding's look-up. predicted: share of
    positions whose token is predicted."""
    assert model.vocab_size is not None
    width = FP32 if precision == "fp32" else 2
    weights, vocabulary, hidden = head_matrices(model) / tensor, model.vocab_size / tensor, model.hidden_size
    stream = (4 + 5) * software.stream_bytes * hidden / (tensor if software.sequence_parallel else 1)
    return Work(
        matmul_flops=6 * predicted * weights,
        attention_flops=0.0,
        matmul_bytes=3 * width * predicted * (vocabulary + hidden),
        element_bytes=LOGIT_BYTES * predicted * vocabulary + stream,
        weight_bytes=weights * (2 * width + 2 * FP32),
    )


def _element_bytes(model: ModelConfig, width: int, tensor: int, software: Software) -> tuple[float, float]:
    """(forward, backward) bytes of what is neither a matrix product nor attention, for each token of a block."""
    assert model.intermediate_size is not None
    queries, keys = head_widths(model)
    hidden, inner, stream = model.hidden_size, model.intermediate_size, software.stream_bytes
    # Two residual sums, each with the norm that reads it.
    whole = 2 * hidden / (tensor if software.sequence_parallel else 1)
    forward, backward = whole * (2 * stream + 2 * width), whole * (3 * stream + 2 * width)
    gated = model.family.gated
    forward += (3 if gated else 2) * inner * width / tensor
    backward += (5 if gated else 3) * inner * width / tensor
    rotations = (model.family.positions == "rotary") + (model.family.qk_norm != "none")
    forward += rotations * 2 * (queries + keys) * width / tensor
    backward += rotations * 2 * (queries + keys) * width / tensor
    if model.family.bias == "all":
        backward += (queries + 2 * keys + inner) * width / tensor + 2 * hidden * width
    return forward, backward
