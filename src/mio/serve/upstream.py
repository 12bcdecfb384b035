"""A server that speaks OpenAI's completions over ids, such as vLLM's: requests to it, and what it says line by line."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from mio.types import MioError

SECONDS = 120.0  # without a word
LONGEST = 2**22  # bytes of a line; the first one of a stream may repeat the prompt
Told = Callable[["Call", "Word"], None]


class UpstreamError(MioError):
    """`passing`: whether the same may go well when it is asked again."""

    def __init__(self, what: str, passing: bool, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.passing = passing


@dataclass(frozen=True)
class Word:
    """What a call brings: ids, its end, or what went wrong."""

    ids: tuple[int, ...] = ()
    over: bool = False
    error: UpstreamError | None = None


@dataclass(frozen=True)
class Upstream:
    """`base`: where its API is, as in http://127.0.0.1:8000/v1; `key`: sent with every request, where there is one."""

    base: str
    key: str = ""

    def connect(self) -> HTTPConnection:
        parts = urlsplit(self.base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UpstreamError(f"{self.base!r} is no address.", False, "Give one as in http://127.0.0.1:8000/v1.")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return kind(parts.hostname, parts.port, timeout=SECONDS)

    def ask(self, connection: HTTPConnection, path: str, body: Mapping[str, Any] | None = None) -> HTTPResponse:
        """GET a path of the server, or POST where there is a body.

        Raises:
            UpstreamError: it cannot be reached, or answers with something other than 200.
        """
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        data = json.dumps(body).encode() if body is not None else None
        headers |= {"content-type": "application/json"} if data else {}
        try:
            connection.request("POST" if data else "GET", path, data, headers)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise UpstreamError(f"No answer from {self.base}: {error}.", True) from error
        if response.status != 200:
            told = response.read(1000).decode("utf-8", "replace")
            passing = response.status == 429 or response.status >= 500
            raise UpstreamError(f"{self.base} answers {response.status}: {told}", passing)
        return response

    @property
    def root(self) -> str:
        """Path of its API, as in /v1."""
        return urlsplit(self.base).path.rstrip("/")

    def object(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An answer that is one JSON object."""
        with closing(self.connect()) as connection:
            return _object(self.ask(connection, path, body).read(LONGEST))

    def models(self) -> list[dict[str, Any]]:
        """Its cards, each with an "id"."""
        cards = self.object(f"{self.root}/models").get("data") or []
        return [card for card in cards if isinstance(card, dict) and card.get("id")]

    def tokens(self, model: str, text: str) -> Any:
        """Ids of a text; vLLM has this beside its API."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        return self.object(f"{self.root.removesuffix('/v1')}/tokenize", body).get("tokens")

    def ids(self, body: Mapping[str, Any]) -> tuple[int, ...]:
        """Of a completion that is not streamed."""
        return _delta(self.object(f"{self.root}/completions", body))


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UpstreamError("The back end sent something other than JSON.", True) from error
    if not isinstance(value, dict):
        raise UpstreamError("The back end sent JSON, but no object.", False)
    return value


class Call:
    """One streamed completion, read by a thread of its own, which says every word to `tell`; `close` ends it early."""

    def __init__(self, upstream: Upstream, body: Mapping[str, Any], tell: Told, wait: float = 0.0) -> None:
        self.upstream, self.body, self.tell, self.wait = upstream, body, tell, wait
        self.closed = threading.Event()
        self.connection: HTTPConnection | None = None
        threading.Thread(target=self._work, name="call", daemon=True).start()

    def close(self) -> None:
        self.closed.set()
        held = self.connection.sock if self.connection is not None else None
        with suppress(OSError):
            if held is not None:
                held.shutdown(socket.SHUT_RDWR)  # which wakes a thread that reads; closing would not

    def _work(self) -> None:
        if self.closed.wait(self.wait):
            return
        try:
            for ids in self._ids():
                self.tell(self, Word(ids))
            self.tell(self, Word(over=True))
        except UpstreamError as error:
            self.tell(self, Word(error=error))
        except Exception as error:  # whatever a connection raises that is cut or closed
            self.tell(self, Word(error=UpstreamError(f"The back end broke off: {type(error).__name__}.", True)))

    def _ids(self) -> Iterator[tuple[int, ...]]:
        with closing(self.upstream.connect()) as self.connection:
            response = self.upstream.ask(self.connection, f"{self.upstream.root}/completions", self.body)
            while not self.closed.is_set():
                line = response.readline(LONGEST)
                if not line:
                    raise UpstreamError("The back end broke off its stream.", True)
                if line.strip() == b"data: [DONE]":
                    return
                if line.startswith(b"data:"):
                    yield _delta(_object(line[5:]))


def _delta(event: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of one event."""
    if "error" in event:
        raise UpstreamError(f"The back end says: {event['error']}", True)
    choices = event.get("choices") or []
    ids = choices[0].get("token_ids") if choices else ()
    if ids is None and choices[0].get("text"):
        raise UpstreamError("The back end sends text without its ids.", False, "vLLM sends them from 0.10.2 on.")
    return tuple(int(id) for id in ids or ())
