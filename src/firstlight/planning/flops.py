"""Parameters and training FLOPs of a model, exactly, from its shape alone.

Convention (the one behind every MFU that Firstlight prints): model FLOPs, not hardware FLOPs. Recomputed
activations count nothing; a matrix of `n` weights costs 6n per token (2n forward, 4n backward: Kaplan et al. 2020,
§2.1); the embedding look-up costs nothing; attention scores and values cost 12·H·d for each token and each position
that it sees (Chowdhery et al. 2022, PaLM, appendix B), which a causal model does for half of the sequence on average
(Megatron-LM counts so today) and local attention for its window. PaLM, nanoGPT and torchtitan do not halve, so their
MFU reads higher. Of a masked model the head runs at hidden positions only, and is counted for those.
"""

from __future__ import annotations

from firstlight.config import ModelConfig


def parameter_count(model: ModelConfig) -> int:
    """All trainable parameters of a resolved `model` (tied weights once)."""
    family, width = model.family, model.hidden_size
    head = 0 if model.tie_word_embeddings else _vocabulary(model) * width
    tables = _vocabulary(model) + _required(model.type_vocab_size)
    tables += _required(model.max_position_embeddings) if family.positions == "learned" else 0
    norms = int(family.embedding_norm) + int(family.last_norm) - int(not family.first_norm)
    if family.transform != "none":
        head += width * width + (width if family.transform == "bias" else 0) + _vocabulary(model)
        norms += 1
    blocks = model.num_hidden_layers * (block_matrices(model) + divided_biases(model) + whole_vectors(model))
    return tables * width + head + blocks + norms * norm_parameters(model)


def block_matrices(model: ModelConfig) -> int:
    """Weights of the matrices of one block."""
    queries, keys = head_widths(model)
    inner = _required(model.intermediate_size)
    return model.hidden_size * (2 * queries + 2 * keys + (3 if model.family.gated else 2) * inner)


def divided_biases(model: ModelConfig) -> int:
    """Biases of one block that tensor parallelism divides: those of layers divided by output."""
    queries, keys = head_widths(model)
    inner = _required(model.intermediate_size)
    sizes = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "up_proj": inner}
    biases = sum(size for name, size in sizes.items() if model.family.biased(name))
    return biases + (queries + keys if model.family.qk_norm == "all" else 0)


def whole_vectors(model: ModelConfig) -> int:
    """Norms and biases of one block that every tensor-parallel rank has whole."""
    outputs = sum(model.hidden_size for name in ("o_proj", "down_proj") if model.family.biased(name))
    return block_norms(model) + outputs


def block_norms(model: ModelConfig) -> int:
    """Parameters of the norms of one block, without those that tensor parallelism divides."""
    return 2 * norm_parameters(model) + (2 * _required(model.head_dim) if model.family.qk_norm == "head" else 0)


def norm_parameters(model: ModelConfig) -> int:
    """Parameters of a norm over the residual stream."""
    return model.hidden_size * (2 if model.family.norm_bias else 1)


def head_widths(model: ModelConfig) -> tuple[int, int]:
    """(width of all query heads, width of all key or value heads)."""
    head_dim = _required(model.head_dim)
    return model.num_attention_heads * head_dim, _required(model.num_key_value_heads) * head_dim


def matmul_parameters(model: ModelConfig) -> int:
    """Weights that multiply activations: every block's matrices and those of the head (also when tied)."""
    return model.num_hidden_layers * block_matrices(model) + head_matrices(model)


def head_matrices(model: ModelConfig) -> int:
    """Weights that multiply the last hidden states: the vocabulary's (also when tied), and those of its transform."""
    transform = model.hidden_size**2 if model.family.transform != "none" else 0
    return _vocabulary(model) * model.hidden_size + transform


def training_flops_per_token(model: ModelConfig, sequence_length: int, predicted: float = 1.0) -> float:
    """Model FLOPs of forward and backward for one token (module docstring); predicted: share of positions whose token
    is predicted, 1 for a causal model."""
    blocks = sum(block_flops(model, sequence_length, layer) for layer in range(model.num_hidden_layers))
    return blocks + 6.0 * predicted * head_matrices(model)


def block_flops(model: ModelConfig, sequence_length: int, layer: int) -> float:
    """Model FLOPs of forward and backward of one block for one token."""
    queries, _ = head_widths(model)
    return 6.0 * block_matrices(model) + 12.0 * queries * positions_seen(model, sequence_length, layer)


def hardware_flops_per_token(model: ModelConfig, sequence_length: int, recompute: str, predicted: float = 1.0) -> float:
    """Hardware FLOPs of forward and backward for one token: model FLOPs, and where recompute is "full" the forward
    pass of every block once more. "selective" computes no matrix product and no attention again."""
    model_flops = training_flops_per_token(model, sequence_length, predicted)
    if recompute != "full":
        return model_flops
    return model_flops + (model_flops - 6.0 * predicted * head_matrices(model)) / 3


def positions_seen(model: ModelConfig, sequence_length: int, layer: int) -> float:
    """Mean number of positions that a token of a block attends to; half the sequence where attention is causal."""
    window = 0 if model.is_global(layer) else _required(model.sliding_window)
    if model.causal:
        if not 0 < window < sequence_length:
            return sequence_length / 2
        return window - window * window / (2 * sequence_length)
    side = window // 2
    if not 0 < side < sequence_length:
        return float(sequence_length)
    return 2 * side + 1 - side * (side + 1) / sequence_length


def _required(value: int | None) -> int:
    assert value is not None, "the model configuration is not resolved"
    return value


def _vocabulary(model: ModelConfig) -> int:
    return _required(model.vocab_size)
