"""A training's numbers, line by line: JSONL is the truth, and trackers that are installed get the same beside it.

Nothing leaves the machine: every tracker writes into the run's folder, `mio inspect RUN` draws the curves without any.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from mio.train.parallel import rank, world

Add = Callable[[str, int, Mapping[str, float]], None]  # stage, its step, numbers by name
Open = Callable[[Any, Path, ExitStack], Add]  # the package, the run's folder, what closes it


class Log:
    """Lines of one training, from the first rank alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trackers: list[Add] = []
        self._open = ExitStack()

    def write(self, line: Mapping[str, Any]) -> None:
        """`line`: "stage", "step", "seconds", and numbers by name."""
        if rank():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for add in self._trackers:
            add(line["stage"], line["step"], {k: v for k, v in line.items() if k not in ("stage", "step")})

    def __enter__(self) -> Log:
        if rank() == 0:
            found = ((name, row) for name, row in TRACKERS.items() if find_spec(name))
            self._trackers = [row(import_module(name), self.path.parent, self._open) for name, row in found]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()


class Meter:
    """Means of `steps` between two lines, to the progress bar and the log."""

    def __init__(self, log: Log, name: str, steps: range, every: int) -> None:
        self.log, self.name, self.last, self.every = log, name, steps.stop, every
        hidden = True if rank() else None
        self.bar = tqdm(
            total=steps.stop, initial=steps.start, desc=name, unit="step", dynamic_ncols=True, disable=hidden
        )
        self._begin()

    def _begin(self) -> None:
        self.sums, self.counts, self.skipped = dict[str, float](), Counter[str](), 0
        self.since = time.perf_counter()

    def add(self, step: int, values: Mapping[str, float], fault: str) -> None:
        """`fault`: why the step changed nothing; "" for a good one."""
        if fault:
            self.skipped += 1
            self._say(f"{self.name}: step {step + 1} skipped, {fault}.")
        self.sums |= {key: self.sums.get(key, 0.0) + value for key, value in values.items()}
        self.counts.update(values.keys())
        self.bar.update()
        if (step + 1) % self.every == 0 or step + 1 == self.last:
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
        self.log.write(line | {k: float(f"{v:.5g}") for k, v in means.items()})
        shown = {k: f"{v:.3g}" for k, v in means.items() if k not in ("lr", "grad_norm", "tokens")}
        self.bar.set_postfix(shown, refresh=False)
        self._begin()


def _tensorboard(package: Any, run: Path, closing: ExitStack) -> Add:
    writer = import_module("torch.utils.tensorboard").SummaryWriter(run / "tensorboard")
    closing.callback(writer.close)

    def add(stage: str, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            writer.add_scalar(f"{stage}/{name}", number, step)

    return add


def _wandb(package: Any, run: Path, closing: ExitStack) -> Add:
    run.mkdir(parents=True, exist_ok=True)
    opened = package.init(project="mio", name=run.name, dir=str(run), mode="offline", reinit="create_new")
    closing.callback(opened.finish)

    def add(stage: str, step: int, numbers: Mapping[str, float]) -> None:
        opened.log({f"{stage}/{name}": number for name, number in {**numbers, "step": step}.items()})

    return add


def _mlflow(package: Any, run: Path, closing: ExitStack) -> Add:
    run.mkdir(parents=True, exist_ok=True)
    client = package.MlflowClient(tracking_uri=f"sqlite:///{run.absolute() / 'mlflow.db'}")
    known = client.get_experiment_by_name("mio")
    experiment = known.experiment_id if known else client.create_experiment("mio", (run / "mlflow").absolute().as_uri())
    opened = client.create_run(experiment, run_name=run.name).info.run_id
    closing.callback(client.set_terminated, opened)

    def add(stage: str, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            client.log_metric(opened, f"{stage}/{name}", number, step=step)

    return add


TRACKERS: dict[str, Open] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
