"""Learning rate and batch size from the size of a run: fitted laws of those who searched.

Each law holds for its own optimizer, schedule and data, and the loss is flat around its optimum: a factor of two in
batch size or 1.5 in learning rate costs little. A recipe that is off by more than three from all of them deserves a
second look. Batches are in tokens; N is said for each law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a law suggests. None: it says nothing of that."""

    law: str
    learning_rate: float | None
    batch_tokens: float | None


def deepseek_learning_rate(flops: float) -> float:
    """Peak learning rate 0.3118·C^-0.1250 (DeepSeek LLM, arXiv 2401.02954, equation 1).

    C = M·D with M = `deepseek_flops_per_token`. Fitted from 1e17 to 2e19 FLOPs on a multi-step schedule and AdamW.
    """
    return 0.3118 * flops**-0.1250


def deepseek_batch_tokens(flops: float) -> float:
    """Batch 0.2920·C^0.3271 tokens (DeepSeek LLM, equation 1)."""
    return 0.2920 * flops**0.3271


def deepseek_flops_per_token(layers: int, hidden: int, sequence_length: int) -> float:
    """M = 72·l·d² + 12·l·d·s in place of 6N: without embeddings, with all of attention (DeepSeek LLM, equation 2)."""
    return 72.0 * layers * hidden**2 + 12.0 * layers * hidden * sequence_length


def deepseek_allocation(flops: float) -> tuple[float, float]:
    """(M, D) of least loss: 0.1715·C^0.5243 FLOPs per token and 5.8316·C^0.4757 tokens (DeepSeek LLM, equation 4)."""
    return 0.1715 * flops**0.5243, 5.8316 * flops**0.4757


STEP_LAW_RATE, STEP_LAW_RATE_PARAMETERS, STEP_LAW_RATE_TOKENS = 1.79, -0.713, 0.307
STEP_LAW_BATCH, STEP_LAW_BATCH_TOKENS = 0.58, 0.571


def step_law_learning_rate(parameters: float, tokens: float) -> float:
    """Peak learning rate 1.79·N^-0.713·D^0.307 (Li et al. 2025, Step Law, arXiv 2503.04715, equation 1).

    N without embeddings. Fitted with AdamW and a cosine down to 1e-5; the published grids of dense models go from 0.2
    to 1.1 billion parameters and from 2 to 100 billion tokens.
    """
    return STEP_LAW_RATE * parameters**STEP_LAW_RATE_PARAMETERS * tokens**STEP_LAW_RATE_TOKENS


def step_law_batch_tokens(tokens: float) -> float:
    """Batch 0.58·D^0.571 tokens, whatever the model's size (Step Law, equation 1)."""
    return STEP_LAW_BATCH * tokens**STEP_LAW_BATCH_TOKENS


MINICPM_TOKENS_PER_PARAMETER = 192.0
"""D/N that MiniCPM's scaling law finds best with a warmup-stable-decay schedule (arXiv 2404.06395, section 4.5), about
ten times Chinchilla's."""


def minicpm_batch_tokens(loss: float) -> float:
    """Batch 1.21e9/L^6.24 tokens at a loss L on C4, nats per token (MiniCPM, arXiv 2404.06395, section 3.2)."""
    return 1.21e9 / loss**6.24


BERGSMA_EXPONENT = 0.383


def bergsma_batch_tokens(tokens: float, reference_tokens: float, reference_batch_tokens: float) -> float:
    """The best batch grows as D^0.383 from that of a smaller run (Bergsma et al. 2025, arXiv 2505.13738).

    N is of no account. The exponent is for AdamW with the weight decay tuned.
    """
    return reference_batch_tokens * (tokens / reference_tokens) ** BERGSMA_EXPONENT


def nanochat_batch_tokens(tokens: float, reference_tokens: float, reference_batch_tokens: int = 2**19) -> int:
    """Bergsma's law rounded to the nearest power of two, as nanochat uses it."""
    return 2 ** round(math.log2(bergsma_batch_tokens(tokens, reference_tokens, reference_batch_tokens)))


def learning_rate_for_batch(learning_rate: float, batch_tokens: float, new_batch_tokens: float) -> float:
    """Square-root rule for AdamW: learning rate · √(B'/B) (Malladi et al. 2022, arXiv 2205.10287)."""
    return learning_rate * math.sqrt(new_batch_tokens / batch_tokens)


def suggestions(
    layers: int, hidden: int, sequence_length: int, non_embedding_parameters: float, tokens: float
) -> list[Suggestion]:
    """What the laws that need no measured loss say of a run, each with the size that it is a law of."""
    flops = deepseek_flops_per_token(layers, hidden, sequence_length) * tokens
    return [
        Suggestion("DeepSeek LLM", deepseek_learning_rate(flops), deepseek_batch_tokens(flops)),
        Suggestion(
            "Step Law",
            step_law_learning_rate(non_embedding_parameters, tokens),
            step_law_batch_tokens(tokens),
        ),
    ]
