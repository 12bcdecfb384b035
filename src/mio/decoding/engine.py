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
from mio.decoding.prefixes import Prefixes
from mio.decoding.request import Event, Request
from mio.decoding.single import Single
from mio.models.backbone import Backbone
from mio.models.steps import Cache, Steps
from mio.types import MioError

MOST = 64  # lanes of one call to `generate`: what comes beyond them waits


@dataclass
class _Flight:
    """A request under way: its lanes, and what decides on its ids."""

    ticket: int
    request: Request
    lanes: list[Lane] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.decide: Search | Single = Search(self.request) if self.request.beams > 1 else Single(self.request)


class Engine:
    """`lanes`: answers in the batch at once, a beam search counting as many as its beams; others wait in line.

    `prefixes`: latest prompts whose keys are kept, so that prompts which begin alike share the reading; logits may then
    differ in their last bits from those of a prompt read at once. Used by one thread at a time. A request that fails
    costs itself only.
    """

    def __init__(self, model: Backbone, lanes: int = 8, positions: int | None = None, prefixes: int = 0) -> None:
        self.model, self.steps = model, Steps(model)
        self.positions = positions or model.config.positions
        self.width, self.prefixes = lanes, Prefixes(prefixes)
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
        check(request, self.width, self.positions, self.model.config.vocabulary)
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
        lane, logits = self._fill(flight.request.prompt)
        flight.lanes = [lane]
        return logits

    def _fill(self, prompt: Sequence[int]) -> tuple[Lane, Tensor]:
        """A new lane with the keys of a prompt, and the logits (1, vocabulary) after it."""
        lane = self.lanes.take()
        row = self.lanes.cache.tensor[:, :, lane.place]
        known, lane.length = self.prefixes.fill(prompt, row), len(prompt)
        ids = torch.tensor([[*prompt[known:]]], device=self.device)
        at = torch.arange(known, lane.length, device=self.device)[None]
        logits = self._logits(ids, at, slice(lane.place, lane.place + 1))
        self.prefixes.keep(prompt, row)
        return lane, logits

    def _logits(self, ids: Tensor, positions: Tensor, rows: slice) -> Tensor:
        """(B, vocabulary) after the last of ids (B, T)."""
        return self.model.logits(self.steps.extend(ids, positions, self.lanes.cache.rows(rows))[:, -1])

    def _advance(self, flight: _Flight, logits: Tensor) -> Event:
        request = flight.request
        before = len(request.out)
        try:
            parents = flight.decide.advance(logits)
        except MioError as error:
            request.error, parents = error, []
        if parents:
            self._go_on(flight, parents)
        else:
            self._land(flight)
        return Event(flight.ticket, tuple(request.out[before:]), not parents, request.error)

    def _go_on(self, flight: _Flight, parents: Sequence[int]) -> None:
        flight.lanes = self.lanes.follow(flight.lanes, parents, len(flight.request.prompt))
        if flight.decide.opens:
            flight.lanes.append(self._fill(flight.decide.opens)[0])
        for lane, id in zip(flight.lanes, flight.decide.next, strict=True):
            lane.id = id

    def _land(self, flight: _Flight) -> None:
        del self.flying[flight.ticket]
        for lane in flight.lanes:
            self.lanes.drop(lane, clean=flight.request.error is not None)


def check(request: Request, lanes: int, positions: int, vocabulary: int) -> None:
    """Refuse by name what could never be answered.

    Raises:
        MioError: too many positions or lanes, ids that are none, or ways of decoding that contradict each other.
    """
    if request.positions > positions:
        numbers = f"{len(request.prompt)} ids and an answer of {request.grammar.limits.tokens}"
        what = f"A prompt of {numbers} may take {request.positions} positions; the model has {positions}."
        raise MioError(what, fix="Shorten the prompt or ask for fewer tokens.")
    if request.lanes > lanes:
        what = f"{request.lanes} beams do not fit into {lanes} lanes."
        raise MioError(what, fix=f"Ask for {lanes} beams or fewer.")
    ids = (*request.prompt, *request.plain)
    if not request.prompt or min(ids) < 0 or max(ids) >= vocabulary:
        raise MioError(f"A prompt must be ids from 0 to {vocabulary - 1}, one or more.")
    if not 0 <= request.seed < 2**63:
        raise MioError(f"Seed {request.seed} is not from 0 to 2**63 - 1.")
    if request.guided and not request.plain:
        raise MioError("Guidance needs the prompt without its condition, too.", fix="Give `plain`.")
    if request.logprobs is not None and (request.beams > 1 or request.logprobs < 0):
        raise MioError("Log-probabilities of ids are noted without beams, 0 alternatives or more.")


def generate(model: Backbone, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Decode requests together; yields (request number, id) as they come and fills `Request.out`. Ids of beams come
    at their end. A request that cannot be answered, or fails on the way, has an `error`."""
    if not requests:
        return
    lanes = max(min(sum(r.lanes for r in requests), MOST), *(r.lanes for r in requests), 1)
    engine = Engine(model, lanes, min(max(r.positions for r in requests), model.config.positions))
    numbers = {}
    for number, request in enumerate(requests):
        try:
            numbers[engine.submit(request)] = number
        except MioError as error:
            request.error = error
    while engine.busy:
        for event in engine.step():
            yield from ((numbers[event.ticket], id) for id in event.ids)
