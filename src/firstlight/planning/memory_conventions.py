"""Memory of training as papers and tools print it, by name: bytes of states a parameter, bytes of activations a layer.

They differ in what they count: whether gradients are kept in half or in full precision, whether a bf16 copy lies beside
fp32 master weights, whether attention keeps its scores, what tensor parallelism leaves whole. So every figure says
whose it is. What our own engine takes is in `firstlight.planning.memory`, measured runs of other frameworks are in
`firstlight.planning.framework_memory`.

Letters as in the papers: s sequence length, b sequences of a micro-batch, h hidden size, a attention heads, t
tensor-parallel ranks, p pipeline ranks, v vocabulary, L layers. All functions return bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class States:
    """Bytes of a parameter in each kind of training state, before any of it is divided."""

    weights: float
    gradients: float
    optimizer: float
    """Moments, and master weights where `weights` are in half precision."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer

    def divided(self, ranks: int, stage: int) -> float:
        """Bytes a parameter on each of `ranks` data-parallel ranks (ZeRO, arXiv:1910.02054, §5): stage 1 divides the
        optimizer's states, 2 gradients too, 3 (FSDP) weights too; 0 nothing."""
        assert stage in range(4) and ranks > 0
        parts = (self.optimizer, self.gradients, self.weights)
        return sum(part / ranks if number < stage else part for number, part in enumerate(parts))


STATES: dict[str, States] = {
    "zero": States(2, 2, 12),
    "megatron": States(2, 4, 12),
    "nanotron": States(2, 2, 12),
    "nanotron, fp32 gradients": States(2, 6, 12),
    "fsdp2": States(4, 4, 8),
    "ml-engineering": States(6, 4, 8),
    "ml-engineering, 8-bit AdamW": States(6, 4, 2),
    "ml-engineering, SGD with momentum": States(6, 4, 4),
    "ml-engineering, fp32": States(4, 4, 8),
}
"""Whose sums. zero: Rajbhandari et al. 2020, §3.1, fp16 with Adam. megatron: Megatron-LM's theoretical_memory_usage.py,
fp32 main gradients (18; with its distributed optimizer 6 + 12/ranks, which is stage 1). nanotron: the Ultra-Scale
Playbook's table, without and with fp32 gradients beside the bf16 ones. fsdp2: fp32 parameters that are cast when they
are gathered, as torchtitan and Firstlight keep them. ml-engineering: Bekman's book, fp32 weights and a half copy."""


def korthikanti_layer(
    sequence: int,
    batch: int,
    hidden: int,
    heads: int,
    *,
    tensor: int = 1,
    sequence_parallel: bool = False,
    recompute: Literal["none", "selective", "full"] = "none",
) -> float:
    """Activations of one GPT layer with dropout, 16 bit, attention scores kept (Korthikanti et al. 2022,
    arXiv:2205.05198, eq. 1 to 4 and table 2).

    selective: attention scores are computed again (the term 5as/h is gone). full: only the layer's input is kept,
    whole on every tensor-parallel rank, as in table 2.
    """
    tokens = sequence * batch * hidden
    if recompute == "full":
        return 2.0 * tokens
    scores = 5.0 * heads * sequence / hidden if recompute == "none" else 0.0
    if sequence_parallel:
        return tokens * (34 + scores) / tensor
    return tokens * (10 + (24 + scores) / tensor)


def interleaving_penalty(pipeline: int, stages_per_rank: int) -> float:
    """How many times the activations of plain 1F1B interleaved 1F1B keeps: 1 + (p-1)/(p·m) (Korthikanti, §4.2.3)."""
    return 1.0 if stages_per_rank == 1 else 1 + (pipeline - 1) / (pipeline * stages_per_rank)


def first_stage_layers(layers: int, pipeline: int, stages_per_rank: int = 1) -> float:
    """Layers' worth of activations that the first rank of a 1F1B pipeline keeps: L whatever p, since p micro-batches
    of L/p layers are in flight; more with interleaving (Korthikanti, §4.2.3)."""
    return layers * interleaving_penalty(pipeline, stages_per_rank)


def korthikanti_ends(
    sequence: int, batch: int, hidden: int, vocab: int, *, tensor: int = 1, pipeline: int = 1
) -> float:
    """Activations outside the layers: dropout of the embedding, s·b·h·p/t; without a pipeline also the last norm, the
    output layer's input and fp32 logits, 4sbh/t · (1 + v/h) (Korthikanti, §4.3)."""
    dropout = sequence * batch * hidden * pipeline / tensor
    return dropout + (4.0 * sequence * batch * (hidden + vocab) / tensor if pipeline == 1 else 0.0)


def megatron_states(
    layers: int,
    hidden: int,
    vocab: int,
    *,
    intermediate: int | None = None,
    key_value_share: float = 1.0,
    gated: bool = False,
    tied: bool = True,
    tensor: int = 1,
    pipeline: int = 1,
    distributed_optimizer_ranks: int = 0,
) -> float:
    """States of the fullest rank by Megatron-LM's report_theoretical_memory: a pipeline's first, with the embedding;
    norms are whole on every tensor-parallel rank.

    key_value_share: key-value heads over query heads. distributed_optimizer_ranks: 0 without that optimizer.
    """
    inner = 4 * hidden if intermediate is None else intermediate
    matrices = 2 * hidden * (inner * (1.5 if gated else 1) + hidden * (1 + key_value_share))
    norms = (4 * layers + 2) * hidden / pipeline
    embeddings = hidden * vocab * (2 if not tied and pipeline == 1 else 1)
    ranks = distributed_optimizer_ranks
    each = STATES["megatron"].divided(ranks or 1, 1 if ranks else 0)
    return each * ((layers * matrices / pipeline + embeddings) / tensor + norms)


