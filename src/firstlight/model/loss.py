"""Vocabulary projection and cross-entropy in one step, a chunk of tokens at a time.

The [tokens, vocabulary] logits are the largest tensor of a small model's training step, and nothing needs them whole:
the gradient of the summed loss with respect to the logits is softmax - onehot, so each chunk's share of both gradients
can be had in the forward pass and the chunk thrown away (Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary
Language Models", arXiv:2411.09009; Hsu et al. 2024, "Liger Kernel", arXiv:2410.10989). The backward pass only scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE_INDEX = -100
CHUNK_TOKENS = {"cpu": 1024}
"""Tokens a chunk by device type. Adding a chunk's weight gradient to the sum moves as many bytes as the weight has, so
its cost relative to the three matrix products falls with the tokens of a chunk, whatever the other sizes."""
CHUNK_TOKENS_ELSEWHERE = 4096
BLOCK_LOGITS = {"cpu": 1 << 19}
"""Logits that go through softmax at once: on a CPU, what stays in the second-level cache as fp32."""
BLOCK_LOGITS_ELSEWHERE = 1 << 27


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    chunk_tokens: int | None = None,
) -> Tensor:
    """Sum over tokens of -log softmax(weight @ hidden + bias)[target], without the whole logits.

    hidden: [..., hidden_size]; weight: [vocabulary, hidden_size]; targets: [...] int64; bias: [vocabulary]. Tokens
    whose target is `ignore_index` add nothing to the loss or to the gradients, but cost as much as the others: where
    most are ignored, select first. Matrix products run in autocast's type where autocast is on, softmax and logarithm
    in fp32 (fp64 inputs: all in fp64); the gradient of `weight` is summed in fp32. `chunk_tokens`: most tokens in a
    chunk; unset: 1024 on a CPU, else 4096. Returns a scalar, fp32 or fp64. Differentiable once.
    """
    hidden, targets = hidden.flatten(0, -2), targets.flatten()
    compute, size = _prepare(hidden, weight, targets, chunk_tokens)
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _LinearCrossEntropy.apply(hidden, weight, targets, bias, ignore_index, compute, size)
    losses, _ = linear_cross_entropy_scores(
        hidden, weight, targets, bias, ignore_index=ignore_index, chunk_tokens=chunk_tokens
    )
    return losses.sum()


@torch.no_grad()
def linear_cross_entropy_scores(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    chunk_tokens: int | None = None,
) -> Tensor:
    """For evaluation, [2, ...] fp32 (fp64 for fp64 inputs), no gradient: the loss of each token, and 1 where no token
    is likelier than the target; both 0 where ignored. Arguments as for `linear_cross_entropy`.
    """
    shape = targets.shape
    hidden, targets = hidden.flatten(0, -2), targets.flatten()
    compute, size = _prepare(hidden, weight, targets, chunk_tokens)
    scores = hidden.new_empty(2, hidden.shape[0], dtype=_precise(compute))
    with torch.autocast(hidden.device.type, enabled=False):
        matrix, shift = weight.to(compute), None if bias is None else bias.to(compute)
        logits = hidden.new_empty(size, weight.shape[0], dtype=compute)
        for chunk in _slices(hidden.shape[0], size):
            losses, hits = scores[:, chunk]
            for block, rows, probability in _softmax(hidden[chunk].to(compute), matrix, shift, logits):
                wanted = targets[chunk][block]
                index = _write_losses(rows, probability, wanted, ignore_index, losses[block])
                hits[block] = (rows.gather(1, index)[:, 0] == rows.amax(1)) & (wanted != ignore_index)
    return scores.view(2, *shape)


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss and both gradients in the forward pass; the backward pass multiplies them by the incoming scalar."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        ignore_index: int,
        compute: torch.dtype,
        size: int,
    ) -> Tensor:
        precise = _precise(compute)
        losses = hidden.new_empty(hidden.shape[0], dtype=precise)
        grad_hidden = torch.empty_like(hidden, dtype=compute) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=precise) if ctx.needs_input_grad[1] else None
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=precise)
        with torch.autocast(hidden.device.type, enabled=False):
            matrix, shift = weight.to(compute), None if bias is None else bias.to(compute)
            logits = hidden.new_empty(size, weight.shape[0], dtype=compute)
            product = torch.empty_like(matrix) if grad_weight is not None else None
            for chunk in _slices(hidden.shape[0], size):
                inputs, ignored = hidden[chunk].to(compute), targets[chunk, None] == ignore_index
                grad_logits = logits[: len(inputs)]
                for block, rows, probability in _softmax(inputs, matrix, shift, logits):
                    index = _write_losses(rows, probability, targets[chunk][block], ignore_index, losses[chunk][block])
                    probability.scatter_add_(1, index, probability.new_full((), -1).expand_as(index))
                    grad_logits[block] = probability
                    if grad_bias is not None:
                        grad_bias += probability.masked_fill_(ignored[block], 0).sum(0)
                if grad_hidden is not None:
                    torch.mm(grad_logits, matrix, out=grad_hidden[chunk]).masked_fill_(ignored, 0)
                if grad_weight is not None:
                    grad_weight += torch.mm(grad_logits.T, inputs.masked_fill(ignored, 0), out=product)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.types = hidden.dtype, weight.dtype, None if bias is None else bias.dtype
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = (
            None if gradient is None else (gradient * grad_loss).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return grad_hidden, grad_weight, None, grad_bias, None, None, None


def _prepare(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int | None) -> tuple[torch.dtype, int]:
    """Check shapes; return the type of the matrix products and the tokens per chunk, evenly divided."""
    assert hidden.ndim == 2 and weight.ndim == 2 and hidden.shape[1] == weight.shape[1], (hidden.shape, weight.shape)
    assert targets.shape == hidden.shape[:1], (targets.shape, hidden.shape)
    assert chunk_tokens is None or chunk_tokens > 0, chunk_tokens
    device = hidden.device.type
    compute = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and compute != torch.float64:
        compute = torch.get_autocast_dtype(device)
    most = chunk_tokens or CHUNK_TOKENS.get(device, CHUNK_TOKENS_ELSEWHERE)
    chunks = max(1, -(-len(hidden) // most))
    return compute, -(-len(hidden) // chunks)


def _precise(compute: torch.dtype) -> torch.dtype:
    return torch.promote_types(compute, torch.float32)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, max(size, 1))]


def _softmax(
    inputs: Tensor, matrix: Tensor, bias: Tensor | None, logits: Tensor
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Fill `logits` ([at least tokens, vocabulary]) with inputs @ matrix.T + bias; yield blocks of rows, their logits
    in fp32 or fp64 and their probabilities, [rows, vocabulary] each; the last is a copy that may be overwritten."""
    logits = torch.mm(inputs, matrix.T, out=logits[: len(inputs)])
    if bias is not None:
        logits += bias
    rows = max(1, BLOCK_LOGITS.get(inputs.device.type, BLOCK_LOGITS_ELSEWHERE) // len(matrix))
    for block in _slices(len(inputs), rows):
        precise = logits[block].to(_precise(logits.dtype))
        yield block, precise, precise.softmax(1)


def _write_losses(logits: Tensor, probability: Tensor, targets: Tensor, ignore_index: int, losses: Tensor) -> Tensor:
    """Write log sum exp(logits) - logits[target], 0 where ignored, to `losses` [rows]; return the index, [rows, 1].

    The largest probability is exp(largest logit) / sum exp(logits) and at least 1 / vocabulary, so its logarithm gives
    the normalizer without a second exponential of every logit.
    """
    ignored = targets == ignore_index
    index = targets.masked_fill(ignored, 0)[:, None]
    normalizer = logits.amax(1) - probability.amax(1).log()
    losses.copy_((normalizer - logits.gather(1, index)[:, 0]).masked_fill_(ignored, 0))
    return index
