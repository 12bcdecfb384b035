"""Fetching media by URL: off by default, exact hosts only, and never an address inside."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from mio.serve.errors import ApiError
from mio.serve.fetch import Fetcher, public
from mio.serve.protocol import Source

GOOD = "https://media.example/a.png"
URLS = [
    "http://media.example/a.png",
    "ftp://media.example/a.png",
    "file:///etc/passwd",
    "gopher://media.example/",
    "https://evil.example/a.png",
    "https://media.example.evil.example/",
    "https://evil.example/media.example",
    "https://media.example@127.0.0.1/",
    "https://127.0.0.1@media.example/",
    "https://user:password@media.example/",
    "https://media.example:8443/",
    "https://media.example\\@127.0.0.1/",
    "https://media.example\\.evil.example/",
    "https://media.example#@127.0.0.1/",
    "https://media.example\t/",
    "https://media.example /",
    " https://media.example/",
    "https://media.example\n.evil.example/",
    "https:/media.example/",
    "https:media.example",
    "//media.example/",
    "https://ｍedia.example/",
    "https://medıa.example/",
    "https://media.example。evil/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://2130706433/",
    "https://169.254.169.254/latest/meta-data/",
    "https://localhost/",
    "https://0/",
    "https://media.example./",
    "HTTPS://EVIL.EXAMPLE/",
    "https://%6dedia.example/",
    "https://media%2eexample/",
    "jar:https://media.example!/",
    "https://",
    "https://:443/",
    "x" * 3000,
]
INSIDE = [
    *("127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1"),
    *("255.255.255.255", "192.0.2.1", "198.18.0.1", "fec0::1", "ff02::1"),
]


class Net:
    """A world of names, with every connection noted; answers come one after the other over a pair of sockets."""

    def __init__(self, names: Callable[[str], list[str]], *answers: bytes) -> None:
        self.names, self.answers, self.hits = names, list(answers), list[str]()
        self.peers = list[socket.socket]()

    async def resolve(self, host: str) -> list[str]:
        return self.names(host)

    async def connect(self, address: str, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.hits.append(address)
        ours, theirs = socket.socketpair()
        theirs.sendall(self.answers.pop(0))
        theirs.shutdown(socket.SHUT_WR)
        self.peers.append(theirs)
        return await asyncio.open_connection(sock=ours)

    def fetch(self, url: str, *hosts: str) -> bytes:
        fetcher = Fetcher(frozenset(hosts), self.resolve, self.connect)
        try:
            return asyncio.run(fetcher.fetch(Source("image", "messages[0]", url=url))).data
        finally:
            for peer in self.peers:
                peer.close()


def found(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def moved(url: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: " + url + b"\r\nContent-Length: 0\r\n\r\n"


def outside(host: str) -> list[str]:
    return ["93.184.216.34"]


@pytest.mark.parametrize("url", URLS)
def test_no_other_url_makes_a_connection(url: str) -> None:
    net = Net(outside)
    with pytest.raises(ApiError) as caught:
        net.fetch(url, "media.example")
    assert not net.hits and caught.value.label == "invalid_url"


def test_by_default_no_url_makes_a_connection() -> None:
    net = Net(outside)
    with pytest.raises(ApiError, match="data: URL"):
        net.fetch(GOOD)
    assert not net.hits


@pytest.mark.parametrize("address", INSIDE)
def test_an_allowed_name_that_points_inside_is_not_followed(address: str) -> None:
    assert not public(address)
    net = Net(lambda host: ["93.184.216.34", address])
    with pytest.raises(ApiError, match="public internet"):
        net.fetch(GOOD, "media.example")
    assert not net.hits


@pytest.mark.parametrize("url", [b"https://127.0.0.1/", b"http://media.example/", b"https://evil.example/", b"//evil/"])
def test_a_redirect_is_held_to_the_same_rules(url: bytes) -> None:
    net = Net(outside, moved(url))
    with pytest.raises(ApiError):
        net.fetch(GOOD, "media.example")
    assert len(net.hits) == 1


def test_a_name_that_changes_its_mind_is_asked_again_for_each_connection() -> None:
    """A resolver that rebinds: public at first, inside when the redirect is followed."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    net = Net(lambda host: next(answers), moved(b"/b.png"))
    with pytest.raises(ApiError, match="public internet"):
        net.fetch(GOOD, "media.example")
    assert net.hits == ["93.184.216.34"]


def test_the_connection_goes_to_the_address_that_was_checked_and_follows_a_few_redirects() -> None:
    net = Net(outside, moved(b"/b"), moved(b"https://media.example/c"), found(b"picture"))
    assert net.fetch(GOOD, "media.example") == b"picture"
    assert net.hits == ["93.184.216.34"] * 3
    with pytest.raises(ApiError, match="too often"):
        Net(outside, *[moved(b"/b")] * 4).fetch(GOOD, "media.example")


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Len",
     moved(b"\xff"), b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", found(b"x")[:-1]],
)  # fmt: skip
def test_what_is_no_file_is_an_error_of_the_request(answer: bytes) -> None:
    with pytest.raises(ApiError, match="could not be fetched"):
        Net(outside, answer).fetch(GOOD, "media.example")
