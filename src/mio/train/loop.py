"""Steps of gradient descent on any module, with progress, metrics as JSONL, checkpoints and exact resume."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
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
from mio.train.optim import Optim, adamw, optimizer_tensors, rate, restore_optimizer


@dataclass(frozen=True)
class Fit:
    """How long and how; what is learned comes as an `Objective`."""

    steps: int
    optim: Optim = field(default_factory=Optim)
    save_every: int = 200
    log_every: int = 20
    bf16: bool = True


class Objective(Protocol):
    """What a stage minimises: `batch(step)` is a pure function of the step, so resuming needs no loader state."""

    @property
    def module(self) -> nn.Module: ...

    def batch(self, step: int) -> Any: ...

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
    module, optimizer = objective.module, adamw(objective.module, c.optim)
    state = folder / "state"
    first = _resume(state, module, optimizer)
    if first >= c.steps:
        return
    meter = _Meter(name, first, c, metrics)
    module.train()
    with _stop_requests() as stopped, meter.bar:
        for step in range(first, c.steps):
            meter.add(step, _step(objective, optimizer, c, step))
            done = step + 1
            if done % c.save_every == 0 or done == c.steps or stopped():
                _save(state, module, optimizer, done)
            if stopped() and done < c.steps:
                raise Interrupted(f"Stopped {name} after step {done}; the same command resumes there.")
    module.eval()


def _step(objective: Objective, optimizer: torch.optim.Optimizer, c: Fit, step: int) -> dict[str, float]:
    lr = rate(c.optim, step, c.steps)
    for group in optimizer.param_groups:
        group["lr"] = lr
    torch.manual_seed(step)  # dropout, revival of codes: the same after a resume as without one
    with torch.autocast("cpu", torch.bfloat16, enabled=c.bf16):
        losses = objective.losses(objective.batch(step))
    if not torch.isfinite(losses["loss"]):
        raise FloatingPointError(
            f"Loss is {losses['loss'].item()} at step {step}. Lower optim.lr, or look at the data."
        )
    optimizer.zero_grad(set_to_none=True)
    losses["loss"].backward()
    norm = nn.utils.clip_grad_norm_(objective.module.parameters(), c.optim.clip)
    optimizer.step()
    return {**{k: float(v.detach()) for k, v in losses.items()}, "grad_norm": float(norm), "lr": lr}


def _save(state: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    def write(folder: Path) -> None:
        tensors = {
            k: v.clone().contiguous() for k, v in _all_tensors(module).items()
        }  # cloned: tied weights share memory
        save_file(tensors, folder / "module.safetensors")
        save_file(optimizer_tensors(optimizer), folder / "optimizer.safetensors")
        write_json(folder / "step.json", {"step": step})

    commit(state, write)


def _resume(state: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    recover(state)
    if not state.exists():
        return 0
    verify(state)
    tensors = load_tensors(state / "module.safetensors")
    persistent = module.state_dict().keys()
    load_state(module, {k: v for k, v in tensors.items() if k in persistent}, str(state))
    for name, buffer in module.named_buffers():
        buffer.copy_(tensors[name])
    restore_optimizer(optimizer, load_tensors(state / "optimizer.safetensors"))
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
        self.bar = tqdm(total=c.steps, initial=first, desc=name, unit="step", dynamic_ncols=True)
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
            means["tokens_per_s"] = self.sums["tokens"] / seconds
        line = {"stage": self.name, "step": step, "seconds": round(seconds, 2)}
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {k: float(f"{v:.5g}") for k, v in means.items()}) + "\n")
        shown = {k: f"{v:.3g}" for k, v in means.items() if k not in ("lr", "grad_norm", "tokens")}
        self.bar.set_postfix(shown, refresh=False)
        self.sums, self.counts, self.since = {}, {}, time.perf_counter()
