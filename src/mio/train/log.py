"""A training's numbers, line by line: JSONL is the truth, and trackers that are installed get the same beside it.

Nothing leaves the machine: every tracker writes into the run's folder, `mio inspect RUN` draws the curves without any.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from mio.train.parallel import rank

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


def _tensorboard(package: Any, run: Path, closing: ExitStack) -> Add:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(run / "tensorboard")  # type: ignore[no-untyped-call]
    closing.callback(writer.close)

    def add(stage: str, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            writer.add_scalar(f"{stage}/{name}", number, step)  # type: ignore[no-untyped-call]

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
