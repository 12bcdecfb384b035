"""One thread owns the model; answers join its batch from a bounded queue and leave it when nobody wants them any more.

A job that fails costs itself. A failure of the engine costs the answers under way, and the next ones get a new engine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from mio.decoding.engine import Engine
from mio.decoding.request import Event, Request
from mio.pipeline import Model
from mio.serve.answer import Piece, Usage
from mio.serve.errors import ApiError, as_api_error
from mio.serve.metrics import Metrics
from mio.serve.reader import Reader, counts
from mio.serve.work import AnyEngine, Ids, Untouched, Work, opened
from mio.types import MioError

log = logging.getLogger("mio.serve")
QUICK = 0.02  # seconds of encoding between two steps of the model


@dataclass(frozen=True)
class Load:
    """`lanes`: answers in the batch; `queue`: those that may wait; `seconds`: from the request to the last piece."""

    lanes: int = 4
    queue: int = 64
    seconds: float = 600.0


@dataclass(frozen=True)
class End:
    """`reason`: "stop", "length", or "cancelled"."""

    reason: str
    usage: Usage


Told = Piece | Ids | End | ApiError


class Stream:
    """What comes of one job, for one coroutine: pieces, then an `End`. Errors are raised where they come."""

    def __init__(self, job: Work, client: str, number: int) -> None:
        self.job, self.client, self.number = job, client, number
        self.begun = time.monotonic()
        self.cancelled = False
        self._events: asyncio.Queue[Told] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def put(self, event: Told) -> None:
        """In the loop's thread."""
        self._events.put_nowait(event)

    async def events(self) -> AsyncIterator[Piece | Ids | End]:
        while True:
            event = await self._events.get()
            if isinstance(event, ApiError):
                raise event
            yield event
            if isinstance(event, End):
                return

    def cancel(self) -> None:
        """The model stops before its next step; what is there so far ends with an `End`."""
        self.cancelled = True


class Post:
    """From the model's thread to the coroutines. Events are handed over together: every call wakes up a loop."""

    def __init__(self) -> None:
        self._held: list[tuple[Stream, Told]] = []

    def put(self, stream: Stream, event: Told) -> None:
        self._held.append((stream, event))

    def send(self) -> None:
        held, self._held = self._held, []
        for loop in {stream.loop for stream, _ in held}:
            with suppress(RuntimeError):  # the loop has closed: nobody listens
                loop.call_soon_threadsafe(_deliver, [pair for pair in held if pair[0].loop is loop])


def _deliver(held: Sequence[tuple[Stream, Told]]) -> None:
    for stream, event in held:
        stream.put(event)


@dataclass
class _Run:
    """An answer in the batch."""

    stream: Stream
    request: Request
    reader: Reader | Untouched
    last: float = 0.0  # when its newest id came


