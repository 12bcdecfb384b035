"""Strangers: hang-ups, floods, slow sockets, mutated bodies and files, false names. The server outlives them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import openai
import pytest
from fabricate import fabricate_model
from serving import PICTURE, Live, data_url, running

import mio.serve.connection
from mio.decoding.engine import Engine
from mio.media import encode_audio, encode_image, encode_video
from mio.pipeline import Model, load
from mio.serve.app import ENDPOINTS, Options
from mio.serve.guard import Rules
from mio.serve.scheduler import Load
from mio.types import Audio, Image, Video

ENDLESS = {  # with other seeds the random model often ends its turn sooner
    "messages": [{"role": "user", "content": "Go on."}],
    "temperature": 2,
    "seed": 3,
    "max_tokens": 400,
    "stream": True,
}
SHORT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(fabricate_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def live(model: Model) -> Iterator[Live]:
    with running(model, Options(load=Load(lanes=4, queue=8))) as live:
        yield live


def post(live: Live, body: Any, path: str = CHAT) -> httpx.Response:
    return live.http.post(path, json=body)


def raw(body: dict[str, Any], path: str = CHAT) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def idle(live: Live) -> bool:
    return live.served.service.scheduler.idle


def hang_up(live: Live, count: int) -> float:
    """Clients that leave after the first chunk; the longest time in s until all their slots were free."""
    worst = 0.0
    for _ in range(0, count, 4):
        sockets = [live.connect() for _ in range(4)]
        for one in sockets:
            one.sendall(raw(ENDLESS))
        for one in sockets:
            assert b"200 OK" in one.recv(4096)
        for one in sockets:
            one.close()
        worst = max(worst, live.until(lambda: idle(live)))
    return worst


def test_clients_that_hang_up_free_their_slots(live: Live) -> None:
    assert hang_up(live, 8) < 5  # on a busy machine; a quiet one needs a few steps of the model
    assert post(live, SHORT).status_code == 200


@pytest.mark.slow
def test_a_hundred_hang_ups_free_their_slots_in_a_quarter_of_a_second(live: Live) -> None:
    assert hang_up(live, 100) < 0.25


def test_a_client_that_waits_for_the_whole_and_hangs_up_frees_its_slot(live: Live) -> None:
    one = live.connect()
    one.sendall(raw(ENDLESS | {"stream": False}))
    live.until(lambda: not idle(live))
    one.close()
    live.until(lambda: idle(live))


def flood(live: Live, count: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: post(live, SHORT | {"max_tokens": 12, "temperature": 2}), range(count)))


@pytest.mark.parametrize("count", [24, pytest.param(500, marks=pytest.mark.slow)])
def test_a_flood_is_answered_or_sent_away_and_then_all_is_normal(live: Live, count: int) -> None:
    replies = flood(live, count)
    counted = {status: sum(r.status_code == status for r in replies) for status in (200, 429)}
    assert sum(counted.values()) == count and counted[200] >= 12  # lanes and queue
    for reply in replies:
        if reply.status_code == 429:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.json()["error"]["code"] == "server_overloaded"
    assert post(live, SHORT).status_code == 200


def test_one_busy_client_does_not_keep_another_waiting(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six answers of one key share two lanes; one of another key, which comes while the first run, is taken next."""
    slow_down(monkeypatch, 0.02)
    rules = Rules(keys=frozenset({"greedy", "modest"}))
    with running(model, Options(rules, Load(lanes=2, queue=20))) as live, ThreadPoolExecutor(8) as pool:
        clients = {key: live.client(key) for key in rules.keys}
        order: list[str] = []

        def ask(key: str) -> None:
            body = ENDLESS | {"stream": False, "model": "", "max_tokens": 40}
            clients[key].chat.completions.create(**body)
            order.append(key)

        waits = [pool.submit(ask, "greedy") for _ in range(6)]
        live.until(lambda: len(live.served.service.scheduler.waiting) >= 4)
        waits.append(pool.submit(ask, "modest"))
        for wait in waits:
            wait.result()
        for client in clients.values():
            client.close()
    assert "modest" in order[:4]


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every step takes longer, so that no machine is too fast for what a test is about."""
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine: (time.sleep(seconds), step(engine))[1])


def test_a_failure_of_the_engine_ends_answers_with_an_event_and_the_next_are_fine(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live.client().chat.completions.create(**(ENDLESS | {"model": ""})) as stream:
        next(iter(stream))
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "step", lambda self: 1 / 0)
            with pytest.raises(openai.APIError, match="engine failed"):
                for _ in stream:
                    pass
    assert post(live, SHORT).status_code == 200
    assert live.http.get("/ready").status_code == 200


def test_a_server_that_drains_takes_nothing_new_and_finishes_the_old(model: Model) -> None:
    body = ENDLESS | {"model": "", "max_tokens": 100}
    with running(model) as live, live.client().chat.completions.create(**body) as stream:
        chunks = iter(stream)
        next(chunks)
        live.served.service.scheduler.drain()
        assert live.http.get("/ready").status_code == 503
        refused = post(live, SHORT)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "shutting_down"
        assert "retry-after" in refused.headers
        assert [*chunks][-1].choices[0].finish_reason in ("stop", "length")


def test_an_answer_that_takes_too_long_ends_with_an_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, 0.3)
    with running(model, Options(load=Load(seconds=0.2))) as live, live.client() as client:
        with pytest.raises(openai.APIError, match="too long"):
            list(client.chat.completions.create(**(ENDLESS | {"model": ""})))
        live.until(lambda: idle(live))


# ---------------------------------------------------------------------------------------------------- slow sockets


def test_slow_sockets_are_closed_while_others_are_served(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mio.serve.connection, "HEADERS", 0.5)
    options = Options(Rules(body_seconds=1.0))
    with running(model, options) as live:
        starts = [b"", b"GET / HTTP/1.1\r\nHost: ", raw(SHORT)[:-5]]
        slow = [live.connect() for start in starts for _ in range(10)]
        for number, one in enumerate(slow):
            one.sendall(starts[number // 10])
        assert post(live, SHORT).status_code == 200
        for number, one in enumerate(slow):
            one.settimeout(20)
            told = one.recv(9999)
            assert told == b"" if number < 20 else b" 408 " in told
            one.close()


def test_a_reader_that_does_not_read_is_cut_off(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of many megabytes are asked for and never taken."""
    monkeypatch.setattr(mio.serve.connection, "READING", 0.5)
    with running(model) as live, live.connect() as one:
        one.sendall(raw({"prompt": "x", "size": "2048x2048", "n": 2}, "/v1/images/generations"))
        live.until(lambda: live.served.service.metrics.total("mio_request_total"))
        live.until(lambda: not live.server.server_state.connections)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_cap_is_refused_while_it_comes(model: Model, chunked: bool) -> None:
    with running(model, Options(Rules(body=10_000))) as live, live.connect() as one:
        size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 99999999999"
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        one.sendall(size + b"\r\n\r\n" + (b"ffff\r\n" + b" " * 0xFFFF + b"\r\n" if chunked else b""))
        one.settimeout(20)
        assert b" 413 " in one.recv(9999)


