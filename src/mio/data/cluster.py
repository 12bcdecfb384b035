"""Chunks on many machines: the same work on Ray Data. The store's folder and the data must be seen by all of them.

A chunk that fails is tried again, also when its worker died; one that fails every time ends the run, by name. What is
done stays done, as always.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any

from mio.data.tokenize import Engine, Speaker, Work
from mio.types import DataError, MissingError


@dataclass(frozen=True)
class Cluster:
    """`open`: makes a speaker, in every worker. `window`: chunks of a worker that wait in memory."""

    open: Callable[[], Speaker]
    workers: int
    tries: int = 3
    window: int = 16

    def engine(self) -> Engine:
        """Raises: MissingError where Ray is not installed."""
        try:
            ray = import_module("ray")
            data = import_module("ray.data")
        except ImportError as error:
            raise MissingError("Many machines need Ray.", fix="pip install 'mio[ray]'") from error

        def make(works: Iterator[Work]) -> None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
            if not ray.is_initialized():
                here = {"num_cpus": self.workers, "include_dashboard": False}
                ray.init(log_to_driver=False, **({} if os.environ.get("RAY_ADDRESS") else here))
            data.DataContext.get_current().enable_progress_bars = False
            while some := list(islice(works, self.window * self.workers)):
                self._all(data, some)

        return make

    def _all(self, data: Any, works: Sequence[Work]) -> None:
        """Raises: DataError where a chunk fails every time."""
        reasons = dict[str, str]()
        for _ in range(self.tries):
            reasons = self._tried(data, works)
            works = [work for work in works if str(work.part) in reasons]
            if not works:
                return
        lines = f"{works[0].chunk[0][0].line} to {works[0].chunk[-1][0].line}"
        what = f"{len(works)} chunks failed {self.tries} times; records {lines}: {reasons[str(works[0].part)]}"
        raise DataError(what, at=works[0].file, fix="Mend it, and run the command again: what is done stays.")

    def _tried(self, data: Any, works: Sequence[Work]) -> dict[str, str]:
        """Chunks that are still not there, and why."""
        rows = data.from_items([{"work": work} for work in works], override_num_blocks=len(works))
        pool = data.ActorPoolStrategy(size=min(self.workers, len(works)))
        once_more = {"max_restarts": self.tries, "max_task_retries": self.tries}  # where a worker dies
        done = rows.map(_Worker, fn_constructor_args=(self.open,), compute=pool, **once_more)
        try:
            reasons = {row["part"]: row["reason"] for row in done.take_all()}
        except Exception as error:  # Ray's own, when workers die too often
            reasons = {str(work.part): f"{type(error).__name__}: {error}" for work in works}
        return {str(w.part): reasons[str(w.part)] for w in works if not (w.part / "config.json").is_file()}


class _Worker:
    """It opens the model once. Whatever goes wrong with a chunk is that chunk's."""

    def __init__(self, open: Callable[[], Speaker]) -> None:
        self.speaker = open()

    def __call__(self, row: dict[str, Work]) -> dict[str, str]:
        work = row["work"]
        try:
            self.speaker.make(work)
        except Exception as error:  # of any kind: it goes to the one who counts
            return {"part": str(work.part), "reason": f"{type(error).__name__}: {error}"}
        return {"part": str(work.part), "reason": ""}
