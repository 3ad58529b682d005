"""The laws of Kaplan et al. 2020, "Scaling Laws for Neural Language Models" (arXiv 2001.08361).

N is parameters without embeddings (token and position tables) and head; D tokens; L nats per token of WebText2 with
GPT-2's tokenizer; compute in PF-days, 8.64e19 FLOPs, without embeddings and attention. They say to put most of a
larger budget into a larger model (N ∝ C^0.73); Hoffmann et al. 2022 found that half of it belongs to more text, mostly
because N without embeddings and small models bent the fit (Pearce and Song 2024, arXiv 2406.12907). They are here
because people quote them, and because the critical batch size is theirs.
"""

from __future__ import annotations

PF_DAY = 1e15 * 86400
"""FLOPs of a petaFLOP/s for a day."""

ALPHA_N, N_C = 0.076, 8.8e13
ALPHA_D, D_C = 0.095, 5.4e13
ALPHA_C, C_C_PF_DAYS = 0.057, 1.6e7
ALPHA_C_MIN, C_C_MIN_PF_DAYS = 0.050, 3.1e8
ALPHA_B, B_STAR_TOKENS = 0.21, 2e8
"""Table 5; B* as in equation 5.3 (the table has 2.1e8)."""
ALPHA_S, S_C = 0.76, 2.1e3

JOINT_ALPHA_N, JOINT_ALPHA_D, JOINT_N_C, JOINT_D_C = 0.076, 0.103, 6.4e13, 1.8e13
"""L(N, D) fitted as a whole (table 2)."""
STEPS_ALPHA_N, STEPS_N_C = 0.077, 6.5e13
"""L(N, S) fitted as a whole (table 3); its ALPHA_S and S_C are those above."""

PARAMETERS_EXPONENT, PARAMETERS_AT_1_PF_DAY = 0.73, 1.3e9
TOKENS_EXPONENT, TOKENS_AT_1_PF_DAY = 0.27, 2e10
BATCH_EXPONENT, BATCH_TOKENS_AT_1_PF_DAY = 0.24, 2.0e6
STEPS_EXPONENT, STEPS_AT_1_PF_DAY = 0.03, 5.4e3
"""The best use of C_min PF-days (table 6)."""


def loss_of_parameters(parameters: float) -> float:
    """L(N) with text and training without limit (equation 1.1)."""
    return (N_C / parameters) ** ALPHA_N


def loss_of_tokens(tokens: float) -> float:
    """L(D) of a large model that stops early (equation 1.2)."""
    return (D_C / tokens) ** ALPHA_D


def loss_of_compute(pf_days: float, *, best_batch: bool = True) -> float:
    """L(C_min) (equation 1.3), or L(C) at a fixed batch of 2^19 tokens (equation 3.3)."""
    scale, exponent = (C_C_MIN_PF_DAYS, ALPHA_C_MIN) if best_batch else (C_C_PF_DAYS, ALPHA_C)
    return (scale / pf_days) ** exponent


def loss(parameters: float, tokens: float, *, joint_fit: bool = True) -> float:
    """L(N, D) = [(N_c/N)^(α_N/α_D) + D_c/D]^α_D of a model that stops early (equation 1.5).

    joint_fit: constants of table 2; otherwise those of L(N) and L(D) alone (table 5), which people often put here.
    """
    if joint_fit:
        alpha_n, alpha_d, n_c, d_c = JOINT_ALPHA_N, JOINT_ALPHA_D, JOINT_N_C, JOINT_D_C
    else:
        alpha_n, alpha_d, n_c, d_c = ALPHA_N, ALPHA_D, N_C, D_C
    return ((n_c / parameters) ** (alpha_n / alpha_d) + d_c / tokens) ** alpha_d


def loss_of_steps(parameters: float, minimum_steps: float) -> float:
    """L(N, S_min) = (N_c/N)^α_N + (S_c/S_min)^α_S with text without limit (equation 1.6)."""
    return (STEPS_N_C / parameters) ** STEPS_ALPHA_N + (S_C / minimum_steps) ** ALPHA_S


def best_parameters(pf_days: float) -> float:
    """N for C_min PF-days."""
    return PARAMETERS_AT_1_PF_DAY * pf_days**PARAMETERS_EXPONENT


def best_tokens(pf_days: float) -> float:
    """D for C_min PF-days, read once."""
    return TOKENS_AT_1_PF_DAY * pf_days**TOKENS_EXPONENT


def best_steps(pf_days: float) -> float:
    """Least number of steps for C_min PF-days."""
    return STEPS_AT_1_PF_DAY * pf_days**STEPS_EXPONENT


def critical_batch_tokens(loss_nats: float) -> float:
    """B_crit(L) = B*/L^(1/α_B): above it more ranks save less time than they cost (equation 5.3)."""
    return B_STAR_TOKENS / loss_nats ** (1 / ALPHA_B)


def critical_batch_tokens_for_compute(pf_days: float) -> float:
    """B_crit at the best use of C_min PF-days (table 6)."""
    return BATCH_TOKENS_AT_1_PF_DAY * pf_days**BATCH_EXPONENT


def minimum_steps(steps: float, batch_tokens: float, critical_tokens: float) -> float:
    """S_min = S/(1 + B_crit/B): steps that an unlimited batch would need (equation 5.4)."""
    return steps / (1 + critical_tokens / batch_tokens)


def minimum_compute(compute: float, batch_tokens: float, critical_tokens: float) -> float:
    """C_min = C/(1 + B/B_crit): compute that a tiny batch would need, in the unit of `compute` (equation 5.5)."""
    return compute / (1 + batch_tokens / critical_tokens)


def batch_trade_off(batch_tokens: float, critical_tokens: float) -> tuple[float, float]:
    """(S/S_min, E/E_min): steps and tokens as multiples of the least of each.

    They lie on (S/S_min − 1)·(E/E_min − 1) = 1 (McCandlish et al. 2018, arXiv 1812.06162; equation 5.1 of
    Kaplan et al.); at the critical batch both are 2.
    """
    return 1 + critical_tokens / batch_tokens, 1 + batch_tokens / critical_tokens
