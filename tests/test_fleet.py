"""A front without a language model answers as the model itself does: the back end here is a real server of ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricate import fabricate_model
from serving import PICTURE, Live, data_url, running

import mio.serve.fleet
from mio.decoding.engine import Engine
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY
from mio.pipeline import Job, Model, load, user
from mio.serve.app import Options
from mio.serve.fleet import Backend, Fleet
from mio.serve.front import media_plane, reach
from mio.serve.upstream import Upstream
from mio.types import MioError, Turns

OUTS = ("text", "image", "speech", "(text image){2}", "text, speech")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("fleet") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture(scope="module")
def back(model: Model) -> Iterator[Live]:
    with running(model, Options(bare=True)) as live:
        yield live


@pytest.fixture(scope="module")
def front(folder: Path, back: Live) -> tuple[Model, Backend]:
    return reach(media_plane(folder), Upstream(f"{back.base}/v1"))


def asked(model: Model, out: str, tokens: int = 60) -> Request:
    greedy = dict.fromkeys(("text", "image", "speech"), GREEDY)
    return model.request(Job(Turns((user("Draw a house."),)), out, tokens, sampling=greedy))


def answered(engine: Any, *requests: Request) -> list[list[int]]:
    """What an engine makes of requests; its events must name every id once."""
    heard: dict[int, list[int]] = {engine.submit(request): [] for request in requests}
    open_tickets = {*heard}
    while open_tickets:
        for event in engine.step():
            assert event.error is None, event.error
            heard[event.ticket] += event.ids
            open_tickets -= {event.ticket} if event.finished else set()
    assert [*heard.values()] == [request.out for request in requests]
    return [*heard.values()]


# ------------------------------------------------------------------------------------------------------- the engine


def test_answers_of_all_kinds_side_by_side_are_those_of_the_model(front: tuple[Model, Backend], model: Model) -> None:
    plane, backend = front
    assert plane.backbone.lm_head.weight.is_meta
    found = answered(Fleet(backend), *(asked(plane, out) for out in OUTS))
    assert found == answered(Engine(model.backbone, 5), *(asked(model, out) for out in OUTS))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mio.serve.fleet, "WAIT", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_back_end_that_breaks_off_is_asked_again_from_there(front: tuple[Model, Backend], back: Live) -> None:
    plane, backend = front
    (whole,) = answered(Fleet(backend), asked(plane, "speech"))
    with _breaking(back.port, most=1500, times=3) as (port, breaks):
        torn = replace(backend, upstream=Upstream(f"http://127.0.0.1:{port}/v1"))
        assert answered(Fleet(torn), asked(plane, "speech")) == [whole]
        assert breaks == [1500] * 3


@pytest.mark.usefixtures("impatient")
def test_a_back_end_that_is_gone_ends_the_answer_and_no_other(front: tuple[Model, Backend]) -> None:
    plane, backend = front
    fleet = Fleet(replace(backend, upstream=Upstream("http://127.0.0.1:1/v1")))
    ticket, events = fleet.submit(asked(plane, "text")), []
    while not any(event.finished for event in events):
        events += fleet.step()
    assert events[-1].ticket == ticket and events[-1].error is not None and not fleet.flying
    assert events[-1].error.status == 503  # type: ignore[attr-defined]


def test_a_cancelled_answer_gives_back_its_place_behind_the_front(front: tuple[Model, Backend], back: Live) -> None:
    plane, backend = front
    fleet = Fleet(backend)
    ticket = fleet.submit(asked(plane, "text", 400))
    while not fleet.step():
        pass
    fleet.cancel(ticket)
    back.until(lambda: back.served.service.scheduler.idle)
    assert not [event for _ in range(5) for event in fleet.step() if event.ticket == ticket]


# ----------------------------------------------------------------------------------------------------- through http


def test_a_client_of_the_front_gets_pictures_and_speech(front: tuple[Model, Backend]) -> None:
    plane, backend = front
    shown = {"type": "image_url", "image_url": {"url": data_url(PICTURE, "image/png")}}
    told = [{"role": "user", "content": [shown, {"type": "text", "text": "Say it and draw it."}]}]
    with running(plane, engine=lambda: Fleet(backend)) as live:
        reply = live.client().chat.completions.create(
            model="fabricated", messages=told, extra_body={"out": "image text speech", "max_tokens": 120}
        )
        streamed = live.client().chat.completions.create(model="fabricated", messages=told[:1], stream=True)
        assert [*streamed][-1].choices[0].finish_reason in ("stop", "length")
    message: Any = reply.choices[0].message
    assert [part["type"] for part in message.parts] == ["image", "text", "audio"]
    assert len(message.images) == 1 and message.audio.data


# -------------------------------------------------------------------------------------------------------- the start


def test_what_is_no_back_end_is_refused_before_anything_is_served(model: Model, front: tuple[Model, Backend]) -> None:
    with pytest.raises(MioError, match="No answer"):
        reach(front[0], Upstream("http://127.0.0.1:1/v1"))
    with pytest.raises(MioError, match="no address"):
        reach(front[0], Upstream("127.0.0.1:8000"))
    with running(model) as closed, pytest.raises(MioError, match="refused a run") as refused:
        reach(front[0], Upstream(f"{closed.base}/v1"))
    assert "bare" in refused.value.fix


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "text"},
        {"prompt": []},
        {"prompt": [5, True]},
        {"prompt": [10**6]},
        {"structured_outputs": None},
        {"structured_outputs": {"grammar": "start: /.*/"}},
        {"structured_outputs": {"grammar": "start: <[0-99999]>{2}"}},
        {"max_tokens": 10**6},
        {"echo": True},
        {"temperature": -1},
    ],
    ids=str,
)
def test_a_back_end_takes_ids_and_runs_only(back: Live, change: dict[str, Any]) -> None:
    body = {"prompt": [1, 2], "max_tokens": 2, "structured_outputs": {"grammar": "start: <[0-9]>{2}"}} | change
    reply = back.http.post("/v1/completions", json=body)
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def test_a_run_of_ids_is_answered_with_ids(back: Live) -> None:
    body = {"prompt": [1, 2], "max_tokens": 9, "structured_outputs": {"grammar": "start: <[0-9]>{9}"}, "seed": 3}
    whole = back.http.post("/v1/completions", json=body).json()
    (choice,) = whole["choices"]
    assert len(choice["token_ids"]) == 9 and set(choice["token_ids"]) <= {*range(10)}
    assert choice["finish_reason"] == "length" and whole["object"] == "text_completion"
    lines = back.http.post("/v1/completions", json=body | {"stream": True}).text
    assert lines.endswith("data: [DONE]\n\n") and str(choice["token_ids"][:1]) in lines


class _breaking:
    """A proxy whose first connections are cut off after so many bytes of the answer."""

    def __init__(self, port: int, most: int, times: int) -> None:
        self.port, self.most, self.times = port, most, times
        self.breaks: list[int] = []
        self.listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> tuple[int, list[int]]:
        threading.Thread(target=self._serve, daemon=True).start()
        return self.listener.getsockname()[1], self.breaks

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.port)) as server, suppress(OSError):
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            cut = len(self.breaks) < self.times
            if _copy(server, client, self.most if cut else None) == self.most and cut:
                self.breaks.append(self.most)
            client.shutdown(socket.SHUT_RDWR)  # at once: closing alone would wait for the thread that reads


def _copy(source: socket.socket, target: socket.socket, most: int | None = None) -> int:
    """Bytes carried over until the source ends, or `most`."""
    done = 0
    with suppress(OSError):
        while (most is None or done < most) and (data := source.recv(2**16 if most is None else most - done)):
            target.sendall(data)
            done += len(data)
    return done
