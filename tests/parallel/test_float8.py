"""Float8 layers are close to bf16 ones, forward and backward, and what cannot run is refused in one sentence."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from firstlight.model import CausalLanguageModel
from firstlight.parallel.blocks import blocks
from firstlight.parallel.float8 import apply_float8
from firstlight.support.errors import ConfigError

CPU = torch.device("cpu")
TOKENS = torch.randint(96, (2, 65), generator=torch.Generator().manual_seed(0))


def build() -> CausalLanguageModel:
    return CausalLanguageModel(96, 64, 2, 4, seed=1, initializer_range=0.1)


def step(model: CausalLanguageModel) -> tuple[float, list[torch.Tensor]]:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.token_loss(TOKENS[:, :-1], TOKENS[:, 1:]) / TOKENS[:, 1:].numel()
    loss.backward()
    return loss.item(), [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_losses_and_gradients_are_close_to_bf16_and_not_equal(recipe):
    plain, converted = build(), build()
    apply_float8(converted, CPU, recipe, emulate=True)
    (loss, gradients), (again, others) = step(plain), step(converted)
    assert again == pytest.approx(loss, rel=0.01)
    similarity = [
        torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in zip(gradients, others, strict=True)
    ]
    assert min(similarity) > 0.95
    assert not any(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


def test_only_the_blocks_are_converted_and_names_stay():
    model = build()
    names = [name for name, _ in model.named_parameters()]
    apply_float8(model, CPU, emulate=True)
    assert [name for name, _ in model.named_parameters()] == names
    linear = [module for block in blocks(model) for module in block.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 2 * 7
    assert all(type(module) is not nn.Linear for module in linear)
    assert type(model.lm_head) is nn.Linear


def test_a_model_without_memory_is_converted_and_filled():
    with torch.device("meta"):
        model = CausalLanguageModel(96, 64, 2, 4, initializer_range=0.1)
    apply_float8(model, CPU, emulate=True)
    model.to_empty(device="cpu")
    model.init_weights(1)
    eager = build()
    apply_float8(eager, CPU, emulate=True)
    assert step(model)[0] == step(eager)[0]


def test_a_device_without_float8_is_refused():
    with pytest.raises(ConfigError, match=r"compute capability 8.9 .* but a cpu device has no float8"):
        apply_float8(build(), CPU)


def test_an_older_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    with pytest.raises(ConfigError, match=r"but NVIDIA A100 has 8.0; use training.precision=bf16"):
        apply_float8(build(), torch.device("cuda"))


@pytest.mark.parametrize(
    ("fields", "tensor", "part"),
    [
        ({"hidden_size": 40}, 1, "multiples of 16, but self_attn.q_proj is 40 → 40"),
        ({"intermediate_size": 72}, 1, "multiples of 16, but mlp.gate_proj is 64 → 72"),
        ({"num_key_value_heads": 2}, 4, "parallel.tensor 4, but self_attn.k_proj is 64 → 8"),
        ({"intermediate_size": 80}, 2, "parallel.tensor 2, but mlp.gate_proj is 64 → 40"),
    ],
)
def test_sides_that_are_no_multiples_are_refused(fields, tensor, part):
    model = CausalLanguageModel(**{"vocab_size": 96, "hidden_size": 64, "num_layers": 1, "num_heads": 4, **fields})
    with pytest.raises(ConfigError, match=part):
        apply_float8(model, CPU, tensor=tensor, emulate=True)


def test_without_torchao_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ConfigError, match=r"pip install 'firstlight\[float8\]'"):
        apply_float8(build(), CPU)
