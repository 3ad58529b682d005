"""Laws of learning rate and batch beside what their authors trained with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.planning.hyperparameter_laws import (
    bergsma_batch_tokens,
    deepseek_allocation,
    deepseek_batch_tokens,
    deepseek_flops_per_token,
    deepseek_learning_rate,
    learning_rate_for_batch,
    minicpm_batch_tokens,
    nanochat_batch_tokens,
    step_law_batch_tokens,
    step_law_learning_rate,
    suggestions,
)


@pytest.mark.parametrize(
    ("layers", "hidden", "rate", "sequences"), [(30, 4096, 4.2e-4, 2304), (95, 8192, 3.2e-4, 4608)]
)
def test_deepseek_7b_and_67b_were_trained_near_their_law(layers, hidden, rate, sequences):
    flops = deepseek_flops_per_token(layers, hidden, 4096) * 2e12
    assert deepseek_learning_rate(flops) == pytest.approx(rate, rel=0.03)
    assert deepseek_batch_tokens(flops) / 4096 == pytest.approx(sequences, rel=0.1)


@given(st.floats(1e17, 1e25))
def test_deepseeks_best_model_and_text_make_up_the_compute(flops):
    per_token, tokens = deepseek_allocation(flops)
    assert per_token * tokens == pytest.approx(flops, rel=2e-4)


def test_step_law():
    assert step_law_learning_rate(7e9, 1.4e12) == pytest.approx(9.17e-4, rel=1e-3)
    assert step_law_learning_rate(1e9, 100e9) == pytest.approx(1.63e-3, rel=3e-3)
    assert step_law_batch_tokens(1.4e12) == pytest.approx(5.00e6, rel=1e-3)
    assert step_law_batch_tokens(100e9) == pytest.approx(1.11e6, rel=3e-3)


def test_minicpm_batches_grow_as_the_loss_falls():
    assert minicpm_batch_tokens(3.0) == pytest.approx(1.276e6, rel=1e-3)
    assert minicpm_batch_tokens(2.0) / minicpm_batch_tokens(4.0) == pytest.approx(2**6.24)


@given(st.floats(1e8, 1e14))
def test_nanochat_rounds_bergsma_to_a_power_of_two(tokens):
    exact, rounded = bergsma_batch_tokens(tokens, 1e10, 2**19), nanochat_batch_tokens(tokens, 1e10)
    assert rounded & (rounded - 1) == 0
    assert 2**-0.5 <= rounded / exact <= 2**0.5


def test_the_reference_run_keeps_its_batch_and_rate():
    assert nanochat_batch_tokens(1e10, 1e10) == 2**19
    assert learning_rate_for_batch(3e-4, 1e6, 1e6) == 3e-4
    assert learning_rate_for_batch(3e-4, 1e6, 4e6) == pytest.approx(6e-4)


def test_suggestions_of_a_run_agree_within_an_order_of_magnitude():
    found = suggestions(30, 4096, 4096, 6.5e9, 2e12)
    assert {suggestion.law for suggestion in found} == {"DeepSeek LLM", "Step Law"}
    rates = [suggestion.learning_rate for suggestion in found]
    batches = [suggestion.batch_tokens for suggestion in found]
    assert max(rates) / min(rates) < 10
    assert max(batches) / min(batches) < 10
