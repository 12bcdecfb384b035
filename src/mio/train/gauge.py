"""Held-out data watched while a stage trains: what is logged, when it is enough, which weights were best, and whether
the model still knows its text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, inf, nan
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from mio.checkpoint import commit, save_module
from mio.train.log import Log
from mio.train.parallel import rank, share_totals, world
from mio.train.sharding import sharded, whole_state

TEXT = "plain text"  # samples of text alone


@dataclass(frozen=True)
class Gauge:
    """`every`: steps between two looks; 0: none. `patience`: so many looks without a better loss end the stage; 0:
    none do. `best`: the stage leaves the weights of its best look, not its last. `fade`: plain text of a perplexity
    above so many times the first look's makes text targets count `lift` times as much from then on; 0: none does."""

    every: int = 0
    packs: int = 4
    patience: int = 0
    best: bool = False
    fade: float = 0.0
    lift: float = 1.5


@runtime_checkable
class HeldOut(Protocol):
    """An objective that has data which it does not train on."""

    @property
    def gauge(self) -> Gauge: ...

    @property
    def held_out(self) -> Mapping[str, Sequence[Any]]:
        """Batches by group: TEXT, and any others."""
        ...

    def sums(self, group: str, batch: Any) -> dict[str, tuple[float, float]]:
        """Summed loss and number of targets by name; of a batch of TEXT under that name alone."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """All that `sums` may name."""
        ...

    def lift_text(self, factor: float) -> None:
        """Let text targets count so many times what was declared."""
        ...


def _means(names: Sequence[str], shared: Sequence[float]) -> tuple[dict[str, float], float]:
    """Of every name that has targets, and of all targets. `shared`: loss and number of each name in turn."""
    losses, counts = shared[::2], shared[1::2]
    means = {name: loss / count for name, loss, count in zip(names, losses, counts, strict=True) if count}
    return means, sum(losses) / max(sum(counts), 1.0)


@dataclass
class Judge:
    """What looks say, by numbers that all ranks share; its own are part of the state."""

    c: Gauge
    first: float = nan  # loss of plain text at the first look
    best: float = inf
    stale: int = 0  # looks since the best one
    lifts: int = 0

    def add(self, losses: Mapping[str, float], mean: float) -> bool:
        """Whether this look is the best so far. `mean`: over all held-out targets."""
        text = losses.get(TEXT, nan)
        if self.first != self.first:
            self.first = text
        if self.c.fade and exp(min(text - self.first, 50.0)) > self.c.fade:
            self.lifts += 1
        better = mean < self.best
        self.best, self.stale = (mean, 0) if better else (self.best, self.stale + 1)
        return better

    @property
    def over(self) -> bool:
        return bool(self.c.patience) and self.stale >= self.c.patience

    @property
    def factor(self) -> float:
        return self.c.lift**self.lifts

    @staticmethod
    def of(c: Gauge, facts: Mapping[str, float]) -> Judge:
        """As it was when it returned these `facts`; without any, a new one."""
        first, best = facts.get("text", nan), facts.get("best", inf)
        return Judge(c, first, best, int(facts.get("stale", 0)), int(facts.get("lifts", 0)))

    def facts(self) -> dict[str, float]:
        seen = {"best": self.best, "stale": self.stale} if self.best < inf else {}
        return seen | ({"text": self.first, "lifts": self.lifts} if self.first == self.first else {})


class Watcher:
    """Looks at an objective's held-out data; never at those of one that has none."""

    def __init__(self, objective: object, name: str, folder: Path, log: Log) -> None:
        self.objective = objective if isinstance(objective, HeldOut) and objective.gauge.every else None
        self.name, self.folder, self.log = name, folder, log
        self.judge = Judge(self.objective.gauge if self.objective else Gauge())

    @property
    def over(self) -> bool:
        return self.judge.over

    def go_on(self, facts: Mapping[str, float]) -> None:
        self.judge = Judge.of(self.judge.c, facts)
        if self.objective:
            self.objective.lift_text(self.judge.factor)

    def after(self, done: int, module: nn.Module) -> bool:
        """Look, if it is time to; whether the stage is over."""
        if self.objective and done % self.judge.c.every == 0:
            begun = time.perf_counter()
            losses, mean = self._measure(self.objective, module)
            if self.judge.add(losses, mean) and self.judge.c.best:
                self._keep(module)
            self.objective.lift_text(self.judge.factor)
            self._write(done, losses, time.perf_counter() - begun)
        return self.over

    def _measure(self, objective: HeldOut, module: nn.Module) -> tuple[dict[str, float], float]:
        """Losses by name, and their mean over all targets. Whole ranks share the batches; sharded ones, which meet in
        every layer, do the same ones together."""
        totals = {name: [0.0, 0.0] for name in objective.names}
        module.eval()
        with torch.no_grad():
            for group, batches in objective.held_out.items():
                for batch in batches if sharded(module) else batches[rank() :: world()]:
                    for name, sums in objective.sums(group, batch).items():
                        totals[name] = [a + b for a, b in zip(totals[name], sums, strict=True)]
        module.train()
        return _means(objective.names, share_totals([x for pair in totals.values() for x in pair]))

    def _keep(self, module: nn.Module) -> None:
        state = whole_state(module)
        if rank() == 0:
            commit(self.folder / "best", partial(save_module, config={}, state=state))

    def _write(self, done: int, losses: Mapping[str, float], seconds: float) -> None:
        line = {"stage": self.name, "step": done, "seconds": round(seconds, 2)}
        found = {f"held-out {name}": float(f"{value:.5g}") for name, value in losses.items()}
        if TEXT in losses:
            found |= {"text perplexity": float(f"{exp(min(losses[TEXT], 50.0)):.5g}"), "text weight": self.judge.factor}
        self.log.write(line | found)
