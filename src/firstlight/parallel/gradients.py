"""Global gradient norm and the loss of a step, in one sum over all processes.

Every rank adds the squares of the parts it holds, each divided by the number of ranks that hold the same part; so
whatever the layout, the sum over all ranks is the square of the norm of the whole gradient.
"""

from __future__ import annotations

from collections import defaultdict

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
    held: dict[int, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = local_part(parameter.grad)
            if part.numel():
                held[model.copies(name, parameter)].append(part)
    squares = torch.zeros((), dtype=torch.float64 if loss.device.type == "cpu" else torch.float32, device=loss.device)
    for copies, parts in held.items():
        squares += torch.nn.utils.get_total_norm(parts).to(squares.dtype).square() / copies
    share = loss.to(squares.dtype) / model.ranks.layout.tensor
    values = torch.stack([share, squares, *(torch.tensor(float(flag)).to(squares) for flag in flags)])
    loss_sum, total, *counts = model.ranks.sum_over_all(values).tolist()
    return [loss_sum, total**0.5 if total >= 0 else total, *counts]


@torch.no_grad()
def scale_gradients(model: ParallelModel, factor: float) -> None:
    """Multiply every gradient by `factor`."""
    if factor != 1.0:
        parts = [local_part(p.grad) for _, p in model.named_parameters() if p.grad is not None]
        torch._foreach_mul_(parts, factor)
