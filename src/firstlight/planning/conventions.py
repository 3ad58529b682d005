"""FLOPs of training one token as papers and frameworks count them, by name, and the two utilisations.

The same model trained at the same speed has another MFU in each of these conventions, so every figure says which one
it is in. They differ in what N is (with or without embeddings, positions, head), in whether attention is counted, and
in whether the half of it that a causal mask hides is. All count multiply and add as two operations, and backward as
twice forward.

Model FLOPs are what the mathematics needs; hardware FLOPs add what is computed again to save memory. MFU divides the
former by the peak, HFU the latter (Chowdhery et al. 2022, PaLM, section 4.1 and appendix B). A function here returns
either one or the other, and says so in its name or its first line.
"""

from __future__ import annotations

from collections.abc import Sequence

from firstlight.planning.shape import Shape

MEGATRON_MODEL_FACTOR = 72
MEGATRON_FULL_RECOMPUTE_FACTOR = 96
"""Forward 24, backward 48, and forward once more where all activations are computed again."""


def six_n(parameters: float) -> float:
    """Model FLOPs per token without attention: 6N (Kaplan et al. 2020, section 2.1, with N without embeddings;
    Hoffmann et al. 2022, section 3, with all parameters)."""
    return 6.0 * parameters


def attention_flops(layers: int, attention_width: int, sequence_length: int, *, causal: bool = False) -> float:
    """Model FLOPs per token of attention scores and values: 12·L·H·Q·T, half of it where the causal mask counts.

    attention_width: H·Q, the width of all query heads together.
    """
    return (6.0 if causal else 12.0) * layers * attention_width * sequence_length


def palm(parameters: float, layers: int, attention_width: int, sequence_length: int, *, causal: bool = False) -> float:
    """Model FLOPs per token: 6N + 12·L·H·Q·T (PaLM, appendix B). N is all parameters.

    llm-foundry and torchtitan count the same way with an N of their own; none of them takes the causal half off. With
    causal it is taken off, for comparison with Megatron-LM's count.
    """
    return six_n(parameters) + attention_flops(layers, attention_width, sequence_length, causal=causal)


def nanogpt(shape: Shape, sequence_length: int) -> float:
    """Model FLOPs per token of nanoGPT's estimate_mfu: PaLM's formula where N leaves out learned positions only."""
    parameters = shape.active_parameters - shape.table_rows * shape.hidden_size
    return palm(parameters, shape.num_hidden_layers, shape.attention_width, sequence_length)


def torchtitan(shape: Shape, sequence_length: int) -> float:
    """Model FLOPs per token of torchtitan: PaLM's formula where N leaves out the token table unless it is tied."""
    parameters = shape.active_parameters - (0 if shape.tied else shape.embedding_parameters)
    return palm(parameters, shape.num_hidden_layers, shape.attention_width, sequence_length)


def nanochat(shape: Shape, windows: Sequence[int]) -> float:
    """Model FLOPs per token of nanochat: 6 per weight of a matrix, and 12·h·q·min(window, T) for each block.

    windows: positions that each block's attention reaches back, at most the sequence length.
    """
    assert len(windows) == shape.num_hidden_layers, "one window for each block"
    return six_n(shape.matmul_parameters) + 12.0 * shape.attention_width * sum(windows)


def megatron_lm(shape: Shape, sequence_length: int) -> float:
    """Model FLOPs per token of Megatron-LM today (training.py, num_floating_point_operations): every matrix product by
    its true size (grouped queries, gated layers, chosen experts, the head), attention for the causal half."""
    attention = attention_flops(shape.num_hidden_layers, shape.attention_width, sequence_length, causal=True)
    return six_n(shape.matmul_parameters) + attention


def megatron_parameters(layers: int, hidden: int, vocab: int, sequence_length: int) -> float:
    """P = 12·l·h²·(1 + 13/(12h) + (V + s)/(12·l·h)) of a GPT (Narayanan et al. 2021, equation 2)."""
    return 12.0 * layers * hidden**2 * (1 + 13 / (12 * hidden) + (vocab + sequence_length) / (12 * layers * hidden))