def megatron_activations(
    sequence: int,
    batch: int,
    hidden: int,
    layers: int,
    vocab: int,
    *,
    intermediate: int | None = None,
    tensor: int = 1,
    pipeline: int = 1,
    stages_per_rank: int = 1,
    microbatches: int | None = None,
) -> float:
    """Activations of the first stage by Megatron-LM's report_theoretical_memory, for sequence parallelism with
    selective recomputation: per layer sb·(18h + 4·ffn), token ids and the embedding's dropout for every micro-batch in
    flight. microbatches: unset, enough to fill the pipeline."""
    inner = 4 * hidden if intermediate is None else intermediate
    activations = layers * sequence * batch * (18.0 * hidden + 4 * inner)
    activations += (8 + hidden) * sequence * batch * pipeline
    activations *= interleaving_penalty(pipeline, stages_per_rank)
    if stages_per_rank == 1 and pipeline > 1 and microbatches is not None:
        activations *= min(1.0, microbatches / pipeline)
    if pipeline == 1:
        activations += 4.0 * sequence * batch * (hidden + vocab)
    return activations / tensor


def transformers_layer_copies(
    hidden: int,
    intermediate: int,
    query: int,
    key: int,
    *,
    norm: Literal["llama", "gemma"] = "llama",
    head_norms: bool = False,
) -> float:
    """How many copies of its 16-bit hidden states (2·s·b·h) a gated layer of Hugging Face Transformers leaves behind
    for the backward pass, run eagerly with a fused attention kernel.

    Each norm keeps an fp32 copy (2 copies), the normalised values (1; Gemma's are fp32, 2) and its output (1).
    Attention keeps queries, keys and values repeated for every query head, its result and the output projection's
    input: five times the query heads' width. Norms of heads keep what other norms keep, but not their output, which
    is only rotated. The feed-forward layer keeps gate, activated gate, up and their product. The layer's output is
    the last copy. query, key: width of all query heads, of all key heads.
    """
    norms = 2 * (5 if norm == "gemma" else 4)
    of_heads = 3 * (query + key) / hidden if head_norms else 0.0
    return norms + 5 * query / hidden + of_heads + 4 * intermediate / hidden + 1


def bigscience_parts(
    layers: int,
    hidden: int,
    heads: int,
    vocab: int,
    sequence: int,
    batch: int,
    *,
    tensor: int,
    pipeline: int,
    data: int,
    cuda_bytes: float = 1.65e9,
) -> dict[str, float]:
    """The rule of thumb for BLOOM's rows, part by part: Megatron's 6 + 12/dp a parameter of the first stage, the
    layers' inputs (full recomputation), one layer under way, and CUDA. It leaves out gradients of activations, logits
    and fragmentation, so it is low."""
    stage = (12 * hidden**2 * layers / pipeline + vocab * hidden) / tensor
    return {
        "states": STATES["megatron"].divided(data, 1) * stage,
        "checkpoints": layers * korthikanti_layer(sequence, batch, hidden, heads, recompute="full"),
        "one_layer": korthikanti_layer(sequence, batch, hidden, heads, tensor=tensor),
        "cuda": cuda_bytes,
    }


@dataclass(frozen=True, slots=True)
class EleutherEstimate:
    """What EleutherAI's calc_transformer_mem.py prints for one GPU."""

    parameters: float
    """Of the whole model; not bytes."""
    activations: float
    weights: float
    gradients: float
    optimizer: float
    communication: float

    @property
    def total(self) -> float:
        """All but `parameters`."""
        return self.activations + self.weights + self.gradients + self.optimizer + self.communication


def eleuther(
    layers: int,
    hidden: int,
    heads: int,
    sequence: int,
    batch: int,
    *,
    vocab: int = 51200,
    feed_forward_factor: float = 4.0,
    feed_forward_matrices: int = 2,
    checkpointing: bool = False,
    partition_activations: bool = False,
    stage: int = 1,
    tensor: int = 1,
    pipeline: int = 1,
    devices: int = 1,
) -> EleutherEstimate:
    """EleutherAI's tool as it is, to compare with; it is no prediction.

    It divides gradients by neither tensor nor pipeline ranks, divides states by all devices instead of the
    data-parallel ones, and takes 34sbh a layer where activations are checkpointed, although full recomputation keeps
    2sbh.
    """
    block = (4 + feed_forward_matrices * feed_forward_factor) * hidden**2 + 8 * hidden
    parameters = 2 * vocab * hidden + hidden * sequence + layers * block + 2 * hidden
    scores = 0.0 if checkpointing else 5.0 * heads * sequence / hidden
    activations = layers * sequence * batch * hidden * (34 + scores) / (tensor if partition_activations else 1)
    buckets = 5e8 * (stage >= 1) + 1e9 * (stage == 3) if devices > 1 else 0.0
    return EleutherEstimate(
        parameters=parameters,
        activations=activations,
        weights=2 * parameters / (tensor * pipeline) / (devices if stage == 3 else 1),
        gradients=4 * parameters / (devices if stage >= 2 else 1),
        optimizer=12 * parameters / (devices if stage >= 1 else 1),
        communication=2 * buckets,
    )
