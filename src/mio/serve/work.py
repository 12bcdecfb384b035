"""What the scheduler takes on: a job, whose ids become pieces, or a run of ids for a front, which stay ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mio.decoding.request import Event, Request
from mio.decoding.runs import Run
from mio.decoding.sampling import Sampling
from mio.pipeline import Job, Model
from mio.serve.answer import Piece
from mio.serve.reader import Reader


class AnyEngine(Protocol):
    """What decodes: the model of this process, or a fleet of others. Used by one thread at a time.

    `submit` gives the ticket that a request's events carry; `step` brings what has come since the last one, and may
    wait a little for it; a ticket cancelled has no more events.
    """

    def submit(self, request: Request) -> int: ...

    def step(self) -> Sequence[Event]: ...

    def cancel(self, ticket: int) -> None: ...


@dataclass(frozen=True)
class Continuation:
    """The ids that follow a prompt of ids, as far as a run goes."""

    prompt: tuple[int, ...]
    run: Run
    sampling: Sampling
    seed: int

    @property
    def request(self) -> Request:
        return Request(self.prompt, self.run.grammar(), {"text": self.sampling}, self.seed)


@dataclass(frozen=True)
class Ids:
    """A piece of a continuation."""

    ids: tuple[int, ...]


class Untouched:
    """Ids as they come, without the one that ends a run which is full."""

    def __init__(self, most: int) -> None:
        self.left = most

    def feed(self, ids: Iterable[int]) -> Iterator[Ids]:
        kept = tuple(ids)[: self.left]
        self.left -= len(kept)
        if kept:
            yield Ids(kept)

    def close(self) -> Iterator[Piece]:
        return iter(())


Work = Job | Continuation


def opened(model: Model, work: Work) -> tuple[Request, Reader | Untouched]:
    """What the engine is asked, and what reads its ids.

    Raises:
        MioError: as `Model.request`.
    """
    if isinstance(work, Continuation):
        return work.request, Untouched(work.run.most)
    return model.request(work), Reader(model, work.out)