def megatron_2021_hardware(layers: int, hidden: int, vocab: int, sequence_length: int) -> float:
    """Hardware FLOPs per token with all activations computed again: 96·l·h²·(1 + s/(6h) + V/(16·l·h)).

    Narayanan et al. 2021 (arXiv 2104.04473), equation 3, divided by the tokens of a batch. The "percentage of peak" of
    their table 1 is in these FLOPs, so it is HFU.
    """
    factor = MEGATRON_FULL_RECOMPUTE_FACTOR * layers * hidden**2
    return factor * (1 + sequence_length / (6 * hidden) + vocab / (16 * layers * hidden))


def korthikanti_model(layers: int, hidden: int, vocab: int, sequence_length: int, *, causal: bool = False) -> float:
    """Model FLOPs per token of a GPT: 72·l·h²·(1 + s/(6h) + v/(12·h·l)); s/(12h) where the causal mask counts.

    Korthikanti et al. 2022 (arXiv 2205.05198), equation 7, divided by the tokens of a batch; they do not take the
    causal half off.
    """
    attention = sequence_length / ((12 if causal else 6) * hidden)
    return MEGATRON_MODEL_FACTOR * layers * hidden**2 * (1 + attention + vocab / (12 * hidden * layers))


def korthikanti_hardware(layers: int, hidden: int, vocab: int, sequence_length: int) -> float:
    """Hardware FLOPs per token with selective recompute (attention's core again): s/(3h) in place of s/(6h).

    Korthikanti et al. 2022, equation 8, divided by the tokens of a batch.
    """
    attention = sequence_length / (3 * hidden)
    return MEGATRON_MODEL_FACTOR * layers * hidden**2 * (1 + attention + vocab / (12 * hidden * layers))


def with_full_recompute(model_flops: float) -> float:
    """Hardware FLOPs from model FLOPs by the rule 4/3: forward runs twice. llm-foundry and BigScience count so, for
    the head too, which no framework computes again."""
    return model_flops * 4 / 3


def chinchilla_appendix_f(shape: Shape, sequence_length: int, *, embeddings: bool = True) -> float:
    """Model FLOPs per token as Hoffmann et al. 2022 (arXiv 2203.15556), appendix F, add them up.

    Beside the matrix products they count the embedding as a product with one-hot vectors and 3 operations for each
    score of the softmax. embeddings=False leaves embedding and logits out: that reproduces the ratios of their
    table A4. The feed-forward layer has two matrices.
    """
    assert not shape.experts, "appendix F knows no experts"
    scores = 4.0 * sequence_length * shape.attention_width + 3.0 * shape.num_attention_heads * sequence_length
    block = 2.0 * shape.attention_matrices + scores + 4.0 * shape.hidden_size * shape.intermediate_size
    ends = 4.0 * shape.vocab_size * shape.hidden_size if embeddings else 0.0
    return 3.0 * (shape.num_hidden_layers * block + ends)


def bigscience_flops_per_second(parameters: float, tokens_per_second: float, *, recompute: bool = True) -> float:
    """Hardware FLOP/s by BigScience's rule of thumb: N · 2 · 4 a token with recompute, 2 · 3 without; no attention."""
    return parameters * 2 * (4 if recompute else 3) * tokens_per_second


def model_flops_utilization(
    model_flops_per_token: float, tokens_per_second: float, devices: int, peak_flops: float
) -> float:
    """MFU from 0 to 1: model FLOPs per second of all devices over their peak (FLOP/s of one device, dense)."""
    return model_flops_per_token * tokens_per_second / (devices * peak_flops)


def hardware_flops_utilization(
    hardware_flops_per_token: float, tokens_per_second: float, devices: int, peak_flops: float
) -> float:
    """HFU from 0 to 1: what the devices computed, recompute included, over their peak. Never below MFU."""
    return hardware_flops_per_token * tokens_per_second / (devices * peak_flops)
