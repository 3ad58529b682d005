"""Float8 training: the matrix products of the blocks in 8 bits, scaled as they are computed, through torchao.

Micikevicius et al. 2022, "FP8 Formats for Deep Learning" (arXiv:2209.05433): e4m3 for activations and weights, e5m2 for
gradients. Weights stay in the precision they have and are cast, with a scale taken from their largest value, at every
use; so parameters, optimizer and checkpoints know nothing of it. The head stays in bf16: its logits decide the loss.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import nn

from firstlight.parallel.blocks import blocks
from firstlight.support.errors import ConfigError

Recipe = Literal["tensorwise", "rowwise"]
MULTIPLE = 16
"""What float8 products ask of every side of a matrix."""


def apply_float8(
    model: nn.Module,
    device: torch.device,
    recipe: Recipe = "tensorwise",
    *,
    tensor: int = 1,
    emulate: bool = False,
) -> None:
    """Let every linear layer of the Transformer blocks multiply in float8, in place; parameter names stay.

    recipe: one scale for a whole tensor, which is fastest, or one for each row, which loses less. Comes before tensor
    parallelism, whose hooks lie on the layers that this replaces; `tensor` is the number of ranks that will divide
    them. emulate: round to float8 but multiply as before, on any hardware. Raises ConfigError when torchao, the
    hardware or a size of the model does not allow it.
    """
    if not emulate:
        check_float8(device)
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig.from_recipe_name(recipe)
    for block in blocks(model):
        _check_sizes(block, tensor)
        convert_to_float8_training(block, config=dataclasses.replace(config, emulate=emulate))


def check_float8(device: torch.device) -> None:
    """ConfigError when torchao is not installed or the hardware has no float8 products."""
    try:
        import torchao.float8  # noqa: F401
    except ImportError:
        raise ConfigError(
            "training.precision fp8 needs torchao, which is not installed: pip install 'firstlight[float8]'."
        ) from None
    needed, what = ((9, 4), "gfx942 (MI300)") if torch.version.hip else ((8, 9), "compute capability 8.9 (Ada, Hopper)")
    if device.type != "cuda":
        have = f"a {device.type} device has no float8 products"
    elif torch.cuda.get_device_capability(device) < needed:
        have = "{} has {}.{}".format(torch.cuda.get_device_name(device), *torch.cuda.get_device_capability(device))
    else:
        return
    raise ConfigError(
        f"training.precision fp8 needs a GPU of {what} or newer, but {have}; use training.precision=bf16."
    )


def _check_sizes(block: nn.Module, tensor: int) -> None:
    shared = f" after division over parallel.tensor {tensor}" if tensor > 1 else ""
    for name, module in block.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        by_input = name.endswith(("o_proj", "down_proj"))
        inputs, outputs = module.in_features, module.out_features
        sides = (inputs // tensor, outputs) if by_input else (inputs, outputs // tensor)
        if any(side % MULTIPLE for side in sides):
            raise ConfigError(
                f"training.precision fp8 needs matrices whose sides are multiples of {MULTIPLE}{shared}, but {name} is "
                f"{sides[0]} → {sides[1]}; change the model's sizes, or use training.precision=bf16."
            )
