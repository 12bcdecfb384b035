"""AdamW with weight decay on matrices only, Muon for hidden matrices where asked, and the cosine schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi

import torch
from torch import Tensor, nn

from mio.layers import fast_bf16
from mio.train.sharding import laid_out, whole


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
    return [Muon(hidden, c.lr, c.betas[1], c.weight_decay), adamw(module, c, without=hidden)]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum of matrices, orthogonalised; the update's RMS is that of AdamW's (Liu et al., 2025).

    The same steps as torch.optim.Muon, whose products are always bf16: a CPU that only emulates bf16 needs
    several times as long for them as for these (docs/results.md, "Machines without bf16").
    """

    def __init__(self, matrices: Sequence[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, group["lr"], group["momentum"], group["weight_decay"])

    def _move(self, matrix: nn.Parameter, lr: float, momentum: float, weight_decay: float) -> None:
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
        update = laid_out(orthogonal(whole(matrix.grad.lerp(mean, momentum))), matrix)
        matrix.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix with its singular values moved near 1, by Newton-Schulz iteration (Jordan et al., 2024)."""
    wide = matrix.bfloat16() if fast_bf16(matrix.device) else matrix
    wide = wide.T if matrix.shape[0] > matrix.shape[1] else wide
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


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


def restore_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """From whole tensors; of sharded weights every rank takes its rows."""
    learned = [[p for group in o.param_groups for p in group["params"]] for o in optimizers]
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        number, index, name = key.split(".")
        like = learned[int(number)][int(index)]
        states[int(number)].setdefault(int(index), {})[name] = laid_out(value, like) if value.ndim else value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
