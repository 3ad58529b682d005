"""Norms over all processes: of the gradient, in one sum with the loss of a step, and of the parameters.

Every rank adds the squares of the parts it holds, each divided by the number of ranks that hold the same part; so
whatever the layout, the sum over all ranks is the square of the norm of the whole gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from firstlight.parallel.parallel_model import ParallelModel
from firstlight.support.parts import local_part


@torch.no_grad()
def reduce_step(model: ParallelModel, loss: Tensor, *flags: bool) -> list[float]:
    """[loss, norm of all gradients, flags…] over all processes; the flags as the number of processes that set them.

    loss: scalar, this rank's part; the ranks of a tensor-parallel group have the same part. One collective, and one
    transfer to the host.
    """
    gradients = {name: (p, p.grad) for name, p in model.named_parameters() if p.grad is not None}
    squares = _squares(model, gradients)
    share = loss.to(squares.dtype) / model.ranks.layout.tensor
    values = torch.stack([share, squares, *(torch.tensor(float(flag)).to(squares) for flag in flags)])
    loss_sum, total, *counts = model.ranks.sum_over_all(values).tolist()
    return [loss_sum, total**0.5 if total >= 0 else total, *counts]


@torch.no_grad()
def parameter_norm(model: ParallelModel) -> float:
    """L2 norm of all parameters, over all processes; one collective."""
    held = {name: (parameter, parameter) for name, parameter in model.named_parameters()}
    return float(model.ranks.sum_over_all(_squares(model, held))) ** 0.5


def _squares(model: ParallelModel, tensors: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Sum of the squares of this rank's part: scalar. tensors: {name: (parameter, it or its gradient)}."""
    device = model.ranks.device
    held: dict[int, list[Tensor]] = defaultdict(list)
    for name, (parameter, tensor) in tensors.items():
        part = local_part(tensor)
        if part.numel():
            held[model.copies(name, parameter)].append(part)
    squares = torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
    for copies, parts in held.items():
        squares += torch.nn.utils.get_total_norm(parts).to(squares.dtype).square() / copies
    return squares


@torch.no_grad()
def scale_gradients(model: ParallelModel, factor: float) -> None:
    """Multiply every gradient by `factor`."""
    if factor != 1.0:
        parts = [local_part(p.grad) for _, p in model.named_parameters() if p.grad is not None]
        torch._foreach_mul_(parts, factor)
