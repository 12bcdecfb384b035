"""States of a training on disk: a folder per save, named by its step, written beside the training, verified when read.

state/00000400/ module.safetensors optimizer.safetensors step.json manifest.json

Where weights are sharded, every rank writes its rows: module.0-of-2.safetensors, module.1-of-2.safetensors, and so on.
Any number of ranks reads what any other has written.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mio.checkpoint import commit, load_state, read_json, verify, write_json
from mio.train.optim import optimizer_tensors, restore_optimizers
from mio.train.parallel import rank
from mio.train.sharding import laid_out, local, piece, sharded
from mio.types import DataError, MioError, MissingError, ResourceError

Files = dict[str, dict[str, Tensor]]  # tensors by name, by the file's name
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
    tensors, buffers = Pieces(state, "module"), dict(module.named_buffers())
    kept = module.state_dict().keys()
    fill(module, {name: tensors[name] for name in tensors if name in kept or name not in buffers}, str(state))
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name])
    restore_optimizers(learning, Pieces(state, "optimizer"))
    facts: Facts = read_json(state / "step.json")
    return facts


def fill(module: nn.Module, tensors: Mapping[str, Tensor], at: str) -> None:
    """Copy whole tensors into a module, or this rank's rows of them into a sharded one."""
    state = module.state_dict()
    load_state(module, {k: laid_out(v, state[k]) if k in state else v for k, v in tensors.items()}, at)


class Pieces(Mapping[str, Tensor]):
    """Whole tensors of one kind from the files of a state, each read when it is asked for.

    Raises:
        MissingError: there are no such files.
    """

    def __init__(self, state: Path, kind: str) -> None:
        paths = sorted(state.glob(f"{kind}.*safetensors"), key=_number)
        if not paths:
            raise MissingError(f"No {kind} in {state}.", at=str(state))
        self._files: list[Any] = [safe_open(path, framework="pt") for path in paths]

    def __getitem__(self, name: str) -> Tensor:
        rows = [file.get_tensor(name) for file in self._files]
        return torch.cat(rows) if len(rows) > 1 and rows[0].ndim else rows[0]

    def __iter__(self) -> Iterator[str]:
        yield from self._files[0].keys()

    def __len__(self) -> int:
        return len(self._files[0].keys())


def _number(path: Path) -> int:
    """Of a piece; 0 for a whole."""
    return int(path.name.split(".")[1].split("-")[0]) if "-of-" in path.name else 0


def saver(folder: Path, keep: int, module: nn.Module) -> Saver:
    """What saves the states of a module, on every rank."""
    return ShardSaver(folder, keep) if sharded(module) else Saver(folder, keep)


class Saver:
    """Copies the tensors at once and writes them in a thread; the next save, and leaving, wait for it.

    The last `keep` states stay. An error of the thread is raised by what waits for it. Where ranks hold the same, the
    first writes.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._pool = ThreadPoolExecutor(1, "save")
        self._pending: Future[None] | None = None
        self._last = -1

    def save(self, module: nn.Module, learning: Sequence[torch.optim.Optimizer], facts: Facts) -> None:
        self.wait()
        step = int(facts["step"])
        if step != self._last:
            write = self._job(module, learning, dict(facts))
            self._pending, self._last = self._pool.submit(write), step

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

    def _job(self, module: nn.Module, learning: Sequence[torch.optim.Optimizer], facts: Facts) -> Callable[[], None]:
        """What the thread has to do, with copies of all that it needs."""
        if rank():
            return lambda: None
        files = _copies(module, learning, "")
        return partial(self._commit, facts, partial(_write, files))

    def _commit(self, facts: Facts, write: Callable[[Path], None]) -> None:
        def write_all(staging: Path) -> None:
            write(staging)
            write_json(staging / "step.json", facts)

        step = int(facts["step"])
        commit(self.folder / f"{step:08d}", write_all)
        self._prune(step)

    def _prune(self, step: int) -> None:
        """Also later states go, which this run could not read, and what a kill left half written."""
        wanted = [p for p in saved(self.folder) if int(p.name) <= step][: self.keep]
        for path in self.folder.iterdir():
            if path not in wanted:
                shutil.rmtree(path, ignore_errors=True)


class ShardSaver(Saver):
    """Every rank writes its rows beside the state; once all have, the first moves them into it and commits it.

    The threads talk in a group of their own, since the training's messages may come in any order between theirs.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        super().__init__(folder, keep)
        self._group = dist.new_group(backend="gloo")

    def _job(self, module: nn.Module, learning: Sequence[torch.optim.Optimizer], facts: Facts) -> Callable[[], None]:
        mine = piece(module)
        files = {} if mine is None else _copies(module, learning, f".{mine[0]}-of-{mine[1]}")
        return partial(self._write_together, files, facts)

    def _write_together(self, files: Files, facts: Facts) -> None:
        parts = self.folder / f"parts-{int(facts['step']):08d}"
        self._all(partial(commit, parts / str(rank()), partial(_write, files)))
        self._all(partial(self._finish, parts, facts))

    def _finish(self, parts: Path, facts: Facts) -> None:
        if rank() == 0:
            self._commit(facts, partial(_gather, parts))

    def _all(self, act: Callable[[], None]) -> None:
        """Do it on every rank and wait for the others. Where one fails, all do."""
        error: MioError | None = None
        try:
            act()
        except MioError as raised:
            error = raised
        failures = torch.tensor(float(error is not None))
        dist.all_reduce(failures, group=self._group)
        if error is None and failures > 0:
            fix = "See what that rank says; the states before this one are untouched."
            error = ResourceError("Another rank could not write its part of a state.", at=str(self.folder), fix=fix)
        if error is not None:
            raise error


def _write(files: Files, staging: Path) -> None:
    for name, tensors in files.items():
        save_file(tensors, staging / f"{name}.safetensors")


def _gather(parts: Path, staging: Path) -> None:
    for path in parts.glob("*/*.safetensors"):
        os.replace(path, staging / path.name)


def _copies(module: nn.Module, learning: Sequence[torch.optim.Optimizer], mark: str) -> Files:
    """This rank's rows, apart from the training's own memory, and from one another: tied weights share theirs.
    Parameters and all buffers, also those that no model file keeps; exact resume needs them."""
    tensors = {
        "module": {**module.state_dict(), **dict(module.named_buffers())},
        "optimizer": optimizer_tensors(learning),
    }
    return {
        kind + mark: {k: local(v.detach()).clone(memory_format=torch.contiguous_format) for k, v in some.items()}
        for kind, some in tensors.items()
    }
