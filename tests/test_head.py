"""train/head.py: chunks of the head and the loss change memory and time, never a number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from mio.train import head
from mio.train.footprint import LiveBytes
from mio.train.head import head_losses

V, D = 11, 5


def problem(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states and head, both learned; targets, and how often each counts."""
    torch.manual_seed(seed)
    hidden, weight = torch.randn(count, D), torch.randn(V, D)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(0, V, (count,)), torch.rand(count)


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    losses = F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")
    return losses @ weights, losses.detach()


@given(st.integers(1, 9), st.integers(1, 4 * V), st.integers(0, 99))
def test_values_and_gradients_are_those_of_plain_cross_entropy(count: int, room: int, seed: int) -> None:
    hidden, weight, targets, weights = problem(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "LOGITS", room)
        got = head_losses(hidden, weight, targets, weights)
    expected = plain(hidden, weight, targets, weights)
    assert_close(got, expected, atol=1e-6, rtol=1e-6)
    slopes = [torch.autograd.grad(3 * total, (hidden, weight)) for total, _ in (got, expected)]  # a later factor counts
    assert_close(slopes[0], slopes[1], atol=1e-6, rtol=1e-6)


def test_logits_far_apart_give_neither_infinity_nor_nan() -> None:
    hidden = torch.full((2, D), 100.0, requires_grad=True)
    weight = torch.linspace(-9, 9, V)[:, None].repeat(1, D).requires_grad_()
    args = hidden, weight, torch.tensor([0, V - 1]), torch.ones(2)
    assert_close(head_losses(*args), plain(*args))
    assert_close(torch.autograd.grad(head_losses(*args)[0], hidden), torch.autograd.grad(plain(*args)[0], hidden))


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient_and_the_other_keeps_its_own(frozen: int) -> None:
    args = problem(4)
    args[frozen].requires_grad_(False)
    learned = args[1 - frozen]
    assert_close(
        torch.autograd.grad(head_losses(*args)[0], learned),
        torch.autograd.grad(plain(*args)[0], learned),
        atol=1e-6,
        rtol=1e-6,
    )


@torch.no_grad()
def test_without_gradients_it_only_measures() -> None:
    total, losses = head_losses(*problem(4))
    assert not total.requires_grad
    assert_close((total, losses), plain(*problem(4)))


def test_the_losses_of_single_targets_carry_no_gradient() -> None:
    assert not head_losses(*problem(4))[1].requires_grad


def test_no_target_is_a_loss_of_zero_with_zero_gradients() -> None:
    hidden, weight, targets, weights = problem(0)
    total, losses = head_losses(hidden, weight, targets, weights)
    total.backward()
    assert_close(total.detach(), torch.tensor(0.0))
    assert losses.numel() == 0
    assert_close(weight.grad, torch.zeros(V, D))


def test_a_second_backward_pass_is_refused_and_not_wrong() -> None:
    total, _ = head_losses(*problem(4))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_bf16_products_sum_the_heads_gradient_in_fp32() -> None:
    hidden, weight, targets, weights = problem(64)
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(head, "LOGITS", V)  # one target at a time: 64 roundings, were the sum bf16
        total, _ = head_losses(hidden, weight, targets, weights)
    exact = plain(hidden, weight, targets, weights)[0]
    got, expected = (torch.autograd.grad(t, weight)[0] for t in (total, exact))
    assert_close(total, exact, atol=0, rtol=5e-3)
    assert float((got - expected).norm() / expected.norm()) < 5e-3


def extra(losses: Callable[..., tuple[Tensor, Tensor]]) -> int:
    """Bytes at the peak of a forward and backward pass over MIO's vocabulary, beyond what is there before it."""
    with FakeTensorMode(), LiveBytes() as live:
        hidden, weight = torch.empty(2048, 512, requires_grad=True), torch.empty(76_294, 512, requires_grad=True)
        before = live.live
        losses(hidden, weight, torch.zeros(2048, dtype=torch.long), torch.ones(2048))[0].backward()
        return live.peak - before


def test_over_mios_vocabulary_it_takes_less_than_a_quarter_of_the_memory() -> None:
    gradient = 4 * 76_294 * 512  # which either leaves
    assert gradient < extra(head_losses) < extra(plain) / 4
