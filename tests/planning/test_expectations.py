"""What the laws together say of a run."""

import pytest

from firstlight.config import ModelConfig
from firstlight.planning.expectations import LOSS_LAWS, expectations
from firstlight.planning.flops import parameter_count


def model(hidden=4096, layers=32, **sizes):
    return ModelConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=32, vocab_size=32000, **sizes)


LLAMA = model(intermediate_size=11008).resolved(None, 2048)


def test_llama_7b_on_a_trillion_tokens_is_what_the_papers_say():
    expected = expectations(LLAMA, 2048, 1e12)
    assert expected.parameters == parameter_count(LLAMA) == 6_738_415_616
    # L(7B, 1T) is 2.036 with Hoffmann's constants and 2.084 with Besiroglu's.
    assert expected.losses["Hoffmann 2022"] == pytest.approx(2.036, abs=0.004)
    assert expected.losses["Besiroglu 2024"] == pytest.approx(2.084, abs=0.004)
    assert set(expected.losses) == set(LOSS_LAWS)


def test_every_optimum_uses_the_compute_of_the_run():
    expected = expectations(LLAMA, 2048, 1e12)
    for best in expected.optimal.values():
        assert best.flops == pytest.approx(6 * expected.parameters * 1e12, rel=1e-9)
    assert expected.overtraining.loss_penalty >= 0


def test_repeated_text_is_worth_less_and_the_loss_is_higher():
    new, repeated = expectations(LLAMA, 2048, 1e12), expectations(LLAMA, 2048, 1e12, 4e11)
    assert all(repeated.losses[law] > new.losses[law] for law in LOSS_LAWS)
    assert repeated.optimal == new.optimal


def test_more_tokens_never_raise_a_loss():
    losses = [expectations(LLAMA, 2048, tokens).losses for tokens in (1e10, 1e11, 1e12, 1e13)]
    for law in LOSS_LAWS:
        values = [step[law] for step in losses]
        assert values == sorted(values, reverse=True)


def test_small_models_are_outside_what_was_fitted():
    assert not expectations(LLAMA, 2048, 1e12).extrapolated
    assert expectations(model(256, 4).resolved(None, 256), 256, 1e7).extrapolated
