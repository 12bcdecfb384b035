"""A small training for the tests of train/: a net with dropout and a codebook, and what trains it."""

from __future__ import annotations

import os
import signal
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mio.tokenizers.quantizers import VectorQuantizer
from mio.train.guards import Guards
from mio.train.loop import Fit, fit
from mio.train.optim import Optim

STEPS = 12
GUARDS = Guards()


class Net(nn.Module):
    """Dropout and a codebook that revives codes: both draw random numbers while training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)
        self.quantize = VectorQuantizer(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q = self.quantize(self.drop(self.first(x)))
        return self.last(q.quantized), q.loss


@dataclass
class Toy:
    """Regression; sends SIGTERM to itself in step `stop`, spoils the loss of steps `nan`. `seen`: batches, and
    `chance`: what the random generator stood at after each."""

    module: Net
    stop: int = -1
    nan: Container[int] = ()
    seen: list[int] = field(default_factory=list)
    chance: list[bytes] = field(default_factory=list)

    def batch(self, step: int) -> Tensor:
        self.seen.append(step)
        return torch.from_numpy(np.random.default_rng(step).normal(size=(5, 4)).astype(np.float32))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        if self.seen[-1] == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        out, commit = self.module(batch)
        self.chance.append(torch.get_rng_state().numpy().tobytes())
        loss = (out - batch.sum(1, keepdim=True)).pow(2).mean() + commit
        loss = loss * float("nan") if self.seen[-1] in self.nan else loss
        return {"loss": loss, "commit": commit, "tokens": torch.tensor(5.0)}


def toy(stop: int = -1, nan: Container[int] = ()) -> Toy:
    torch.manual_seed(3)
    return Toy(Net(), stop, nan)


def run(objective: Toy, folder: Path, steps: int = STEPS, save_every: int = 5, guards: Guards = GUARDS) -> Toy:
    c = Fit(steps, Optim(1e-2), save_every=save_every, log_every=4, guards=guards)
    fit(objective, c, folder, "toy", folder.with_suffix(".jsonl"))
    return objective


def weights(objective: Toy) -> dict[str, Tensor]:
    return {**objective.module.state_dict(), **dict(objective.module.named_buffers())}


def state(folder: Path) -> Path:
    """The newest state of a training."""
    return max(p for p in (folder / "state").iterdir() if p.name.isdigit())