# ---------------------------------------------------------------------------------------------------------- fuzzing


def mutated(value: Any, dice: random.Random) -> Any:
    """The same JSON with something odd in one place."""
    odd = [None, True, -1, 0, 1e308, 2**70, "", "\x00" * 9, "a" * 5000, [], {}, [[[]]], {"type": "text"}, "data:,", "ä"]
    if isinstance(value, dict) and value and dice.random() < 0.8:
        name = dice.choice(sorted(value))
        if dice.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return value | {name: mutated(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.8:
        place = dice.randrange(len(value))
        return [*value[:place], mutated(value[place], dice), *value[place + 1 :]]
    return dice.choice(odd)


BASE: dict[str, Any] = {
    "model": "",
    "messages": [
        {"role": "system", "content": "You are MIO."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Yes", "images": [], "parts": [{"type": "text", "start": 0, "end": 3}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(PICTURE, "image/png")}}]},
    ],
    "modalities": ["text"],
    "max_tokens": 3,
    "temperature": 1,
    "top_p": 0.9,
    "seed": 1,
    "n": 1,
    "stop": ["x"],
    "audio": {"voice": "theo", "format": "wav"},
    "stream_options": {"include_usage": True},
    "response_format": {"type": "text"},
}


def harmless(reply: httpx.Response) -> bool:
    """A result or the client's fault, without an address or a path."""
    told = "" if reply.status_code == 200 else reply.text
    return (reply.status_code == 200 or 400 <= reply.status_code < 500) and "0x" not in told and "/usr" not in told


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_bodies_get_a_result_or_a_named_fault(live: Live, count: int) -> None:
    dice = random.Random(0)
    for _ in range(count):
        reply = post(live, mutated(BASE, dice))
        assert harmless(reply), (reply.status_code, reply.text[:300])
    assert post(live, SHORT).status_code == 200


def files() -> dict[str, tuple[str, bytes]]:
    dots = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    sound = Audio((np.sin(np.arange(2000) / 9) / 2).astype(np.float32), 16_000)
    pictures = {format: ("image", encode_image(Image(dots), format)) for format in ("png", "jpg", "webp")}
    sounds = {format: ("audio", encode_audio(sound, format)) for format in ("wav", "flac", "ogg")}
    clips = {format: ("video", encode_video(Video(np.stack([dots] * 4), 4.0), format)) for format in ("mp4", "gif")}
    return pictures | sounds | clips


def bent(data: bytes, dice: random.Random) -> bytes:
    """A file with bytes changed, cut short, or grown."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 3, 30))):
        out[dice.randrange(len(out))] = dice.randrange(256)
    return bytes(out[: dice.choice((len(out), len(out) // 2, 20))]) + dice.randbytes(dice.choice((0, 0, 99)))


@pytest.mark.parametrize("count", [2, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused(live: Live, count: int) -> None:
    dice = random.Random(1)
    for kind, data in files().values():
        for _ in range(count):
            url = data_url(bent(data, dice), "application/octet-stream")
            content = [{"type": f"{kind}_url", f"{kind}_url": {"url": url}}]
            reply = post(live, SHORT | {"messages": [{"role": "user", "content": content}]})
            assert harmless(reply), (reply.status_code, reply.text[:300])
    assert post(live, SHORT).status_code == 200


def test_a_decoder_that_dies_costs_one_request(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> dict[str, Any]:
        content = [{"type": "image_url", "image_url": data_url(PICTURE, "image/png")}]
        return SHORT | {"messages": [{"role": "user", "content": content}]}

    assert post(live, asked()).status_code == 200
    for decoder in live.served.service.intake._decoders:
        if decoder._process is not None:
            decoder._process.kill()
    codes = [post(live, asked()).status_code for _ in range(4)]
    assert set(codes) <= {200, 400} and codes[-1] == 200


# ------------------------------------------------------------------------------------------------------- who may ask


def test_without_the_key_nothing_but_health_and_the_page_is_open(model: Model) -> None:
    """Every route there is, so that a new one cannot be forgotten."""
    with running(model, Options(Rules(keys=frozenset({"secret-key-1", "secret-key-2"})))) as live:
        paths = {path.replace("{name}", "tiny").replace("{id}", "1") for _, path in ENDPOINTS}
        paths |= {"/nothing", "//v1/models", "/v1/..;/health", "/health/", "/%68ealth/x"}
        open_paths = live.served.app.rules.open  # type: ignore[attr-defined]
        for path in (p for p in paths if p not in open_paths):
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                for key in ("", "Bearer", "Bearer secret-key", "Bearer secret-key-11", "Basic secret-key-1"):
                    reply = live.http.request(method, path, headers={"authorization": key} if key else {})
                    assert reply.status_code == 401, (method, path, key)
        assert live.http.get("/health").status_code == 200
        assert [m.id for m in live.client("secret-key-2").models.list()]
        with pytest.raises(openai.AuthenticationError):
            live.client("wrong").models.list()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:1@evil", "", "/health?", "a\\b"])
def test_other_names_of_the_server_are_refused(live: Live, host: str) -> None:
    """What DNS rebinding looks like from here."""
    reply = live.http.get("/v1/models", headers={"host": host})
    assert reply.status_code in (400, 421)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil"])
def test_pages_of_other_sites_can_neither_post_nor_read(live: Live, origin: str) -> None:
    reply = live.http.post(CHAT, json=SHORT, headers={"origin": origin})
    assert reply.status_code == 403 and "access-control-allow-origin" not in reply.headers
    assert live.http.get("/health", headers={"origin": live.base}).status_code == 200


def test_no_path_that_is_asked_for_reaches_the_disk(live: Live, tmp_path: Path) -> None:
    dots = ["..", "%2e%2e", "..%2f", "....//", "..\\", "%252e%252e", "/..", "\x00"]
    for dot in dots:
        with live.connect() as one:
            target = "/" + "/".join([dot] * 6) + "/etc/passwd"
            one.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            told = b""
            while data := one.recv(9999):
                told += data
        assert b"root:" not in told and (b" 404 " in told or b" 400 " in told)


def test_counts_add_up_after_all_that(live: Live) -> None:
    live.until(lambda: idle(live))
    total = live.served.service.metrics.total
    done = total("mio_answers_finished") + total("mio_answers_cancelled") + total("mio_answers_failed")
    assert total("mio_answers_started") == done > 0
