"""Steps that must not count: a loss or gradient that is not finite, a loss that leaps. They change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

WARM = 20  # good steps before a leap can be told
SPAN = 50  # steps that the running mean looks back


@dataclass(frozen=True)
class Guards:
    """`repeats`: so many unusable steps in a row end the training. `spike`: a loss above so many times its running
    mean makes a step unusable, too; 0: none does (it asks for losses above 0)."""

    repeats: int = 5
    spike: float = 0.0


@dataclass
class Guard:
    """Judges every step by numbers that all ranks share, so that all of them agree. Its own are part of the state."""

    c: Guards
    bad: int = 0  # unusable steps in a row
    good: int = 0
    mean: float = 0.0  # of the losses of good steps

    def judge(self, loss: float, norm: float) -> str:
        """Why a step of this loss and gradient norm cannot be used; "" for a good one."""
        fault = self._fault(loss, norm)
        if fault:
            self.bad += 1
            return fault
        self.bad, self.good = 0, self.good + 1
        self.mean += (loss - self.mean) / min(self.good, SPAN)
        return ""

    def _fault(self, loss: float, norm: float) -> str:
        if not isfinite(loss):
            return f"its loss is {loss}"
        if not isfinite(norm):
            return f"its gradient norm is {norm}"
        if self.c.spike and self.good >= WARM and loss > self.c.spike * self.mean:
            return f"its loss {loss:.4g} is more than {self.c.spike:g} times the mean, {self.mean:.4g}"
        return ""

    def given_up(self) -> int:
        """How many steps in a row were unusable, once they are too many, else 0. Counts anew after that."""
        if self.bad < self.c.repeats:
            return 0
        steps, self.bad = self.bad, 0
        return steps

    @staticmethod
    def of(c: Guards, facts: Mapping[str, float]) -> Guard:
        """As it was when it returned these `facts`; without any, a new one."""
        return Guard(c, int(facts.get("bad", 0)), int(facts.get("good", 0)), facts.get("mean", 0.0))

    def facts(self) -> dict[str, float]:
        return {"bad": self.bad, "good": self.good, "mean": self.mean}


class Kept:
    """What a forward pass may write, as it was before: the buffers, and the parameters of modules that have buffers
    of their own (a codebook that revives its codes moves its rows)."""

    def __init__(self, module: nn.Module) -> None:
        owners = [m for m in module.modules() if next(m.buffers(recurse=False), None) is not None]
        self._live: list[Tensor] = [t for m in owners for t in (*m.buffers(recurse=False), *m.parameters())]
        self._copies = [t.detach().clone() for t in self._live]

    @torch.no_grad()
    def restore(self) -> None:
        for live, copy in zip(self._live, self._copies, strict=True):
            live.copy_(copy)
