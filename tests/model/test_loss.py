"""The chunked head equals the plain head, losses and gradients, at any chunk, block, type and share of ignored rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from firstlight.model import loss as loss_module
from firstlight.model.loss import IGNORE_INDEX, linear_cross_entropy, linear_cross_entropy_scores


def problem(tokens, vocabulary=29, size=8, ignored=0.3, dtype=torch.float64, seed=0):
    """hidden [tokens, size], weight [vocabulary, size], targets [tokens] with about `ignored` of them -100."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, size, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, size, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, vocabulary, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) < ignored] = IGNORE_INDEX
    return hidden, weight, targets


def plain(hidden, weight, targets, reduction="sum"):
    return F.cross_entropy(F.linear(hidden, weight), targets, reduction=reduction)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(0, 40),
    vocabulary=st.integers(1, 40),
    chunk=st.one_of(st.none(), st.integers(1, 50)),
    block=st.integers(1, 200),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_loss_and_gradients_equal_the_plain_head(tokens, vocabulary, chunk, block, ignored, seed):
    hidden, weight, targets = problem(tokens, vocabulary, ignored=ignored, seed=seed)
    expected = plain(hidden, weight, targets)
    expected_grads = torch.autograd.grad(expected, (hidden, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss_module.BLOCK_LOGITS, "cpu", block)
        total = linear_cross_entropy(hidden, weight, targets, chunk_tokens=chunk)
        per_token = linear_cross_entropy_scores(hidden, weight, targets, chunk_tokens=chunk)[0]
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(per_token, plain(hidden, weight, targets, "none").detach())
    torch.testing.assert_close(torch.autograd.grad(total, (hidden, weight)), expected_grads)


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 40), vocabulary=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 1000))
def test_a_bias_a_token_is_that_of_the_plain_head(tokens, vocabulary, chunk, seed):
    hidden, weight, targets = problem(tokens, vocabulary, seed=seed)
    bias = torch.randn(vocabulary, dtype=torch.float64, requires_grad=True)
    inputs = (hidden, weight, bias)
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="sum")
    total = linear_cross_entropy(hidden, weight, targets, bias, chunk_tokens=chunk)
    losses, hits = linear_cross_entropy_scores(hidden, weight, targets, bias, chunk_tokens=chunk)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(losses.sum(), expected.detach())
    torch.testing.assert_close(torch.autograd.grad(total, inputs), torch.autograd.grad(expected, inputs))
    assert torch.equal(hits.bool(), F.linear(hidden, weight, bias).argmax(1) == targets)


def test_gradcheck():
    hidden, weight, targets = problem(11, 13, 4)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, chunk_tokens=4), (hidden, weight))


@pytest.mark.parametrize("kinds", [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)])
def test_bf16_autocast_is_as_near_to_fp64_as_the_plain_head(kinds):
    hidden, weight, targets = problem(600, 500, 32)
    expected = plain(hidden, weight, targets)
    expected_grads = torch.autograd.grad(expected, (hidden, weight))
    low = [x.detach().to(kind).requires_grad_() for x, kind in zip((hidden, weight), kinds, strict=True)]

    def distances(head):
        with torch.autocast("cpu", torch.bfloat16):
            total = head(*low, targets)
        grads = torch.autograd.grad(total, low)
        assert [grad.dtype for grad in grads] == list(kinds)
        errors = [
            (grad.double() - other).norm() / other.norm() for grad, other in zip(grads, expected_grads, strict=True)
        ]
        return torch.stack([(total.double() - expected).abs() / expected, *errors]).detach()

    ours, plains = distances(lambda *x: linear_cross_entropy(*x, chunk_tokens=100)), distances(plain)
    assert (ours < 0.01).all()
    assert (ours < 1.5 * plains + 1e-4).all(), (ours, plains)


def test_result_is_fp32_under_autocast_and_for_low_precision_inputs():
    hidden, weight, targets = problem(20, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_cross_entropy(hidden, weight, targets).dtype == torch.float32
        assert linear_cross_entropy_scores(hidden, weight, targets)[0].dtype == torch.float32
    assert linear_cross_entropy(hidden.bfloat16(), weight.bfloat16(), targets).dtype == torch.float32


def test_weight_gradient_is_summed_in_fp32():
    """Many chunks of small, equal contributions: a bf16 sum stops growing at 256 times its addend."""
    tokens = 2048
    hidden = torch.ones(tokens, 1)
    weight = torch.zeros(2, 1, requires_grad=True)
    targets = torch.zeros(tokens, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=1).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([[-0.5], [0.5]]) * tokens)


def test_upstream_factor_retained_graph_and_shared_inputs():
    hidden, weight, targets = problem(21)
    expected = torch.autograd.grad(plain(hidden, weight, targets), (hidden, weight))
    total = linear_cross_entropy(hidden, weight, targets, chunk_tokens=8)
    for factor in (0.25, 3.0):
        grads = torch.autograd.grad(total * factor, (hidden, weight), retain_graph=True)
        torch.testing.assert_close(grads, tuple(factor * grad for grad in expected))
    twice = linear_cross_entropy(hidden, weight, targets) + linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(torch.autograd.grad(twice, weight)[0], 2 * expected[1])


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_one_frozen_input(trained):
    hidden, weight, targets = problem(21)
    frozen, free = (weight, hidden) if trained == "hidden" else (hidden, weight)
    frozen.requires_grad_(False)
    total = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(
        torch.autograd.grad(total, free), torch.autograd.grad(plain(hidden, weight, targets), free)
    )


def test_ignored_rows_have_no_gradient():
    hidden, weight, targets = problem(30, ignored=0.5)
    linear_cross_entropy(hidden, weight, targets).backward()
    ignored = targets == IGNORE_INDEX
    assert ignored.any() and (hidden.grad[ignored] == 0).all() and (hidden.grad[~ignored] != 0).any(1).all()


def test_other_ignore_index():
    hidden, weight, targets = problem(30, ignored=0.0)
    expected = F.cross_entropy(F.linear(hidden, weight), targets, ignore_index=3, reduction="sum")
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets, ignore_index=3), expected)


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    weight = torch.tensor([[1e4], [0.0], [-1e4]], requires_grad=True)
    targets = torch.tensor([0, 0])
    total = linear_cross_entropy(hidden, weight, targets)
    total.backward()
    torch.testing.assert_close(total.item(), 2e4)
    assert hidden.grad.isfinite().all() and weight.grad.isfinite().all()


def test_target_outside_the_vocabulary_is_refused():
    hidden, weight, targets = problem(5, vocabulary=7, ignored=0.0)
    targets[2] = 7
    with pytest.raises((RuntimeError, IndexError)):
        linear_cross_entropy(hidden, weight, targets)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns, and the number of matrix products."""

    def __init__(self):
        super().__init__()
        self.elements, self.products = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        self.products += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return result


def test_whole_logits_never_exist_and_no_gradient_means_no_gradient_work():
    hidden, weight, targets = problem(300, vocabulary=200, size=4)
    with LargestTensor() as training:
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=10).backward()
    assert training.elements == 10 * 200
    assert training.products == 3 * 30
    with LargestTensor() as evaluation, torch.no_grad():
        linear_cross_entropy(hidden, weight, targets, chunk_tokens=10)
    assert evaluation.elements == 10 * 200
    assert evaluation.products == 30
