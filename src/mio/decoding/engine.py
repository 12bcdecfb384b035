"""Continuous batching: requests join and leave between steps; a step is one batch over the rows of one static cache.

engine = Engine(model, lanes=8)
ticket = engine.submit(request)
while engine.busy:
    for event in engine.step(): ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from mio.decoding.beam import Search
from mio.decoding.lanes import Lane, Lanes
from mio.decoding.request import Event, Request
from mio.decoding.sampling import GREEDY, choose
from mio.models.backbone import Backbone, Cache
from mio.types import MioError

MOST = 64  # lanes of one call to `generate`: what comes beyond them waits


@dataclass
class _Flight:
    """A request under way: its lanes, and what decides on its ids."""

    ticket: int
    request: Request
    lanes: list[Lane] = field(default_factory=list)

    def __post_init__(self) -> None:
        wide = self.request.beams > 1
        self.decide: Search | _Single = _search(self.request) if wide else _Single(self.request)


class _Single:
    """One answer, an id at a time, in one lane."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.generator = torch.Generator().manual_seed(request.seed)
        self.seen = dict.fromkeys(request.prompt)  # the prompt counts, as in transformers

    def advance(self, logits: Tensor) -> list[int]:
        """Logits (1, V) -> the number of the lane that goes on: this one, or none."""
        request = self.request
        sampling = request.sampling.get(request.grammar.where, GREEDY)
        seen = torch.tensor([*self.seen]) if sampling.repetition_penalty != 1.0 else None
        allowed = torch.from_numpy(request.grammar.allowed())
        id = choose(logits[0], allowed, sampling, self.generator, seen)
        request.take(id)
        self.seen[id] = None
        return [] if request.grammar.finished else [0]

    @property
    def next(self) -> list[int]:
        return self.request.out[-1:]


def _search(request: Request) -> Search:
    return Search(request.prompt, request.grammar, request.sampling, request.beams)


class Engine:
    """`lanes`: answers in the batch at once, a beam search counting as many as its beams; others wait in line.

    Used by one thread at a time. A request that fails costs itself only.
    """

    def __init__(self, model: Backbone, lanes: int = 8, positions: int | None = None) -> None:
        self.model = model
        self.positions = positions or model.config.positions
        self.width = lanes
        self.device = model.lm_head.weight.device
        self.lanes = Lanes(Cache(model.config, lanes, self.positions, model.model.embed_tokens.weight))
        self.waiting: deque[_Flight] = deque()
        self.flying: dict[int, _Flight] = {}
        self._tickets = count()

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.flying)

    def submit(self, request: Request) -> int:
        """Put a request in line; returns the ticket that its events will carry.

        Raises:
            MioError: a prompt or budget that cannot fit, with the numbers.
        """
        self._check(request)
        ticket = next(self._tickets)
        self.waiting.append(_Flight(ticket, request))
        return ticket

    def cancel(self, ticket: int) -> None:
        """End a request, waiting or under way: the next step runs without it. Tickets of ended ones do no harm."""
        self.waiting = deque(f for f in self.waiting if f.ticket != ticket)
        if ticket in self.flying:
            self._land(self.flying[ticket])

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One more id for every answer in the batch, the first one for those that join."""
        ready = [*self._extend(), *self._join()]
        return [self._advance(flight, logits) for flight, logits in ready]

    def _check(self, request: Request) -> None:
        if request.positions > self.positions:
            numbers = f"{len(request.prompt)} ids and an answer of {request.grammar.limits.tokens}"
            what = f"A prompt of {numbers} may take {request.positions} positions; the model has {self.positions}."
            raise MioError(what, fix="Shorten the prompt or ask for fewer tokens.")
        if request.lanes > self.width:
            what = f"{request.lanes} beams do not fit into {self.width} lanes."
            raise MioError(what, fix=f"Ask for {self.width} beams or fewer.")
        size = self.model.config.vocabulary
        if not request.prompt or min(request.prompt) < 0 or max(request.prompt) >= size:
            raise MioError(f"A prompt must be ids from 0 to {size - 1}, one or more.")

    def _extend(self) -> list[tuple[_Flight, Tensor]]:
        """All that is under way as one batch: logits (lanes, V) of each."""
        used = self.lanes.used
        if not used:
            return []
        new, at = torch.tensor([[[lane.id], [lane.length]] for lane in used], device=self.device).unbind(1)
        logits = self._logits(new, at, slice(0, len(used)))
        for lane in used:
            lane.length += 1
        places = [(flight, [lane.place for lane in flight.lanes]) for flight in self.flying.values()]
        return [(flight, logits[place]) for flight, place in places]

    def _join(self) -> Iterator[tuple[_Flight, Tensor]]:
        """Those next in line for whom there is room, each prefilled on its own: company changes nothing."""
        room = self.width - sum(f.request.lanes for f in self.flying.values())
        while self.waiting and self.waiting[0].request.lanes <= room:
            flight = self.waiting.popleft()
            room -= flight.request.lanes
            self.flying[flight.ticket] = flight
            yield flight, self._prefill(flight)

    def _prefill(self, flight: _Flight) -> Tensor:
        lane = self.lanes.take()
        flight.lanes = [lane]
        prompt = torch.tensor([[*flight.request.prompt]], device=self.device)
        lane.length = prompt.shape[1]
        return self._logits(
            prompt, torch.arange(lane.length, device=self.device)[None], slice(lane.place, lane.place + 1)
        )

    def _logits(self, ids: Tensor, positions: Tensor, rows: slice) -> Tensor:
        """(B, vocabulary) after the last of ids (B, T)."""
        return self.model.logits(self.model.extend(ids, positions, self.lanes.cache.rows(rows))[:, -1])

    def _advance(self, flight: _Flight, logits: Tensor) -> Event:
        request, decide = flight.request, flight.decide
        before = len(request.out)
        try:
            parents = decide.advance(logits)
        except MioError as error:
            self._land(flight)
            return Event(flight.ticket, finished=True, error=error)
        if not parents:
            if isinstance(decide, Search):
                for id in decide.best:
                    request.take(id)
            self._land(flight)
            return Event(flight.ticket, tuple(request.out[before:]), finished=True)
        flight.lanes = self.lanes.follow(flight.lanes, parents, len(request.prompt))
        for lane, id in zip(flight.lanes, decide.next, strict=True):
            lane.id = id
        return Event(flight.ticket, tuple(request.out[before:]))

    def _land(self, flight: _Flight) -> None:
        del self.flying[flight.ticket]
        for lane in flight.lanes:
            self.lanes.drop(lane)


def generate(model: Backbone, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Decode requests together; yields (request number, id) as they come and fills `Request.out`. Ids of beams come
    at their end.

    Raises:
        MioError: a request that cannot fit; or, once all others are done, the error of the first that failed.
    """
    if not requests:
        return
    lanes = max(min(sum(r.lanes for r in requests), MOST), *(r.lanes for r in requests), 1)
    engine = Engine(model, lanes, min(max(r.positions for r in requests), model.config.positions))
    numbers = {engine.submit(request): number for number, request in enumerate(requests)}
    failed: list[MioError] = []
    while engine.busy:
        for event in engine.step():
            yield from ((numbers[event.ticket], id) for id in event.ids)
            failed += [event.error] if event.error else []
    if failed:
        raise failed[0]
