"""Recomputation changes memory and nothing else: losses and gradients stay, at any precision and on several ranks."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from firstlight.model import CausalLanguageModel
from firstlight.parallel.blocks import blocks
from firstlight.parallel.recompute import apply_recompute

MODES = ("none", "selective", "full")
TOKENS = torch.randint(97, (2, 33), generator=torch.Generator().manual_seed(0))


def build(mode: str, **fields: Any) -> CausalLanguageModel:
    model = CausalLanguageModel(97, 32, 3, 4, seed=1, **fields)
    if mode != "none":
        apply_recompute(model, mode)
    return model


def step(model: CausalLanguageModel, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Loss and gradients."""
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = model.token_loss(TOKENS[:, :-1], TOKENS[:, 1:], torch.arange(32).expand(2, 32) // 20)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def bytes_kept(model: CausalLanguageModel) -> int:
    """What a forward pass leaves in memory for the backward pass."""
    gc.collect()  # what other tests left behind is not to be freed, and counted, in between
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        hidden = model.model(TOKENS)
    kept = sum(event.self_cpu_memory_usage for event in profiler.events())
    return kept - hidden.untyped_storage().nbytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields", [{"num_key_value_heads": 2, "architecture": "qwen3"}, {"architecture": "gpt2"}])
def test_losses_and_gradients_are_the_same_to_the_last_bit(dtype, fields):
    loss, gradients = step(build("none", **fields), dtype)
    for mode in ("selective", "full"):
        again, others = step(build(mode, **fields), dtype)
        assert torch.equal(loss, again)
        assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))


def test_compiled_with_blocks_they_are_the_same_to_rounding():
    loss, gradients = step(build("none"), torch.float32)
    for mode in ("selective", "full"):
        torch.compiler.reset()
        model = build(mode)
        for block in blocks(model):  # the compiler's own plan of what to keep, without its code generation
            block.compile(fullgraph=True, dynamic=False, backend="aot_eager_decomp_partition")
        again, others = step(model, torch.float32)
        torch.testing.assert_close(again, loss)
        torch.testing.assert_close(others, gradients)
        with torch.compiler.set_stance("fail_on_recompile"):
            step(model, torch.float32)
    torch.compiler.reset()


def test_each_mode_keeps_less_than_the_one_before():
    none, selective, full = (bytes_kept(build(mode)) for mode in MODES)
    assert none > 1.5 * selective > 1.5 * full


def test_full_keeps_the_input_of_a_block_and_nothing_else():
    shallow, deep = (CausalLanguageModel(97, 32, layers, 4) for layers in (3, 5))
    apply_recompute(shallow, "full")
    apply_recompute(deep, "full")
    assert bytes_kept(deep) - bytes_kept(shallow) == 2 * TOKENS.numel() * 32 * 4


def test_parameters_keep_their_names():
    names = [name for name, _ in build("none").named_parameters()]
    assert [name for name, _ in build("selective").named_parameters()] == names
    assert len(blocks(build("full"))) == 3


def test_on_tensor_parallel_ranks_nothing_is_reduced_twice(run_as_ranks):
    run_as_ranks(Path(__file__).with_name("recompute_rank.py"), 2)
