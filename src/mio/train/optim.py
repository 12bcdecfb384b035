"""AdamW with weight decay on matrices only, and the cosine schedule with warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Optim:
    lr: float = 3e-4
    warmup: float = 0.03  # share of all steps (MIO, paper 3.3)
    floor: float = 0.05  # final lr as a share of the peak
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip: float = 1.0


def adamw(module: nn.Module, c: Optim) -> torch.optim.AdamW:
    wanted = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in wanted if p.ndim >= 2], "weight_decay": c.weight_decay},
        {"params": [p for p in wanted if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=c.lr, betas=c.betas, fused=True)


def rate(c: Optim, step: int, steps: int) -> float:
    """Learning rate of `step` in 0..steps-1: linear warm-up, then half a cosine down to the floor."""
    warm = max(1, round(c.warmup * steps))
    if step < warm:
        return c.lr * (step + 1) / warm
    along = (step - warm) / max(1, steps - warm)
    return c.lr * (c.floor + (1 - c.floor) * 0.5 * (1 + cos(pi * along)))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat named tensors: no pickle needed to keep it."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, slots in state.items() for name, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
