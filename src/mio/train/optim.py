"""AdamW with weight decay on matrices only, Muon for hidden matrices where asked, and the cosine schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Optim:
    """`muon`: weights of hidden linear layers learn by orthogonalised momentum (Jordan et al., 2024), scaled so that
    `lr` means what it means for AdamW, which keeps embeddings, head and vectors."""

    lr: float = 3e-4
    warmup: float = 0.03  # share of all steps (MIO, paper 3.3)
    floor: float = 0.05  # final lr as a share of the peak
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip: float = 1.0
    muon: bool = False


def optimizers(module: nn.Module, c: Optim) -> list[torch.optim.Optimizer]:
    """What trains `module`: every parameter belongs to exactly one of them."""
    if not c.muon:
        return [adamw(module, c)]
    hidden = hidden_matrices(module)
    muon = torch.optim.Muon(
        hidden, lr=c.lr, weight_decay=c.weight_decay, momentum=c.betas[1], adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adamw(module, c, without=hidden)]


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of linear layers, without those that read from or write to a vocabulary."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    heads = {id(m.weight) for n, m in module.named_modules() if isinstance(m, nn.Linear) and n.endswith("lm_head")}
    linear = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
    return [p for p in module.parameters() if p.requires_grad and id(p) in linear - tables - heads]


def adamw(module: nn.Module, c: Optim, without: Sequence[nn.Parameter] = ()) -> torch.optim.AdamW:
    others = {id(p) for p in without}
    wanted = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
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


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' states as flat named tensors: no pickle needed to keep them."""
    return {
        f"{number}.{index}.{name}": torch.as_tensor(value)
        for number, optimizer in enumerate(optimizers)
        for index, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
    }


def restore_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        number, index, name = key.split(".")
        states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
