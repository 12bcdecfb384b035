"""The head's product and its cross-entropy, some targets at a time: the logits of all of them never exist at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOGITS = 1 << 23  # that exist at once: many enough for large products, few enough that memory is not the limit


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T`, (M, D) and (V, D), for `targets` (M,).

    Returns the sum over targets, each as often as `weights` (M,) says, and every target's loss without a gradient.
    """
    kind = hidden.device.type
    hidden = hidden.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype)
    total, losses = _HeadLosses.apply(hidden, weight, targets, weights, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return total, losses


class _HeadLosses(torch.autograd.Function):
    """Gradients are formed in the forward pass, while a chunk's logits are there: no product is done twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, learn: bool
    ) -> tuple[Tensor, Tensor]:
        rows, head = max(1, LOGITS // len(weight)), weight.to(hidden.dtype)
        room = hidden.new_empty(min(rows, len(hidden)), len(weight))
        losses = torch.empty_like(weights)
        of_hidden = torch.empty_like(hidden) if learn and ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=torch.float32) if learn and ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), rows):
            mine = slice(start, start + rows)
            logits = torch.mm(hidden[mine], head.T, out=room[: len(hidden[mine])])
            losses[mine], slopes, shares = _chunk(logits, targets[mine, None], weights[mine, None])
            if of_hidden is not None:
                torch.mm(slopes, head, out=of_hidden[mine]).mul_(shares)
            if of_weight is not None:
                _add_product(of_weight, slopes.T, (hidden[mine] * shares).to(slopes.dtype))
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        of_hidden, of_weight = (None if g is None else g.mul_(grad) for g in ctx.saved_tensors)
        return of_hidden, of_weight, None, None, None


def _chunk(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (m,), and the gradient of their weighted sum with respect to `logits` (m, V) in two factors: `slopes`
    (m, V), written over the logits, and `shares` (m, 1). A thin factor left out saves a pass over the wide one."""
    wide = logits.float()
    top, at_target = wide.amax(-1, keepdim=True), wide.gather(1, targets)
    total = wide.sub_(top).exp_().sum(-1, keepdim=True)
    wide.scatter_add_(1, targets, -total)
    return (total.log() + top - at_target)[:, 0], wide.to(logits.dtype), weights / total


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
