"""Steps of gradient descent on any module, with progress, metrics as JSONL, guards, checkpoints and exact resume."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import nan
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mio.layers import fast_bf16
from mio.train.gauge import Watcher
from mio.train.guards import Guard, Guards, Kept
from mio.train.log import Log, Meter
from mio.train.memory import TooLarge, give_up, out_of_memory, pieces
from mio.train.optim import Optim, optimizers, rate
from mio.train.parallel import rank, share_gradients, share_totals, world
from mio.train.sharding import send_gradients, sharded, whole
from mio.train.state import resume, saver


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


_Sums = tuple[dict[str, float], dict[str, float], bool]  # see `_Training._gradients`
CUT = "it was cut short"  # by a request to stop


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the state was saved."""


def fit(objective: Objective, c: Fit, folder: Path, name: str, metrics: Path) -> None:
    """Train `objective.module` to `c.steps`, or until its gauge has enough, resuming from `folder/state` if there is
    one.

    Raises:
        Interrupted: after saving, on SIGINT or SIGTERM.
        FloatingPointError: too many steps in a row could not be used; the weights, saved too, are those of the last
        good one. ResourceError: a state could not be written; those before it are whole.
    """
    training, states = _Training(objective, c), saver(folder / "state", c.keep, objective.module)
    log = Log(metrics)
    watcher = Watcher(objective, name, folder, log)
    facts = resume(states.folder, objective.module, training.learning)
    first = training.go_on(facts)
    watcher.go_on(facts)
    if first >= c.steps or watcher.over:
        return
    meter = Meter(log, name, range(first, c.steps), c.log_every)
    objective.module.train()
    with states, _stop_requests() as stopped, log, meter.bar:
        if not facts:
            watcher.after(0, objective.module)
        for step in range(first, c.steps):
            outcome = training.step(step, stopped)
            done = step + 1 - outcome.undone
            over = not outcome.undone and watcher.after(done, objective.module)
            if done % c.save_every == 0 or done == c.steps or outcome.last or over:
                states.save(objective.module, training.learning, training.facts(done) | watcher.judge.facts())
                _show(objective, folder, done)
            if outcome.fault != CUT:
                meter.add(step, outcome.values, outcome.fault)
            if outcome.last and done < c.steps:
                raise outcome.end(name, done)
            if over:
                break
    objective.module.eval()


def _show(objective: Objective, folder: Path, done: int) -> None:
    if isinstance(objective, Showing) and rank() == 0:
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
        self.sharded = sharded(objective.module)
        self.cuts = 0  # how often every batch is cut in half, so that it fits into memory

    def go_on(self, facts: Mapping[str, float]) -> int:
        """As it was when it returned these `facts`; steps that are done."""
        self.guard = Guard.of(self.c.guards, facts)
        self.cuts = 0 if self.sharded else int(facts.get("cuts", 0))
        return int(facts.get("step", 0))

    def facts(self, done: int) -> dict[str, float]:
        return {"step": done, "cuts": self.cuts, **self.guard.facts()}

    def step(self, number: int, stopped: Callable[[], bool]) -> _Outcome:
        kept, lr = Kept(self.objective.module), self._prepare(number)
        sums, means, cut = self._fitting(number, stopped, kept)
        totals = (sums["loss"], sums["weight"], float(stopped()), float(cut))
        share = share_totals if self.sharded else partial(share_gradients, self.objective.module)
        loss, weight, stops, cuts = share(totals)
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
        self.objective.module.zero_grad(set_to_none=True)
        for optimizer in self.learning:
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def _fitting(self, step: int, stopped: Callable[[], bool], kept: Kept) -> _Sums:
        """`_gradients`; where memory runs out, all of them anew and with smaller batches, now and from now on."""
        while True:
            with suppress(TooLarge):  # and with it goes what the failed batch holds
                return self._gradients(step, stopped)
            self.cuts += 1
            kept.restore()
            self.objective.module.zero_grad(set_to_none=True)
            words = f"Memory ran out in step {step + 1}: batches go in {2**self.cuts} parts from now on."
            print(words, file=sys.stderr)

    def _gradients(self, step: int, stopped: Callable[[], bool]) -> _Sums:
        """Sum the gradients of this rank's parts, unless it is asked to stop between two. Returns the sums of what
        the objective returned, what to log of them, and whether parts are missing."""
        sums: dict[str, float] = {"loss": 0.0, "weight": 0.0}
        counts: Counter[str] = Counter()
        mine = range(rank(), self.c.parts, world())
        for part in mine:
            if stopped() and not self.sharded:  # else ranks meet in every layer: none may leave the others waiting
                return sums, {}, True
            send_gradients(self.objective.module, part == mine[-1])
            for losses in self._part(step * self.c.parts + part):
                sums.update({key: sums.get(key, 0.0) + value for key, value in losses.items()})
                counts.update(losses.keys())
        logged = {k: v if k == "tokens" else v / counts[k] for k, v in sums.items() if k not in ("loss", "weight")}
        return sums, logged, False

    def _part(self, number: int) -> Iterator[dict[str, float]]:
        """Add the gradients of one batch, piece by piece."""
        torch.manual_seed(number)  # dropout, revival of codes: the same after a resume as without one
        for piece in pieces(self.objective, self.objective.batch(number), self.cuts):
            losses = self._losses(piece)
            yield {"weight": 1.0} | {k: float(v.detach()) for k, v in losses.items()}

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        """Raises: TooLarge, ResourceError: memory ran out."""
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.c.bf16 and fast_bf16(torch.device("cpu"))):
                losses = self.objective.losses(batch)
            losses["loss"].backward()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            give_up(None if self.sharded else self.objective, batch, error)
        return losses

    def _normalise(self, weight: float) -> float:
        """Divide the summed gradients by the step's weight and clip them; returns their norm before clipping."""
        grads = [p.grad for p in self.objective.module.parameters() if p.grad is not None]
        if weight:
            torch._foreach_div_(grads, weight)
        return float(whole(nn.utils.clip_grad_norm_(self.objective.module.parameters(), self.c.optim.clip)))


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
