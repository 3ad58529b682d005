"""Parameters and training FLOPs of a model, exactly, from its shape alone.

Convention (the one behind every MFU that Firstlight prints): model FLOPs, not hardware FLOPs. Recomputed
activations count nothing; a matrix of `n` weights costs 6n per token (2n forward, 4n backward: Kaplan et al. 2020,
§2.1); the embedding look-up costs nothing; attention scores and values cost 12·L·H·d·T per token for full attention
(Chowdhery et al. 2022, PaLM, appendix B) and half of that here, because a causal model needs only half of the
matrix (Megatron-LM counts so today). PaLM, nanoGPT and torchtitan do not halve, so their MFU reads higher.
"""

from __future__ import annotations

from firstlight.config import ModelConfig


def parameter_count(model: ModelConfig) -> int:
    """All trainable parameters of a resolved `model` (tied weights once)."""
    embedding = _vocabulary(model) * model.hidden_size
    total = embedding + matmul_parameters(model) - (embedding if model.tie_word_embeddings else 0)
    norms_a_layer, norm_size, extra = 2, model.hidden_size, 0
    if model.architecture == "gpt2":
        norm_size *= 2
        extra = _required(model.max_position_embeddings) * model.hidden_size
        biases = 4 * model.hidden_size + _required(model.intermediate_size) + model.hidden_size
        extra += model.num_hidden_layers * biases
    elif model.qk_norm:
        extra = model.num_hidden_layers * 2 * _required(model.head_dim)
    return total + extra + norm_size * (norms_a_layer * model.num_hidden_layers + 1)


def matmul_parameters(model: ModelConfig) -> int:
    """Weights that multiply activations: every block's matrices and the output head (also when tied)."""
    head_dim = _required(model.head_dim)
    queries = model.num_attention_heads * head_dim
    keys = _required(model.num_key_value_heads) * head_dim
    attention = model.hidden_size * (2 * queries + 2 * keys)
    feed_forward = (3 if model.architecture == "llama" else 2) * model.hidden_size * _required(model.intermediate_size)
    return model.num_hidden_layers * (attention + feed_forward) + _vocabulary(model) * model.hidden_size


def training_flops_per_token(model: ModelConfig, sequence_length: int) -> float:
    """Model FLOPs of forward and backward for one token, causal attention counted by half (module docstring)."""
    width = model.num_attention_heads * _required(model.head_dim)
    return 6.0 * matmul_parameters(model) + 6.0 * model.num_hidden_layers * width * sequence_length


def _required(value: int | None) -> int:
    assert value is not None, "the model configuration is not resolved"
    return value


def _vocabulary(model: ModelConfig) -> int:
    return _required(model.vocab_size)
