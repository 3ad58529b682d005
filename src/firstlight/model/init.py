"""Initial weights that depend on the seed and the parameter's name, and on nothing else.

Each parameter has its own generator, seeded by (seed, name), and is drawn whole in fp32 on the CPU; so the same model
comes out at any device, order of construction and sharding. Scheme: matrices and embeddings from a normal distribution
of standard deviation `initializer_range`; in pre-norm models the two projections of a block that write to the residual
stream divided by sqrt(2 · num_hidden_layers), so that its variance does not grow with depth (Radford et al. 2019,
section 2.3; Megatron-LM, Shoeybi et al. 2019, arXiv:1909.08053, section 3); norms 1, biases 0.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from firstlight.config import ModelConfig
from firstlight.support.parts import part_of

RESIDUAL_PROJECTIONS = ("o_proj.weight", "down_proj.weight")
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


@torch.no_grad()
def init_weights(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter of `model`, sharded ones (DTensor) with their part of the whole."""
    for name, parameter in model.named_parameters():
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, "")
        part = part_of(parameter)
        part.local.copy_(part.of(initial_value(name, parameter.shape, config, seed)))


def initial_value(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """The whole initial value of the parameter called `name`: `shape`, fp32, on the CPU."""
    if name.endswith("bias"):
        return torch.zeros(shape, device="cpu", dtype=torch.float32)
    if len(shape) == 1:
        return torch.ones(shape, device="cpu", dtype=torch.float32)
    deviation = config.initializer_range
    if config.family.norm_place == "pre" and name.endswith(RESIDUAL_PROJECTIONS):
        deviation /= math.sqrt(2 * config.num_hidden_layers)
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.empty(shape, device="cpu", dtype=torch.float32).normal_(0.0, deviation, generator=generator)
