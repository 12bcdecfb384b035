"""The one place that opens a connection because a client said so. Off unless the operator names the hosts.

https on port 443 to an exact host; every address it resolves to must be public, and the connection goes to the address
that was checked; the same again for each redirect.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from mio.serve.errors import ApiError
from mio.serve.protocol import BY_ROW, KINDS, Source

SECONDS, REDIRECTS = 10.0, 3
_PLAIN = re.compile(r"https://[a-z0-9.-]{1,253}(?::443)?(?:[/?][!-~]*)?", re.ASCII | re.IGNORECASE)
NAT64 = IPv6Network("64:ff9b::/96")

Resolve = Callable[[str], Awaitable[list[str]]]
Connect = Callable[[str, str], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large. None that carries an address of IPv4 within it does."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip.is_site_local or ip in NAT64):
        return False
    return ip.is_global and not ip.is_multicast


async def resolve(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def connect(address: str, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address, 443, ssl=ssl.create_default_context(), server_hostname=host)


@dataclass(frozen=True)
class Fetcher:
    """`hosts`: exact names that may be fetched from; empty: none."""

    hosts: frozenset[str] = frozenset()
    resolve: Resolve = field(default=resolve)
    connect: Connect = field(default=connect)

    async def fetch(self, source: Source) -> Source:
        """Raises: ApiError where the URL is not allowed, or what is there cannot be had in time and size."""
        most = BY_ROW[source.row].most if source.row else max(kind.most for kind in KINDS)
        try:
            data = await asyncio.wait_for(self._follow(source.url, source.param, most), SECONDS)
        except (OSError, TimeoutError, h11.RemoteProtocolError, LookupError, ValueError) as error:
            if isinstance(error, ApiError):
                raise
            raise _fault(source.param, "The URL could not be fetched.") from error
        return replace(source, data=data, url="")

    def host(self, url: str, param: str) -> str:
        """The host of a URL that may be fetched."""
        if not self.hosts:
            raise _fault(param, "This server fetches no URLs; send the file as a data: URL.")
        parts = urlsplit(url) if _PLAIN.fullmatch(url) else None
        if parts is None or parts.hostname not in self.hosts:
            raise _fault(param, "This URL is not one of the hosts that the server may fetch from over https.")
        return parts.hostname

    async def _follow(self, url: str, param: str, most: int) -> bytes:
        for _ in range(REDIRECTS + 1):
            host = self.host(url, param)
            addresses = await self.resolve(host)
            if not addresses or not all(map(public, addresses)):
                raise _fault(param, "The URL's host is not on the public internet.")
            reader, writer = await self.connect(addresses[0], host)
            try:
                found = await _get(reader, writer, host, urlsplit(url), most)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise _fault(param, "The URL is redirected too often.")


def _fault(param: str, what: str) -> ApiError:
    return ApiError(what, param=param, code="invalid_url")


async def _get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, parts: SplitResult, most: int
) -> bytes | str:
    """The body, or where a redirect leads."""
    client, data = h11.Connection(h11.CLIENT), bytearray()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = [("Host", host), ("Connection", "close"), ("Accept-Encoding", "identity"), ("User-Agent", "mio")]
    writer.write(client.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
    writer.write(client.send(h11.EndOfMessage()) or b"")
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(2**16))
        elif isinstance(event, h11.Response):
            if 300 <= event.status_code < 400:
                return dict(event.headers)[b"location"].decode("ascii")
            if event.status_code != 200:
                raise ValueError("no file there")
        elif isinstance(event, h11.Data):
            data += event.data
            if len(data) > most:
                raise ValueError("too large")
        else:
            return bytes(data)
