"""States of a training on disk: a folder per save, named by its step, written beside the training, verified when read.

state/00000400/ module.safetensors optimizer.safetensors step.json manifest.json
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mio.checkpoint import commit, load_state, load_tensors, read_json, verify, write_json
from mio.train.optim import optimizer_tensors, restore_optimizers
from mio.types import DataError, MioError

Facts = dict[str, float]  # what else a resume needs; "step": steps that are done


def saved(folder: Path) -> list[Path]:
    """States, newest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in found if p.name.isdigit()), reverse=True)


def newest(folder: Path) -> Path | None:
    """The last state that is whole; those passed over are named on stderr.

    Raises:
        DataError: there are states, and none is whole.
    """
    found = saved(folder)
    for path in found:
        try:
            verify(path)
            return path
        except MioError as error:
            print(f"{path}: {error} Looking for the state before it.", file=sys.stderr)
    if found:
        raise DataError("No saved state is whole.", at=str(folder), fix="Remove the folder to train from the start.")
    return None


def resume(folder: Path, module: nn.Module, learning: Sequence[torch.optim.Optimizer]) -> Facts:
    """Fill module and optimizers from the newest whole state; {} if there is none."""
    state = newest(folder)
    if state is None:
        return {}
    tensors = load_tensors(state / "module.safetensors")
    persistent = module.state_dict().keys()
    load_state(module, {k: v for k, v in tensors.items() if k in persistent}, str(state))
    for name, buffer in module.named_buffers():
        buffer.copy_(tensors[name])
    restore_optimizers(learning, load_tensors(state / "optimizer.safetensors"))
    facts: Facts = read_json(state / "step.json")
    return facts


class Saver:
    """Copies the tensors at once and writes them in a thread; the next save, and leaving, wait for it.

    The last `keep` states stay. An error of the thread is raised by what waits for it.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._pool = ThreadPoolExecutor(1, "save")
        self._pending: Future[None] | None = None
        self._last = -1

    def save(self, module: nn.Module, learning: Sequence[torch.optim.Optimizer], facts: Facts) -> None:
        self.wait()
        step = int(facts["step"])
        if step == self._last:
            return
        files = {"module": _copies(_all_tensors(module)), "optimizer": _copies(optimizer_tensors(learning))}
        self._pending, self._last = self._pool.submit(self._write, step, files, dict(facts)), step

    def wait(self) -> None:
        """Raises: ResourceError: the state could not be written; the ones before it are untouched."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def _write(self, step: int, files: dict[str, dict[str, Tensor]], facts: Facts) -> None:
        def write(staging: Path) -> None:
            for name, tensors in files.items():
                save_file(tensors, staging / f"{name}.safetensors")
            write_json(staging / "step.json", facts)

        commit(self.folder / f"{step:08d}", write)
        self._prune(step)

    def _prune(self, step: int) -> None:
        """Also later states go, which this run could not read, and what a kill left half written."""
        wanted = [p for p in saved(self.folder) if int(p.name) <= step][: self.keep]
        for path in self.folder.iterdir():
            if path not in wanted:
                shutil.rmtree(path, ignore_errors=True)


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apart from the training's own memory, and from one another: tied weights share theirs."""
    return {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}


def _all_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that no model file keeps; exact resume needs them."""
    return {**module.state_dict(), **dict(module.named_buffers())}
