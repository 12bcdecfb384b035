"""An engine that has no model: it asks a back end, run by run, for the ids that the grammar lets through.

A run is a whole question (all ids so far, and which may come), so any replica can answer it, and a run that breaks off
is asked again from where it stopped. What comes is checked id by id: the grammar here has the last word.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.decoding.engine import check
from mio.decoding.request import Event, Request
from mio.decoding.runs import Run, run_of
from mio.decoding.sampling import GREEDY, Sampling
from mio.serve.errors import ApiError
from mio.serve.upstream import Call, Upstream, UpstreamError, Word
from mio.types import MioError

log = logging.getLogger("mio.serve")
PATIENCE = 0.02  # seconds of a step in which nothing comes
TRIES, WAIT = 4, 0.25  # of a run that fails; seconds until the second try, twice that until the next
STOPS = 100  # ids at most that end a run by themselves: vLLM takes 128


@dataclass(eq=False)
class _Flight:
    """A request under way, and the call that it waits for. `told`: how many of its ids the events have named."""

    ticket: int
    request: Request
    call: Call | None = None
    allowed: NDArray[np.int64] | None = None  # while the call lasts
    begun: int = 0  # how many ids there were before it
    told: int = 0
    tries: int = 0


@dataclass(frozen=True)
class Backend:
    """A server, the name of its model there, and the ids and positions of that model."""

    upstream: Upstream
    model: str
    vocabulary: int
    positions: int

    def body(self, prompt: Sequence[int], run: Run, how: Sampling, seed: int) -> dict[str, Any]:
        """A request for the ids of a run. Beams are searched nowhere but here: their places are decoded greedily."""
        return {
            "model": self.model,
            "prompt": [int(id) for id in prompt],
            "max_tokens": run.most,
            "structured_outputs": {"grammar": run.lark},
            "stop_token_ids": run.leave.tolist() if len(run.leave) <= STOPS else [],
            "temperature": how.temperature,
            "top_p": how.top_p or 1e-9,  # 0 is not allowed there, and this is as greedy
            "top_k": how.top_k,
            "min_p": how.min_p,
            "repetition_penalty": how.repetition_penalty,
            "seed": seed % 2**63,
            "return_token_ids": True,
        }

    def next(self, request: Request) -> dict[str, Any]:
        """A request for what may come next, streamed."""
        how = request.sampling.get(request.grammar.where, GREEDY)
        prompt, seed = (*request.prompt, *request.out), request.seed + len(request.out)
        return self.body(prompt, run_of(request.grammar), how, seed) | {"stream": True}

    def continued(self, prompt: Sequence[int], run: Run) -> list[int]:
        """The ids of a run, whole and greedily.

        Raises:
            UpstreamError: there is no answer, or one without ids.
        """
        return [*self.upstream.ids(self.body(prompt, run, GREEDY, 0))]


class Fleet:
    """The engine's own way of being asked (work.AnyEngine), in front of a back end."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.flying: dict[int, _Flight] = {}
        self._words: SimpleQueue[tuple[_Flight, Call | None, Word]] = SimpleQueue()
        self._tickets = count()

    def submit(self, request: Request) -> int:
        """Raises: MioError for a prompt or budget that cannot fit, or a way of decoding that the back end has not."""
        if request.guided:
            raise MioError("A back end behind this server has no guidance.", fix="Leave it at 1.")
        check(request, request.lanes, self.backend.positions, self.backend.vocabulary)
        flight = _Flight(next(self._tickets), request)
        self.flying[flight.ticket] = flight
        self._words.put((flight, None, Word(over=True)))  # so that its first run begins like any other
        return flight.ticket

    def cancel(self, ticket: int) -> None:
        flight = self.flying.pop(ticket, None)
        if flight is not None and flight.call is not None:
            flight.call.close()

    def step(self) -> list[Event]:
        return [
            self._advance(flight, word)
            for flight, call, word in self._said()
            if flight.ticket in self.flying and flight.call is call  # not of a run that is over
        ]

    def _said(self) -> Iterator[tuple[_Flight, Call | None, Word]]:
        """All words there are now; one that comes soon, where there is none."""
        with suppress(Empty):
            yield self._words.get(timeout=PATIENCE)
        for _ in range(self._words.qsize()):
            yield self._words.get()

    def _advance(self, flight: _Flight, word: Word) -> Event:
        try:
            lasting = self._take(flight, word)
            if not lasting:
                self._go_on(flight)
        except MioError as error:
            return self._event(flight, error)
        return self._event(flight)

    def _take(self, flight: _Flight, word: Word) -> bool:
        """Ids into the answer; whether the run lasts."""
        if word.error is not None:
            self._failed(flight, word.error)
            return False
        for id in word.ids:
            if flight.allowed is None or id not in flight.allowed:
                raise _stray(id)
            flight.request.take(id)
            flight.tries = 0
            if flight.request.grammar.allowed() is not flight.allowed:
                return False
        if word.over and flight.call is not None and len(flight.request.out) == flight.begun:
            self._failed(flight, UpstreamError("The back end ended a run without an id.", True))
        return not word.over

    def _failed(self, flight: _Flight, error: UpstreamError) -> None:
        """Raises: ApiError once it makes no sense to try again."""
        log.warning("%s", error)
        flight.tries += 1
        if not error.passing:
            raise ApiError("The back end refused the request.", status=500, code="engine_error") from error
        if flight.tries == TRIES:
            what = "The back end cannot be reached. Try again later."
            raise ApiError(what, status=503, code="engine_unreachable", retry_after=5) from error

    def _go_on(self, flight: _Flight) -> None:
        """What is forced needs no asking; then the next run."""
        if flight.call is not None:
            flight.call.close()
        request, grammar = flight.request, flight.request.grammar
        while len(grammar.allowed()) == 1:
            request.take(int(grammar.allowed()[0]))
        if grammar.finished:
            return
        flight.allowed, flight.begun = grammar.allowed(), len(request.out)
        wait = WAIT * 2 ** (flight.tries - 1) if flight.tries else 0.0
        body, upstream = self.backend.next(request), self.backend.upstream
        flight.call = Call(upstream, body, lambda call, word: self._words.put((flight, call, word)), wait)

    def _event(self, flight: _Flight, error: MioError | None = None) -> Event:
        request, finished = flight.request, flight.request.grammar.finished
        new, flight.told = tuple(request.out[flight.told :]), len(request.out)
        if finished or error is not None:
            request.error = error
            self.cancel(flight.ticket)
        return Event(flight.ticket, new, finished or error is not None, error)


def _stray(id: int) -> ApiError:
    log.error("the back end sent id %d, which its grammar does not let through", id)
    return ApiError("The back end does not keep to its grammar.", status=500, code="engine_error")
