"""uvicorn, with the patience of a server that strangers talk to: for headers, for bodies and for readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS, IDLE = 10.0, 10  # seconds for all headers of a request; between two requests
READING = 30.0  # seconds in which a client must take what is waiting for it
HEADER_BYTES = 16 * 2**10
CONNECTIONS = 1024


class Protocol(H11Protocol):
    """Cuts off a client whose headers do not come in time, or who does not take the answer."""

    def __init__(self, config: uvicorn.Config, server_state: Any, app_state: dict[str, Any], **rest: Any) -> None:
        super().__init__(config, server_state, app_state, **rest)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm("headers", HEADERS)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in [*self._timers]:
            self._disarm(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm("headers")
        elif "headers" not in self._timers and not self.transport.is_closing():
            self._arm("headers", HEADERS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm("reading", READING)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._disarm("reading")

    def _arm(self, name: str, seconds: float) -> None:
        """Abort, not close: that would wait for a peer that does not read."""
        self._timers[name] = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()


class Server(uvicorn.Server):
    """On the first signal new work is refused and what is under way goes on; then, or on the second, it ends."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], idle: Callable[[], bool]) -> None:
        super().__init__(config)
        self.drain, self.idle = drain, idle
        self.seconds = 30.0
        self._leaving = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not uvicorn's own, which kills the process with the same signal once it has ended."""
        self.drain()
        if self._leaving or self.idle():
            self.force_exit, self.should_exit = self._leaving, True
        else:
            self._leaving = True
            asyncio.get_event_loop().call_soon_threadsafe(self._leave_soon)

    def _leave_soon(self) -> None:
        self._task = asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        end = asyncio.get_running_loop().time() + self.seconds
        while not self.idle() and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        self.should_exit = True


def configure(app: Any, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host,
        port,
        http=Protocol,
        ws="none",
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=5,
        limit_concurrency=CONNECTIONS,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        access_log=False,
        log_level="warning",
        lifespan="on",
    )
