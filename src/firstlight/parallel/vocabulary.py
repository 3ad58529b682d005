"""The loss parallel: every rank holds some rows of the vocabulary's matrix, and no rank ever sees whole logits.

As in `firstlight.model.loss` a chunk of tokens at a time makes its share of both gradients in the forward pass. What
the ranks tell each other is three numbers a token (largest logit, sum of exponentials, the target's logit), in one
gather a chunk (Shoeybi et al. 2019, arXiv:1909.08053, section 3). Rows may be divided unevenly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate

from firstlight.model.loss import IGNORE_INDEX
from firstlight.model.norm import matmul_dtype
from firstlight.parallel.collectives import all_gather

CHUNK_TOKENS = 4096
"""Most tokens whose logits exist at once."""


class VocabularyParallelLoss:
    """`loss_sum` and `loss_scores` of a model whose head is divided by rows over `mesh` (one dimension)."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh
        self.group = mesh.get_group()

    def sum(self, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `linear_cross_entropy`: hidden [..., hidden_size], a DTensor or whole; weight, bias: DTensors of
        [vocabulary, hidden_size] and [vocabulary], sharded by rows; targets [...] int64, the same on every rank."""
        inputs, rows, shift, first = self._local(hidden, weight, bias)
        flat, wanted = inputs.flatten(0, -2), targets.flatten()
        if torch.is_grad_enabled() and (inputs.requires_grad or rows.requires_grad):
            return _Loss.apply(flat, rows, shift, wanted, first, self.group, matmul_dtype(inputs))
        return self.scores(hidden, weight, targets, bias)[0].sum()

    @torch.no_grad()
    def scores(self, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `linear_cross_entropy_scores`; arguments as for `sum`."""
        inputs, rows, shift, first = self._local(hidden, weight, bias)
        compute = matmul_dtype(inputs)
        flat, matrix = targets.flatten(), rows.to(compute)
        parts = []
        with torch.autocast(inputs.device.type, enabled=False):
            for chunk, wanted in zip(
                inputs.flatten(0, -2).to(compute).split(CHUNK_TOKENS), flat.split(CHUNK_TOKENS), strict=True
            ):
                best = _combine(_logits(chunk, matrix, shift), wanted, first, self.group)
                hits = best.target_logit == best.largest
                parts.append(
                    torch.stack((best.normalizer - best.target_logit, hits)).masked_fill(wanted == IGNORE_INDEX, 0)
                )
        return torch.cat(parts, 1).view(2, *targets.shape)

    def _local(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, int]:
        """Whole hidden states, this rank's rows and biases, and the number of its first row.

        The gradient of the hidden states is a part of the whole on every rank; the way back sums it."""
        assert isinstance(weight, DTensor)
        if not isinstance(hidden, DTensor):
            hidden = DTensor.from_local(hidden, self.mesh, [Replicate()], run_check=False)
        whole = hidden.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])
        rows_each = -(-weight.shape[0] // self.mesh.size())  # as torch.chunk divides
        first = min(rows_each * self.mesh.get_local_rank(), weight.shape[0])
        shift = bias.to_local() if isinstance(bias, DTensor) else None
        return whole, weight.to_local(), shift, first


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        rows: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        first: int,
        group: dist.ProcessGroup,
        compute: torch.dtype,
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden, dtype=compute)
        grad_rows = torch.zeros_like(rows, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            matrix = rows.to(compute)
            for start in range(0, len(hidden), CHUNK_TOKENS):
                part = slice(start, start + CHUNK_TOKENS)
                inputs, wanted = hidden[part].to(compute), targets[part]
                ignored = wanted == IGNORE_INDEX
                logits = _logits(inputs, matrix, bias)
                best = _combine(logits, wanted, first, group)
                total += (best.normalizer - best.target_logit).masked_fill_(ignored, 0).sum()
                gradient = logits.sub_(best.normalizer[:, None]).exp_()
                if len(rows):
                    mine = (best.column >= 0).to(gradient.dtype)
                    gradient.scatter_add_(1, best.column.clamp(min=0)[:, None], -mine[:, None])
                gradient = gradient.masked_fill_(ignored[:, None], 0)
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                gradient = gradient.to(compute)
                grad_hidden[part] = gradient @ matrix
                grad_rows += gradient.T @ inputs
        ctx.save_for_backward(grad_hidden, grad_rows, grad_bias)
        ctx.types = hidden.dtype, rows.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_rows, grad_bias = ctx.saved_tensors
        return (
            (grad_hidden * grad_loss).to(ctx.types[0]),
            (grad_rows * grad_loss).to(ctx.types[1]),
            None if grad_bias is None else (grad_bias * grad_loss).to(ctx.types[1]),
            *(None,) * 4,
        )


def _logits(inputs: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """[tokens, rows of this rank] fp32."""
    logits = (inputs @ matrix.T).float()
    return logits if bias is None else logits.add_(bias.float())


class _Best(NamedTuple):
    """What all ranks know of the logits of each token, [tokens] each."""

    normalizer: Tensor
    """Log of the sum of all exponentials."""
    target_logit: Tensor
    largest: Tensor
    column: Tensor
    """Of the target on this rank, or -1."""


def _combine(logits: Tensor, targets: Tensor, first: int, group: dist.ProcessGroup) -> _Best:
    """logits: [tokens, rows of this rank] fp32; targets: [tokens], numbers in the whole vocabulary."""
    index = targets - first
    index = torch.where((index >= 0) & (index < logits.shape[1]), index, -1)
    mine = torch.full((3, len(targets)), float("-inf"), device=logits.device)
    if logits.shape[1]:
        mine[0] = logits.amax(1)
        mine[1] = (logits - mine[0][:, None]).exp().sum(1)
        mine[2] = logits.gather(1, index.clamp(min=0)[:, None])[:, 0].masked_fill(index < 0, float("-inf"))
    else:
        mine[1] = 0
    everyone = all_gather(mine, group).view(-1, *mine.shape)
    largest = everyone[:, 0].amax(0)
    total = (everyone[:, 1] * (everyone[:, 0] - largest).exp()).sum(0)
    return _Best(largest + total.log(), everyone[:, 2].amax(0), largest, index)
