"""Load that lasts: a soak, slow sockets by the hundred, an end amid twenty answers. A short soak runs always."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fabricate import fabricate_model
from serving import PICTURE, Live, data_url, process, running

from mio.pipeline import Model, load

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture(scope="module")
def live(model: Model) -> Iterator[Live]:
    with running(model) as live:
        yield live


# ------------------------------------------------------------------------------------------------------------- soak


@dataclass(frozen=True)
class Asked:
    """A request, what status it gets, and whether the client hangs up after the first bytes."""

    body: dict[str, Any]
    path: str = CHAT
    status: int = 200
    cut: bool = False


def chat(content: Any = "Hi", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 12, "temperature": 2, **fields}


MIXED = (
    Asked(chat()),
    Asked(chat(modalities=["image"])),
    Asked(chat([{"type": "image_url", "image_url": data_url(PICTURE, "image/png")}])),
    Asked(chat(stream=True)),
    Asked(chat(stream=True, max_tokens=200), cut=True),
    Asked({"input": "x", "max_tokens": 40, "response_format": "wav"}, "/v1/audio/speech"),
    Asked({"prompt": "x"}, "/v1/images/generations"),
    Asked(chat(temperature=9), status=400),
)


def send(http: httpx.Client, asked: Asked) -> int:
    with http.stream("POST", asked.path, json=asked.body) as reply:
        for _ in reply.iter_bytes():
            if asked.cut:
                break
    return reply.status_code


def soak(base: str, count: int) -> None:
    """Requests of all kinds in turn by eight clients; each gets what it should."""
    asked = [MIXED[n % len(MIXED)] for n in range(count)]
    with httpx.Client(base_url=base, timeout=60) as http, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: send(http, one), asked)) == [one.status for one in asked]


def added_up(metrics: str) -> bool:
    """Whether every answer that was begun has come to one of three ends."""
    found = dict(line.split() for line in metrics.splitlines() if line.startswith("mio_answers_"))
    ends = sum(int(found.get(f"mio_answers_{end}", 0)) for end in ("finished", "cancelled", "failed"))
    return 0 < int(found["mio_answers_started"]) == ends


def test_requests_of_all_kinds_side_by_side_get_what_they_should_and_are_counted(live: Live) -> None:
    soak(live.base, 2 * len(MIXED))
    live.until(lambda: added_up(live.http.get("/metrics").text))


@dataclass(frozen=True)
class State:
    """What a process holds. `memory` in KiB."""

    pid: int
    memory: int = field(init=False)
    files: int = field(init=False)

    def __post_init__(self) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        object.__setattr__(self, "memory", int(line.split()[1]))
        object.__setattr__(self, "files", len(os.listdir(f"/proc/{self.pid}/fd")))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1000, 10_000])
def test_a_soak_leaves_nothing_behind(folder: Path, tmp_path: Path, count: int) -> None:
    """Memory, open files, temporary files, and the counts."""
    with process(folder, TMPDIR=str(tmp_path)) as (server, base), httpx.Client(base_url=base, timeout=60) as http:
        soak(base, count // 5)
        before = State(server.pid)
        soak(base, count)
        end = time.monotonic() + 30
        while not added_up(http.get("/metrics").text) and time.monotonic() < end:
            time.sleep(0.1)
        after = State(server.pid)
        print(f"{count} requests: {before} -> {after}")
        assert added_up(http.get("/metrics").text)
    assert after.files <= before.files + 2  # the client that asks for the counts
    assert after.memory < 1.03 * before.memory
    assert not [*tmp_path.iterdir()]


# --------------------------------------------------------------------------------------------------------- sockets


@pytest.mark.slow
def test_three_hundred_slow_sockets_are_closed_while_twenty_clients_work(model: Model) -> None:
    """Silent ones and half headers after 10 s, half bodies and those who do not read after 30 s."""
    half = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{{"
    with running(model) as live:
        slow = [live.connect() for _ in range(300)]
        for number, one in enumerate(slow):
            one.sendall((b"", b"GET / HTTP/1.1\r\nHost: ", half.encode())[number % 3])
        begun, statuses = time.monotonic(), []
        with ThreadPoolExecutor(20) as pool:
            while time.monotonic() - begun < 35:
                statuses += pool.map(lambda _: live.http.post(CHAT, json=chat(max_tokens=3)).status_code, range(20))
        assert {*statuses} == {200} and len(statuses) >= 40
        for number, one in enumerate(slow):
            one.settimeout(1)
            told = one.recv(9999)
            assert b" 408 " in told if number % 3 == 2 else told == b""
            one.close()


# ------------------------------------------------------------------------------------------------------------- end


@pytest.mark.slow
def test_twenty_answers_finish_or_are_told_when_the_server_is_ended(folder: Path) -> None:
    with process(folder) as (server, base), httpx.Client(base_url=base, timeout=60) as http:
        begun: list[int] = []

        def read(number: int) -> str:
            body = chat(stream=True, max_tokens=400, seed=number)
            with http.stream("POST", CHAT, json=body) as reply:
                lines: list[str] = []
                for line in reply.iter_lines():
                    begun.append(number)
                    lines += [line] if line else []
            return "".join(lines[-2:])

        with ThreadPoolExecutor(20) as pool:
            ends = [pool.submit(read, number) for number in range(20)]
            while len({*begun}) < 4:
                time.sleep(0.01)
            server.send_signal(signal.SIGTERM)
            told = time.monotonic()
            assert all("finish_reason" in end.result() or "shutting_down" in end.result() for end in ends)
        assert server.wait(45) == 0 and time.monotonic() - told < 40
