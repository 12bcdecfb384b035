"""What comes over the wire is what the model says: streamed or whole, alone or in company."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fabricate import fabricate_model
from numpy.testing import assert_allclose
from openai.lib.streaming._deltas import accumulate_delta
from serving import Live, running

from mio.decoding.sampling import Sampling
from mio.pipeline import Job, Model, load, user
from mio.sequence import span_ids
from mio.serve.answer import Answer
from mio.serve.protocol import Stops
from mio.serve.reader import Reader, counts
from mio.serve.sound import pcm
from mio.types import Audio, AudioChunk, Encoded, Image, Text, Turns

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


@pytest.mark.parametrize("count", [len(OUTS), pytest.param(200, marks=pytest.mark.slow)])
def test_a_stream_adds_up_to_the_whole_whatever_the_model_says(live: Live, count: int) -> None:
    for seed in range(count):
        assert streamed(live, seed) == whole(live, seed)


def test_an_answer_is_the_same_in_company(live: Live) -> None:
    seeds = range(len(OUTS), 2 * len(OUTS))
    alone = [whole(live, seed) for seed in seeds]
    with ThreadPoolExecutor(len(seeds)) as pool:
        together = list(pool.map(lambda seed: whole(live, seed), seeds))
    assert together == alone


@pytest.mark.parametrize("seed", range(len(OUTS)))
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
    media = [p for p in pieces if not isinstance(p, Text) and not (isinstance(p, AudioChunk) and p.start)]
    assert [isinstance(p, Audio) or type(p) for p in media] == [
        isinstance(p, Audio) or type(p) for p in reply.parts if not isinstance(p, Text)
    ]
    for ours, theirs in zip([p for p in media if isinstance(p, Image)], reply.media(Image), strict=True):
        assert (ours.pixels == theirs.pixels).all()
    heard = [p.samples for p in pieces if isinstance(p, Audio)]
    if heard:
        assert_allclose(np.concatenate(heard), np.concatenate([a.samples for a in reply.media(Audio)]), atol=1e-5)


def test_sound_begins_while_it_is_being_said(model: Model) -> None:
    """Piece by piece, before its span is closed; the bytes of the pieces are those of the sound read at once."""
    vocab, reader = model.processor.vocab, Reader(model, "speech")
    row, steps = vocab.row("speech"), 60
    codes = np.random.default_rng(0).integers(0, row.codebook_size, (1, row.codebooks, steps))
    ids = span_ids(Encoded("speech", codes), vocab, as_input=False)
    came = [(at, piece) for at, id in enumerate(ids) for piece in reader.feed([int(id)])]
    assert all(isinstance(piece, AudioChunk) for _, piece in came) and len(came) > 3
    assert came[0][0] < steps * row.codebooks - 40 < len(ids)  # 40 steps of the last level are still to come
    answer = Answer(lambda media: b"", Stops(()))
    sizes = [len(delta["audio"]["data"]) for _, piece in came for delta in answer.add(piece)]
    answer.close()
    whole = model.processor.media("speech", codes)
    assert sizes[0] < sum(sizes) / 5
    near = np.frombuffer(bytes(answer.pcm), "<i2"), np.frombuffer(pcm(whole), "<i2")
    assert_allclose(*near, atol=1)  # 1 of 32,768: of chunks decoded with less to come after them
    assert answer.parts == [{"type": "audio", "index": 0, "start": 0.0, "end": whole.seconds}]


def test_speech_as_bare_pcm_is_what_its_events_say(live: Live) -> None:
    body = {"input": "x", "response_format": "pcm", "seed": 1, "temperature": 2, "max_tokens": 300}
    with live.http.stream("POST", "/v1/audio/speech", json=body) as reply:
        assert reply.headers["content-type"] == "audio/pcm" and reply.headers["x-ai-generated"] == "true"
        pieces = [*reply.iter_raw()]
    with live.http.stream("POST", "/v1/audio/speech", json=body | {"stream_format": "sse"}) as reply:
        told = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    assert told[-1]["type"] == "speech.audio.done"
    assert b"".join(pieces) == b"".join(base64.b64decode(event["audio"]) for event in told[:-1])


def test_every_id_is_counted_once_by_its_kind(model: Model) -> None:
    vocab = model.processor.vocab
    everything = counts(vocab, range(len(vocab)))
    assert sum(everything.values()) == len(vocab)
    assert everything["image"] == vocab.row("image").size and everything["speech"] == vocab.row("speech").size
    assert set(counts(vocab, []).values()) == {0}
