"""Steps of gradient descent on any module, with progress, metrics as JSONL, checkpoints and exact resume."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mio.checkpoint import commit, load_state, load_tensors, read_json, recover, verify, write_json
from mio.layers import fast_bf16
from mio.train.optim import Optim, optimizer_tensors, optimizers, rate, restore_optimizers
from mio.train.parallel import rank, share_gradients, world


@dataclass(frozen=True)
class Fit:
    """How long and how; what is learned comes as an `Objective`. `parts`: batches whose gradients make one step;
    ranks share them, so that a step is the same for any number of ranks that divides it. `bf16`: products in bf16
    where the machine has instructions for it, in fp32 elsewhere."""

    steps: int
    optim: Optim = field(default_factory=Optim)
    save_every: int = 200
    log_every: int = 20
    bf16: bool = True
    parts: int = 1


class Objective(Protocol):
    """What a stage minimises: `batch(number)` is a pure function, so resuming needs no loader state."""

    @property
    def module(self) -> nn.Module: ...

    def batch(self, number: int) -> Any:
        """Batch `step * parts + part`."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name; "loss" is minimised, "tokens" is counted, the rest is logged."""
        ...


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the state was saved."""


def fit(objective: Objective, c: Fit, folder: Path, name: str, metrics: Path) -> None:
    """Train `objective.module` to `c.steps`, resuming from `folder/state` if there is one.

    Raises:
        Interrupted: after saving, on SIGINT or SIGTERM.
        FloatingPointError: the loss is not finite; weights are those of the last good step.
    """
    module = objective.module
    learning = optimizers(module, c.optim)
    state = folder / "state"
    first = _resume(state, module, learning)
    if first >= c.steps:
        return
    meter = _Meter(name, first, c, metrics)
    module.train()
    with _stop_requests() as stopped, meter.bar:
        for step in range(first, c.steps):
            values, stop = _step(objective, learning, c, step, stopped)
            meter.add(step, values)
            done = step + 1
            if rank() == 0 and (done % c.save_every == 0 or done == c.steps or stop):
                _save(state, module, learning, done)
            if stop and done < c.steps:
                raise Interrupted(f"Stopped {name} after step {done}; the same command resumes there.")
    module.eval()


def _step(
    objective: Objective, learning: Sequence[torch.optim.Optimizer], c: Fit, step: int, stopped: Callable[[], bool]
) -> tuple[dict[str, float], bool]:
    """One step; returns what to log, and whether this rank or another was asked to stop."""
    lr = rate(c.optim, step, c.steps)
    for optimizer in learning:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = lr
    means: dict[str, float] = {}
    mine = range(rank(), c.parts, world())
    for part in mine:
        for key, value in _part(objective, c, step * c.parts + part).items():
            means[key] = means.get(key, 0.0) + value / (1 if key == "tokens" else len(mine))
    stop = share_gradients(objective.module, stopped())
    norm = nn.utils.clip_grad_norm_(objective.module.parameters(), c.optim.clip)
    for optimizer in learning:
        optimizer.step()
    return {**means, "grad_norm": float(norm), "lr": lr}, stop


def _part(objective: Objective, c: Fit, number: int) -> dict[str, float]:
    """Add the gradients of one batch, as its share of the step."""
    torch.manual_seed(number)  # dropout, revival of codes: the same after a resume as without one
    with torch.autocast("cpu", torch.bfloat16, enabled=c.bf16 and fast_bf16(torch.device("cpu"))):
        losses = objective.losses(objective.batch(number))
    if not torch.isfinite(losses["loss"]):
        raise FloatingPointError(
            f"Loss is {losses['loss'].item()} in batch {number}. Lower optim.lr, or look at the data."
        )
    (losses["loss"] / c.parts).backward()
    return {k: float(v.detach()) for k, v in losses.items()}


def _save(state: Path, module: nn.Module, learning: Sequence[torch.optim.Optimizer], step: int) -> None:
    def write(folder: Path) -> None:
        tensors = {
            k: v.clone().contiguous() for k, v in _all_tensors(module).items()
        }  # cloned: tied weights share memory
        save_file(tensors, folder / "module.safetensors")
        save_file(optimizer_tensors(learning), folder / "optimizer.safetensors")
        write_json(folder / "step.json", {"step": step})

    commit(state, write)


def _resume(state: Path, module: nn.Module, learning: Sequence[torch.optim.Optimizer]) -> int:
    recover(state)
    if not state.exists():
        return 0
    verify(state)
    tensors = load_tensors(state / "module.safetensors")
    persistent = module.state_dict().keys()
    load_state(module, {k: v for k, v in tensors.items() if k in persistent}, str(state))
    for name, buffer in module.named_buffers():
        buffer.copy_(tensors[name])
    restore_optimizers(learning, load_tensors(state / "optimizer.safetensors"))
    return int(read_json(state / "step.json")["step"])


def _all_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that no model file keeps; exact resume needs them."""
    return {**module.state_dict(), **dict(module.named_buffers())}


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
        self.since = time.perf_counter()

    def add(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.counts[key] = self.counts.get(key, 0) + 1
        self.bar.update()
        if (step + 1) % self.c.log_every == 0 or step + 1 == self.c.steps:
            self._flush(step + 1)

    def _flush(self, step: int) -> None:
        seconds = time.perf_counter() - self.since
        means = {k: v / self.counts[k] for k, v in self.sums.items()}
        if "tokens" in means:
            means["tokens_per_s"] = self.sums["tokens"] * world() / seconds
        line = {"stage": self.name, "step": step, "seconds": round(seconds, 2)}
        if rank() == 0:
            self.metrics.parent.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | {k: float(f"{v:.5g}") for k, v in means.items()}) + "\n")
        shown = {k: f"{v:.3g}" for k, v in means.items() if k not in ("lr", "grad_norm", "tokens")}
        self.bar.set_postfix(shown, refresh=False)
        self.sums, self.counts, self.since = {}, {}, time.perf_counter()
