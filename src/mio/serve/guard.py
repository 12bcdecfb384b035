"""The outermost layer: who may ask, from where, how much and how slowly. Decides on `scope["path"]` alone."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mio.serve.errors import ApiError
from mio.serve.metrics import Metrics

BODY, BODY_SECONDS = 64 * 2**20, 30.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Rules:
    """`keys`: any of them opens what is not in `open`, exact paths that need none; no keys: everything is open.
    `hosts`: names that the server goes by, empty for any. `body`: most bytes of a request."""

    keys: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset({"/health"})
    hosts: frozenset[str] = LOOPBACK
    body: int = BODY
    body_seconds: float = BODY_SECONDS

    def admits(self, token: str) -> bool:
        """Compared as digests of equal length, in constant time, with every key."""
        given = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        return sum(hmac.compare_digest(given, hashlib.sha256(key.encode()).digest()) for key in self.keys) > 0


class Guard:
    def __init__(self, app: ASGIApp, rules: Rules, metrics: Metrics, endpoints: Iterable[str]) -> None:
        self.app, self.rules, self.metrics = app, rules, metrics
        self.endpoints = frozenset(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _Writer(scope, send, self))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, writer: _Writer) -> None:
        try:
            self._check(scope)
        except ApiError as error:
            await refuse(error, writer)
            return
        await self.app(scope, self._capped(scope, receive), writer)

    def _check(self, scope: Scope) -> None:
        """Raises: ApiError for a name that is not ours, another site's page, a missing key, or too long a body."""
        found = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = found.get(b"host", ""), found.get(b"origin", "")
        if self.rules.hosts and _name(host) not in self.rules.hosts:
            raise ApiError("The server does not go by this name.", status=421, code="unknown_host")
        if origin and origin.partition("://")[2] != host:
            raise ApiError("Pages of other sites may not use this server.", status=403, code="foreign_origin")
        if self.rules.keys and scope["path"] not in self.rules.open:
            scheme, _, token = found.get(b"authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not self.rules.admits(token):
                raise ApiError("Give a valid API key.", status=401, code="invalid_api_key")
        length = found.get(b"content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.rules.body:
            raise _too_large(self.rules.body)

    def _capped(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that counts bytes and seconds until the body is whole."""
        end, came, whole = time.monotonic() + self.rules.body_seconds, 0, False

        async def capped() -> Message:
            nonlocal came, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(end - time.monotonic(), 0))
            except TimeoutError as error:
                raise ApiError("The body came too slowly.", status=408, code="request_timeout") from error
            came += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if came > self.rules.body:
                raise _too_large(self.rules.body)
            return message

        return capped


def _name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _too_large(most: int) -> ApiError:
    return ApiError(f"The body has more than {most:,} bytes.", status=413, code="request_too_large")


class _Writer:
    """`send` that adds headers and counts."""

    def __init__(self, scope: Scope, send: Send, guard: Guard) -> None:
        self.scope, self.send, self.guard = scope, send, guard

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_extra()]}
            path = self.scope["path"]
            endpoint = path if path in self.guard.endpoints else "other"
            labels = {"endpoint": endpoint, "status": str(message["status"])}
            self.guard.metrics.count("mio_request_total", labels)
        await self.send(message)


def _extra() -> list[tuple[bytes, bytes]]:
    headers = {**HEADERS, "x-request-id": f"req_{uuid.uuid4().hex}"}
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def refuse(error: ApiError, send: Send) -> None:
    """An error as a whole response, before any route has been found; the connection ends with it."""
    body = json.dumps(error.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    told: Any = [(k.encode(), v.encode()) for k, v in (headers | error.headers()).items()]
    await send({"type": "http.response.start", "status": error.status, "headers": told})
    await send({"type": "http.response.body", "body": body})
