"""What comes over the wire is what the model says: streamed or whole, alone or in company."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fabricate import fabricate_model
from openai.lib.streaming._deltas import accumulate_delta
from serving import Live, running

from mio.decoding.sampling import Sampling
from mio.pipeline import Job, Model, load, user
from mio.serve.reader import Reader, counts
from mio.types import Audio, Image, Text, Turns

CHAT = "/v1/chat/completions"
OUTS = ("text", "text,image", "image text", "speech", "text speech image", "video", "(text image){2}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(fabricate_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def live(model: Model) -> Iterator[Live]:
    with running(model) as live:
        yield live


def body(seed: int) -> dict[str, Any]:
    """A question whose answer is of any kind and, at this temperature, of any bytes."""
    messages = [{"role": "user", "content": f"Anything {seed}"}]
    settings = {"seed": seed, "temperature": 2, "top_p": 1, "max_tokens": 60, "audio": {"format": "pcm16"}}
    return settings | {"messages": messages, "out": OUTS[seed % len(OUTS)]}


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """Without what is new each time."""
    audio = {k: v for k, v in message.get("audio", {}).items() if k not in ("id", "expires_at")}
    return message | ({"audio": audio} if audio else {})


def whole(live: Live, seed: int) -> tuple[dict[str, Any], str, Any]:
    reply = live.http.post(CHAT, json=body(seed)).json()
    (choice,) = reply["choices"]
    return plain(choice["message"]), choice["finish_reason"], reply["usage"]


def streamed(live: Live, seed: int) -> tuple[dict[str, Any], str, Any]:
    message: Any = {}
    finish, usage = "", None
    with live.http.stream(
        "POST", CHAT, json=body(seed) | {"stream": True, "stream_options": {"include_usage": True}}
    ) as s:
        lines = [line.removeprefix("data: ") for line in s.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    for chunk in map(json.loads, lines):
        usage = chunk["usage"]
        for choice in chunk["choices"]:
            message = accumulate_delta(message, choice["delta"])
            finish = choice["finish_reason"] or finish
            message |= {"parts": choice["parts"]} if choice.get("parts") else {}
    return plain(message), finish, usage


@pytest.mark.parametrize("count", [14, pytest.param(200, marks=pytest.mark.slow)])
def test_a_stream_adds_up_to_the_whole_whatever_the_model_says(live: Live, count: int) -> None:
    for seed in range(count):
        assert streamed(live, seed) == whole(live, seed)


def test_an_answer_is_the_same_in_company(live: Live) -> None:
    alone = [whole(live, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: whole(live, seed), range(8)))
    assert together == alone


@pytest.mark.parametrize("seed", range(14))
def test_pieces_are_the_parts_of_the_model_s_own_reply(model: Model, seed: int) -> None:
    """The reader of a stream against the pipeline's, which reads whole answers."""
    hot = {place: Sampling(2.0, 1.0) for place in ("text", "image", "speech")}
    job = Job(Turns((user(f"Anything {seed}"),)), OUTS[seed % len(OUTS)], 60, 0, seed, sampling=hot)
    (reply,) = model.run([job])
    reader = Reader(model, job.out)
    pieces = [*reader.feed(reply.ids), *reader.close()]
    assert "".join(p.text for p in pieces if isinstance(p, Text)) == "".join(
        p.text for p in reply.parts if isinstance(p, Text)
    )
    kinds = [type(p) for p in pieces if not isinstance(p, Text)]
    assert kinds == [type(p) for p in reply.parts if not isinstance(p, Text)]
    for ours, theirs in zip(pieces, reply.parts, strict=False):
        if isinstance(ours, Image) and isinstance(theirs, Image):
            assert (ours.pixels == theirs.pixels).all()
        if isinstance(ours, Audio) and isinstance(theirs, Audio):
            assert (ours.samples == theirs.samples).all()


def test_every_id_is_counted_once_by_its_kind(model: Model) -> None:
    vocab = model.processor.vocab
    everything = counts(vocab, range(len(vocab)))
    assert sum(everything.values()) == len(vocab)
    assert everything["image"] == vocab.row("image").size and everything["speech"] == vocab.row("speech").size
    assert set(counts(vocab, []).values()) == {0}
