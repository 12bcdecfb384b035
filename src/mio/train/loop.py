"""Steps of gradient descent on any module, with progress, metrics as JSONL, guards, checkpoints and exact resume."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mio.layers import fast_bf16
from mio.train.guards import Guard, Guards, Kept
from mio.train.optim import Optim, optimizers, rate
from mio.train.parallel import rank, share_gradients, world
from mio.train.state import Saver, resume


@dataclass(frozen=True)
class Fit:
    """How long and how; what is learned comes as an `Objective`. `parts`: batches whose gradients make one step;
    ranks share them, so that a step is the same for any number of ranks that divides it. `bf16`: products in bf16
    where the machine has instructions for it, in fp32 elsewhere. `keep`: states on disk."""

    steps: int
    optim: Optim = field(default_factory=Optim)
    save_every: int = 200
    log_every: int = 20
    bf16: bool = True
    parts: int = 1
    keep: int = 2
    guards: Guards = field(default_factory=Guards)


class Objective(Protocol):
    """What a stage minimises: `batch(number)` is a pure function, so resuming needs no loader state."""

    @property
    def module(self) -> nn.Module: ...

    def batch(self, number: int) -> Any:
        """Batch `step * parts + part`."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name. A step minimises the sum of "loss" over the sum of "weight" (1 where it is not given), both
        over all parts and ranks: with a sum over targets and their number, every target counts alike however they
        are dealt out. "tokens" is counted, the rest is logged."""
        ...


@runtime_checkable
class Showing(Protocol):
    """An objective that shows what its module can do, whenever a state is saved."""

    def show(self, folder: Path, step: int) -> None:
        """Write samples into `folder`, with the module in evaluation mode."""
        ...


CUT = "it was cut short"  # by a request to stop


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the state was saved."""


def fit(objective: Objective, c: Fit, folder: Path, name: str, metrics: Path) -> None:
    """Train `objective.module` to `c.steps`, resuming from `folder/state` if there is one.

    Raises:
        Interrupted: after saving, on SIGINT or SIGTERM.
        FloatingPointError: too many steps in a row could not be used; the weights, saved too, are those of the last
        good one. ResourceError: a state could not be written; those before it are whole.
    """
    training, saver = _Training(objective, c), Saver(folder / "state", c.keep)
    first = training.resume(saver.folder)
    if first >= c.steps:
        return
    meter = _Meter(name, first, c, metrics)
    objective.module.train()
    with saver, _stop_requests() as stopped, meter.bar:
        for step in range(first, c.steps):
            outcome = training.step(step, stopped)
            done = step + 1 - outcome.undone
            if rank() == 0 and (done % c.save_every == 0 or done == c.steps or outcome.last):
                saver.save(objective.module, training.learning, training.facts(done))
                _show(objective, folder, done)
            meter.add(step, outcome)
            if outcome.last and done < c.steps:
                raise outcome.end(name, done)
    objective.module.eval()


def _show(objective: Objective, folder: Path, done: int) -> None:
    if isinstance(objective, Showing):
        objective.module.eval()
        objective.show(folder, done)
        objective.module.train()


@dataclass(frozen=True)
class _Outcome:
    """Of one step, the same on all ranks. `values`: what to log; `fault`: why it changed nothing; `undone`: how many
    steps, this one and those before it, must be done again; `stop`: a rank was asked to."""

    values: dict[str, float]
    fault: str
    undone: int
    stop: bool

    @property
    def last(self) -> bool:
        return self.stop or self.undone > 0

    def end(self, name: str, done: int) -> Exception:
        if self.stop:
            return Interrupted(f"Stopped {name} after step {done}; the same command resumes there.")
        return FloatingPointError(
            f"{self.undone} steps of {name} in a row could not be used: of the last, {self.fault}. "
            f"The weights are those after step {done}. Lower optim.lr, or look at the data."
        )


