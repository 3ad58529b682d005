"""Every block is one graph, and no later step compiles again: what per-block compilation from outside relies on."""

from __future__ import annotations

import torch

from firstlight.model import CausalLanguageModel


def test_blocks_compile_whole_and_once(model: CausalLanguageModel) -> None:
    inputs = torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0] * 5 + [1] * 11] * 2)
    plain = [model.token_loss(inputs, inputs), model.token_loss(inputs, inputs, documents)]
    torch.compiler.reset()
    for block in model.model.layers:
        block.compile(fullgraph=True, dynamic=False, backend="eager")

    def step() -> list[torch.Tensor]:
        losses = [model.token_loss(inputs, inputs), model.token_loss(inputs, inputs, documents)]
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model.token_loss(inputs, inputs))
        sum(losses).backward()
        return losses[:2]

    torch.testing.assert_close(step(), plain)
    with torch.compiler.set_stance("fail_on_recompile"):
        step()
        step()
    torch.compiler.reset()