class Scheduler:
    """`submit` from a coroutine; all else happens in the thread, between `start` and `stop`. `engine` makes what
    decodes; by default, it is the model itself."""

    def __init__(
        self, model: Model, load: Load, metrics: Metrics, engine: Callable[[], AnyEngine] | None = None
    ) -> None:
        self.model, self.load, self.metrics = model, load, metrics
        self.waiting: list[Stream] = []
        self.running: dict[int, _Run] = {}
        self.draining = self.stopped = False
        self._changed = threading.Condition()
        self._numbers, self._post = count(), Post()
        self._mean = 1.0  # seconds of an answer, lately
        self._new_engine = engine or self._own_engine
        self._engine = self._new_engine()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        metrics.gauges["mio_requests_running"] = lambda: len(self.running)
        metrics.gauges["mio_requests_waiting"] = lambda: len(self.waiting)

    def _own_engine(self) -> AnyEngine:
        return Engine(self.model.backbone, max(self.load.lanes, 5))  # 5: the paper's beams

    def start(self) -> None:
        self._thread.start()

    @property
    def ready(self) -> bool:
        return self._thread.is_alive() and not self.draining

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting)

    def submit(self, jobs: Sequence[Work], client: str = "") -> list[Stream]:
        """Put the jobs of one request in line, all or none.

        Raises:
            ApiError: 429 when the line is full, 503 when the server shuts down.
        """
        with self._changed:
            if self.draining:
                raise self._refusal("shutting_down", "The server is shutting down.", 503, 5)
            if len(self.waiting) + len(jobs) > self.load.queue:
                raise self._refusal("server_overloaded", "The server is busy.", 429, self._patience())
            streams = [Stream(job, client, next(self._numbers)) for job in jobs]
            self.waiting += streams
            self._changed.notify()
        self.metrics.count("mio_answers_started", by=len(streams))
        return streams

    def _refusal(self, code: str, what: str, status: int, seconds: int) -> ApiError:
        self.metrics.count("mio_rejections_total", {"reason": code})
        return ApiError(f"{what} Try again later.", status=status, code=code, retry_after=seconds)

    def _patience(self) -> int:
        """Seconds until there may be room."""
        return round(min(max(self._mean * len(self.waiting) / self.load.lanes, 1), 60))

    def drain(self) -> None:
        """Take no new work."""
        with self._changed:
            self.draining = True
            self._changed.notify()

    def stop(self, seconds: float = 30.0) -> None:
        """Let what is under way finish, for so long; tell the rest that the server shuts down."""
        self.drain()
        end = time.monotonic() + seconds
        while not self.idle and time.monotonic() < end and self._thread.is_alive():
            time.sleep(0.02)
        with self._changed:
            self.stopped = True
            self._changed.notify()
        self._thread.join(10)

    # ------------------------------------------------------------------------------------------ the model's thread

    def _work(self) -> None:
        while self._awake():
            try:
                self._sweep()
                self._admit()
                self._advance()
            except Exception:
                log.exception("the engine failed; it starts anew")
                self._fail_all(ApiError("The engine failed.", status=500, code="engine_error"))
                self._engine = self._new_engine()
            self._post.send()
        self._fail_all(ApiError("The server is shutting down.", status=503, code="shutting_down"))
        self._post.send()

    def _awake(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or self.running or self.stopped)
            return not self.stopped

    def _sweep(self) -> None:
        """Take out what nobody waits for, and what has had its time."""
        now = time.monotonic()
        for ticket, run in [*self.running.items()]:
            if run.stream.cancelled or self._late(run.stream, now):
                self._engine.cancel(ticket)
                self._end(ticket, "cancelled")
        with self._changed:
            gone = [s for s in self.waiting if s.cancelled or self._late(s, now)]
            self.waiting = [s for s in self.waiting if s not in gone]
        for stream in gone:
            self._over(stream, End("cancelled", Usage({}, {})))

    def _late(self, stream: Stream, now: float) -> bool:
        late = now - stream.begun > self.load.seconds
        if late:
            self._post.put(stream, ApiError("The answer took too long.", status=503, code="deadline_exceeded"))
        return late

    def _admit(self) -> None:
        """Jobs as long as encoding them is quick; what takes longer would keep those under way waiting."""
        end = time.monotonic() + QUICK
        while time.monotonic() < end and (stream := self._next()) is not None:
            self.metrics.observe("mio_queue_seconds", time.monotonic() - stream.begun)
            try:
                request, reader = opened(self.model, stream.job)
                ticket = self._engine.submit(request)
            except Exception as error:
                self._over(stream, self._told(error))
            else:
                self.running[ticket] = _Run(stream, request, reader, stream.begun)

    def _next(self) -> Stream | None:
        """Of the client with the fewest answers under way, the one that has waited longest."""
        with self._changed:
            if not self.waiting or len(self.running) >= self.load.lanes:
                return None
            busy = Counter(run.stream.client for run in self.running.values())
            stream = min(self.waiting, key=lambda s: (busy[s.client], s.number))
            self.waiting.remove(stream)
            return stream

    def _advance(self) -> None:
        for event in self._engine.step() if self.running else ():
            run = self.running[event.ticket]
            try:
                self._time(run, event)
                for piece in run.reader.feed(event.ids):
                    self._post.put(run.stream, piece)
                if event.error is not None:
                    raise event.error
                if event.finished:
                    self._end(event.ticket, "stop" if run.request.grammar.left > 0 else "length")
            except Exception as error:
                self._engine.cancel(event.ticket)
                self.running.pop(event.ticket, None)
                self._over(run.stream, self._told(error))

    def _told(self, error: Exception) -> ApiError:
        if not isinstance(error, MioError):
            log.error("a request failed", exc_info=error)
        return as_api_error(error)

    def _time(self, run: _Run, event: Event) -> None:
        if event.ids:
            now, first = time.monotonic(), len(run.request.out) == len(event.ids)
            self.metrics.observe("mio_ttft_seconds" if first else "mio_inter_token_seconds", now - run.last)
            run.last = now

    def _end(self, ticket: int, reason: str) -> None:
        run = self.running.pop(ticket)
        for piece in run.reader.close() if reason != "cancelled" else ():
            self._post.put(run.stream, piece)
        vocab = self.model.processor.vocab
        usage = Usage(counts(vocab, run.request.prompt), counts(vocab, run.request.out))
        for direction, numbers in (("in", usage.prompt), ("out", usage.completion)):
            for kind, number in numbers.items():
                self.metrics.count("mio_tokens_total", {"modality": kind, "dir": direction}, number)
        self._mean += 0.1 * (time.monotonic() - run.stream.begun - self._mean)
        self._over(run.stream, End(reason, usage))

    def _over(self, stream: Stream, last: End | ApiError) -> None:
        result = "failed" if isinstance(last, ApiError) else "cancelled" if last.reason == "cancelled" else "finished"
        self.metrics.count(f"mio_answers_{result}")
        self._post.put(stream, last)

    def _fail_all(self, error: ApiError) -> None:
        with self._changed:
            streams = [run.stream for run in self.running.values()]
            streams += self.waiting if self.stopped else []
            self.running.clear()
            self.waiting = [] if self.stopped else self.waiting
        for stream in streams:
            self._over(stream, error)
