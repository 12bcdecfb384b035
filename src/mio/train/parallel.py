"""Several processes: stages side by side on a share of the cores each, or ranks that train one module together."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

Work = Callable[..., None]
PATIENCE = timedelta(days=2)  # of ranks, while the first makes tokenizers


@dataclass(frozen=True)
class Task:
    """A function and its arguments for a process of its own, which may use `threads` cores."""

    work: Work
    args: tuple[Any, ...]
    threads: int


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def share_totals(totals: Sequence[float]) -> list[float]:
    """Their sums over all ranks, the same on each."""
    shared = torch.tensor(totals)
    if world() > 1:
        dist.all_reduce(shared)
    return shared.tolist()


def share_gradients(module: nn.Module, totals: Sequence[float]) -> list[float]:
    """Sum the gradients of all ranks in place, and `totals` beside them: what is returned is the same on every rank.

    A rank whose batches did not touch a parameter adds nothing to its gradient; one that no rank touched has none.
    """
    if world() == 1:
        return list(totals)
    wanted = [p for p in module.parameters() if p.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
    facts = torch.tensor([*(float(p.grad is not None) for p in wanted), *totals])
    flat = torch.cat([*(g.flatten() for g in grads), facts])
    dist.all_reduce(flat)
    *summed, touched, shared = flat.split([*(g.numel() for g in grads), len(wanted), len(totals)])
    for parameter, grad, some in zip(wanted, summed, touched.tolist(), strict=True):
        parameter.grad = grad.view_as(parameter).clone() if some else None
    return shared.tolist()


def run_ranks(work: Work, args: tuple[Any, ...], count: int, threads: int) -> None:
    """Run `work(*args)` in `count` processes that form one group (gloo); the first error of any is raised here. A
    process that torchrun has started is one of them already."""
    if count == 1 or dist.is_initialized():
        work(*args)
        return
    with TemporaryDirectory() as folder:
        meeting = Path(folder) / "ranks"
        run_tasks([Task(_join, (number, count, str(meeting), work, args), threads) for number in range(count)])


@contextmanager
def torchrun() -> Iterator[None]:
    """Join the group of the processes that torchrun has started; without it nothing happens."""
    if not dist.is_torchelastic_launched():
        yield
        return
    torch.set_float32_matmul_precision("medium")
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _join(number: int, count: int, meeting: str, work: Work, args: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=count)
    try:
        work(*args)
    finally:
        dist.destroy_process_group()


def run_tasks(tasks: Sequence[Task]) -> None:
    """Run all tasks at once and wait for every one; SIGINT and SIGTERM go on to them, so that they can save."""
    crew = Crew()
    with crew.forward_signals():
        for task in tasks:
            crew.start(task)
        while crew.busy:
            crew.finish_one()


class Crew:
    """Processes at work. After an error or a signal the others are asked to stop; when all have, it is raised."""

    def __init__(self) -> None:
        self._running: dict[Connection, BaseProcess] = {}
        self._error: BaseException | None = None
        self.stopping = False  # nothing more may be started

    @property
    def busy(self) -> int:
        return len(self._running)

    def start(self, task: Task) -> Connection:
        """Begin a task; what is returned names it in `finish_one`."""
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(theirs, task))
        process.start()
        theirs.close()
        self._running[mine] = process
        return mine

    def finish_one(self) -> Connection:
        """Wait for the next task to end."""
        done = next(iter(wait(list(self._running))))
        assert isinstance(done, Connection)
        process = self._running.pop(done)
        try:
            error = done.recv()
        except EOFError:
            error = RuntimeError("A process ended without a word: it was killed, or memory ran out.")
        process.join()
        if error is not None and self._error is None:
            self._error = error
            self.stop()
        if self.stopping and not self._running:
            raise self._error or KeyboardInterrupt
        return done

    def stop(self) -> None:
        self.stopping = True
        for process in self._running.values():
            process.terminate()

    @contextmanager
    def forward_signals(self) -> Iterator[None]:
        def forward(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _serve(pipe: Connection, task: Task) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half done is cleaned up
    torch.set_num_threads(task.threads)
    torch.set_float32_matmul_precision("medium")
    error: BaseException | None = None
    try:
        task.work(*task.args)
    except BaseException as raised:
        error = raised
    pipe.send(error)
