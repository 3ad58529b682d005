"""The laws of Kaplan et al.: printed values, and that the forms agree in their limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstlight.planning import kaplan

sizes = st.floats(1e6, 1e13)


@pytest.mark.parametrize(("loss", "tokens"), [(3.0, 1.07e6), (2.5, 2.55e6), (2.0, 7.37e6)])
def test_critical_batches(loss, tokens):
    assert kaplan.critical_batch_tokens(loss) == pytest.approx(tokens, rel=2e-3)


def test_the_critical_batch_doubles_for_13_per_cent_less_loss():
    assert kaplan.critical_batch_tokens(0.87) / kaplan.critical_batch_tokens(1.0) == pytest.approx(2, rel=0.05)


@given(sizes)
def test_without_a_limit_on_one_side_the_joint_form_is_the_single_one(size):
    assert kaplan.loss(size, 1e30, joint_fit=False) == pytest.approx(kaplan.loss_of_parameters(size), rel=1e-6)
    assert kaplan.loss(1e30, size, joint_fit=False) == pytest.approx(kaplan.loss_of_tokens(size), rel=1e-6)


@given(sizes, sizes)
def test_more_parameters_and_more_tokens_lower_the_loss(parameters, tokens):
    here = kaplan.loss(parameters, tokens)
    assert kaplan.loss(2 * parameters, tokens) < here
    assert kaplan.loss(parameters, 2 * tokens) < here


@given(st.floats(1e-6, 1e6))
def test_the_best_parts_make_up_the_compute(pf_days):
    """6·N·D of the best N and D is C_min but for the rounding of what is printed: within a factor of 2."""
    flops = 6 * kaplan.best_parameters(pf_days) * kaplan.best_tokens(pf_days)
    assert 0.5 < flops / (pf_days * kaplan.PF_DAY) < 2
    batches = kaplan.best_steps(pf_days) * kaplan.critical_batch_tokens_for_compute(pf_days)
    assert 0.5 < batches / kaplan.best_tokens(pf_days) < 2


@given(st.floats(1e3, 1e9), st.floats(1e3, 1e9))
def test_steps_and_tokens_trade_off_on_the_hyperbola(batch, critical):
    steps, tokens = kaplan.batch_trade_off(batch, critical)
    assert (steps - 1) * (tokens - 1) == pytest.approx(1)
    assert kaplan.minimum_steps(steps, batch, critical) == pytest.approx(1)
    assert kaplan.minimum_compute(tokens, batch, critical) == pytest.approx(1)


def test_at_the_critical_batch_both_are_twice_the_least():
    assert kaplan.batch_trade_off(2e6, 2e6) == (2, 2)


def test_steps_without_end_leave_the_loss_of_the_size():
    floor = (kaplan.STEPS_N_C / 1e9) ** kaplan.STEPS_ALPHA_N
    assert kaplan.loss_of_steps(1e9, 1e12) == pytest.approx(floor, rel=1e-5)
    assert kaplan.loss_of_compute(1.0) == pytest.approx(2.66, abs=0.01)
    assert kaplan.loss_of_compute(1.0, best_batch=False) == pytest.approx(2.57, abs=0.01)