class _Training:
    """A module on its way. All that a step depends on: its number, and the state of module, optimizers and guard."""

    def __init__(self, objective: Objective, c: Fit) -> None:
        self.objective, self.c = objective, c
        self.learning = optimizers(objective.module, c.optim)
        self.guard = Guard(c.guards)

    def resume(self, folder: Path) -> int:
        """Steps that are done."""
        facts = resume(folder, self.objective.module, self.learning)
        self.guard = Guard.of(self.c.guards, facts)
        return int(facts.get("step", 0))

    def facts(self, done: int) -> dict[str, float]:
        return {"step": done, **self.guard.facts()}

    def step(self, number: int, stopped: Callable[[], bool]) -> _Outcome:
        kept, lr = Kept(self.objective.module), self._prepare(number)
        sums, means, cut = self._gradients(number, stopped)
        totals = (sums["loss"], sums["weight"], float(stopped()), float(cut))
        loss, weight, stops, cuts = share_gradients(self.objective.module, totals)
        norm = self._normalise(weight)
        loss = loss / weight if weight else nan  # no rank has a target: nothing to learn from
        fault = CUT if cuts else self.guard.judge(loss, norm)
        if fault:
            kept.restore()
        else:
            for optimizer in self.learning:
                optimizer.step()
        values = {} if fault else {"loss": loss, **means, "grad_norm": norm, "lr": lr}
        return _Outcome(values, fault, 1 if cuts else self.guard.given_up(), stops > 0)

    def _prepare(self, step: int) -> float:
        """Drop the old gradients and set the learning rate."""
        lr = rate(self.c.optim, step, self.c.steps)
        for optimizer in self.learning:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def _gradients(self, step: int, stopped: Callable[[], bool]) -> tuple[dict[str, float], dict[str, float], bool]:
        """Sum the gradients of this rank's parts, unless it is asked to stop between two. Returns the sums of what
        the objective returned, what to log of them, and whether parts are missing."""
        sums: dict[str, float] = {"loss": 0.0, "weight": 0.0}
        counts: Counter[str] = Counter()
        mine = range(rank(), self.c.parts, world())
        for part in mine:
            if stopped():
                break
            for key, value in self._part(step * self.c.parts + part).items():
                sums[key] = sums.get(key, 0.0) + value
                counts[key] += 1
        logged = {k: v if k == "tokens" else v / counts[k] for k, v in sums.items() if k not in ("loss", "weight")}
        return sums, logged, counts["loss"] < len(mine)

    def _part(self, number: int) -> dict[str, float]:
        """Add the gradients of one batch."""
        torch.manual_seed(number)  # dropout, revival of codes: the same after a resume as without one
        device = next(self.objective.module.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.c.bf16 and fast_bf16(device)):
            losses = self.objective.losses(self.objective.batch(number))
        losses["loss"].backward()
        return {"weight": 1.0} | {k: float(v.detach()) for k, v in losses.items()}

    def _normalise(self, weight: float) -> float:
        """Divide the summed gradients by the step's weight and clip them; returns their norm before clipping."""
        grads = [p.grad for p in self.objective.module.parameters() if p.grad is not None]
        if weight:
            torch._foreach_div_(grads, weight)
        return float(nn.utils.clip_grad_norm_(self.objective.module.parameters(), self.c.optim.clip))


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    requests: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        requests.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(requests)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Meter:
    """Means between two log lines, to the progress bar and the JSONL file."""

    def __init__(self, name: str, first: int, c: Fit, metrics: Path) -> None:
        self.name, self.c, self.metrics = name, c, metrics
        hidden = True if rank() else None
        self.bar = tqdm(total=c.steps, initial=first, desc=name, unit="step", dynamic_ncols=True, disable=hidden)
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.skipped = 0
        self.since = time.perf_counter()

    def add(self, step: int, outcome: _Outcome) -> None:
        if outcome.fault == CUT:
            return
        if outcome.fault:
            self.skipped += 1
            self._say(f"{self.name}: step {step + 1} skipped, {outcome.fault}.")
        for key, value in outcome.values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.counts[key] = self.counts.get(key, 0) + 1
        self.bar.update()
        if (step + 1) % self.c.log_every == 0 or step + 1 == self.c.steps:
            self._flush(step + 1)

    def _say(self, words: str) -> None:
        if rank() == 0:
            self.bar.write(words, file=sys.stderr)

    def _flush(self, step: int) -> None:
        seconds = time.perf_counter() - self.since
        means = {k: v / self.counts[k] for k, v in self.sums.items()}
        if "tokens" in means:
            means["tokens_per_s"] = self.sums["tokens"] * world() / seconds
        line = {"stage": self.name, "step": step, "seconds": round(seconds, 2)}
        line |= {"skipped": self.skipped} if self.skipped else {}
        if rank() == 0:
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {k: float(f"{v:.5g}") for k, v in means.items()}) + "\n")
        shown = {k: f"{v:.3g}" for k, v in means.items() if k not in ("lr", "grad_norm", "tokens")}
        self.bar.set_postfix(shown, refresh=False)
        self.sums, self.counts, self.skipped, self.since = {}, {}, 0, time.perf_counter()
