"""The wire format: what clients may send, what is refused and where, and that a stream adds up to its message."""

from __future__ import annotations

import base64
import json
import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming._deltas import accumulate_delta  # the independent reference: how the official client adds up
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from mio.decoding.constraint import Schema
from mio.media import read_audio
from mio.serve.answer import Answer, Fault, Head, Piece, Usage
from mio.serve.errors import ApiError
from mio.serve.fields import Fields, parse_object
from mio.serve.protocol import BY_ROW, ChatRequest, Settings, Source, Stops, Turn, chat_request
from mio.serve.sound import ENCODERS, pcm
from mio.types import Audio, AudioChunk, Image, Text, Video

PNG = base64.b64encode(b"picture").decode()


def ask(**fields: Any) -> ChatRequest:
    return chat_request(Fields({"messages": [{"role": "user", "content": "Hi"}]} | fields))


def json_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask(**fields)
    return caught.value


# ----------------------------------------------------------------------------------------------------- requests


def test_every_kind_of_part_becomes_text_or_a_source_in_order() -> None:
    url = f"data:image/png;base64,{PNG}"
    parts = [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": url},
        {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{PNG}"}},
        {"type": "video_url", "video_url": {"url": "https://host/clip.mp4"}},
        {"type": "file", "file": {"file_data": url, "filename": "../../etc/passwd"}},
    ]
    (turn,) = ask(messages=[{"role": "user", "content": parts}]).turns
    assert turn.parts[0] == "a"
    media = [p for p in turn.parts if isinstance(p, Source)]
    assert [(m.row, m.data, m.url) for m in media] == [
        ("image", b"picture", ""),
        ("image", b"picture", ""),
        ("speech", b"picture", ""),
        ("speech", b"picture", ""),
        ("video", b"", "https://host/clip.mp4"),
        ("", b"picture", ""),
    ]


def test_texts_of_the_system_are_joined_at_the_beginning() -> None:
    messages = [
        {"role": "system", "content": "One."},
        {"role": "user", "content": "Hi"},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
    ]
    assert ask(messages=messages).turns == (Turn("system", ("One.\nTwo.",)), Turn("user", ("Hi",)))


def test_settings_are_read_and_names_of_the_wire_become_rows() -> None:
    request = ask(
        modalities=["text", "audio"], max_tokens=7, temperature=0.5, top_p=1, seed=3, n=2, stop="END", stream=True
    )
    assert request.settings == Settings("text,speech", 7, 0.5, 1.0, 3, 2, ("END",))
    assert request.stream and request.format == "pcm16" and not request.usage
    assert ask(out="(text image audio){2}").settings.out == "(text image speech){2}"
    assert ask(max_completion_tokens=5, max_tokens=9).settings.tokens == 5


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_conversation"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": [7]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "user", "content": "x"}] * 513}, "messages", "array_above_max_length"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", ""),
        ({"messages": [{"role": "user", "content": [{"type": "exec"}]}]}, "messages[0].content[0].type", ""),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "invalid_value"),
        ({"n": 10**9}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"max_tokens": 10**9}, "max_tokens", "invalid_value"),
        ({"temperature": 1e308}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_p": -1}, "top_p", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", ""),
        ({"response_format": json_format({"enum": ["x" * 2**15]})}, "response_format.json_schema.schema", ""),
        ({"modalities": ["smell"]}, "modalities", "invalid_type"),
        ({"audio": {"voice": "../theo"}}, "audio.voice", "invalid_value"),
        ({"audio": {"format": "wav"}, "stream": True}, "audio.format", "unsupported_parameter"),
    ],
)
def test_faults_are_named_by_their_place(fields: dict[str, Any], param: str, code: str) -> None:
    error = refused(**fields)
    assert (error.status, error.param) == (400, param)
    assert not code or error.label == code
    assert error.body()["error"]["type"] == "invalid_request_error"


def test_formats_of_text_are_schemas() -> None:
    assert ask().settings.shape is None
    assert ask(response_format={"type": "text"}).settings.shape is None
    assert ask(response_format={"type": "json_object"}).settings.shape == Schema('{"type": "object"}')
    assert ask(response_format=json_format({"type": "integer"})).settings.shape == Schema('{"type": "integer"}')


@pytest.mark.parametrize(
    ("url", "code"),
    [("data:image/png,plain", "invalid_url"), ("data:image/png;base64,!!", "invalid_base64"), ("data:", "invalid_url")],
)
def test_a_data_url_must_be_base64(url: str, code: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert refused(messages=[{"role": "user", "content": [part]}]).label == code


def test_media_are_limited_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"}
    assert refused(messages=[{"role": "user", "content": [part] * 17}]).label == "too_many_media"
    monkeypatch.setitem(BY_ROW, "image", replace(BY_ROW["image"], most=6))  # type: ignore[misc]
    assert refused(messages=[{"role": "user", "content": [part]}]).status == 413


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"7", b"{", b"\xff", b'{"n": NaN}', b'{"n": Infinity}', b"[" * 10**5, b'{"n": ' + b"9" * 10**5 + b"}"],
)
def test_what_is_no_object_of_finite_numbers_is_no_request(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(body)
    assert caught.value.label == "invalid_json"


def test_hostile_requests_are_refused_in_no_time() -> None:
    many = [{"role": "user", "content": "x"}] * 10**4
    bias = {str(n): 1 for n in range(10**4)}
    for fields in ({"messages": many}, {"logit_bias": bias}, {"stop": ["<" * 10**5]}, {"out": "(" * 10**5}):
        begun = time.perf_counter()
        refused(**fields)
        assert time.perf_counter() - begun < 0.1


VALUES = st.sampled_from([True, -1, 1e308, 2**70, "", "\x00", "a" * 99, [], [[]], [{}], {}, {"a": 1}, ["text", 7]])
NAMES = ("model", "messages", "modalities", "out", "stream", "stream_options", "n", "stop", "seed", "audio", "top_p")


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_any_object_is_a_request_or_a_named_fault(fields: dict[str, Any]) -> None:
    try:
        ask(**fields)
    except ApiError as error:
        assert error.status == 400 and "0x" not in str(error)


# ------------------------------------------------------------------------------------------------------ answers


def encode(media: Any) -> bytes:
    return repr(type(media)).encode()


def made(pieces: list[Piece], stop: tuple[str, ...] = ()) -> tuple[Answer, list[dict[str, Any]]]:
    answer = Answer(encode, Stops(stop), "audio-1", 99)
    deltas = [delta for piece in pieces for delta in answer.add(piece)]
    return answer, [*deltas, *answer.close()]


def summed(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    for delta in deltas:
        total = accumulate_delta(total, json.loads(json.dumps(delta)))  # type: ignore[arg-type]
    return total


def some_pieces(seed: int) -> list[Piece]:
    dice = random.Random(seed)
    sound = [Audio(np.linspace(-1, 1, dice.randint(1, 999)).astype(np.float32), dice.choice((8000, 16000, 24000)))]
    picture, clip = Image(np.zeros((2, 2, 3), np.uint8)), Video(np.zeros((2, 2, 2, 3), np.uint8), 4.0)
    choices = [Text("äöü "), Text("END"), Text("E"), picture, clip, *sound, Fault("broken")]
    return [dice.choice(choices) for _ in range(dice.randint(1, 12))]


@pytest.mark.parametrize("seed", range(40))
def test_the_official_client_adds_a_stream_up_to_the_message(seed: int) -> None:
    answer, deltas = made(some_pieces(seed), ("END",) if seed % 2 else ())
    parts = Head("", 0, "").last(0, answer, "stop")["choices"][0]["parts"]
    whole = answer.message("pcm16")
    assert summed(deltas) | ({"parts": parts} if parts else {}) == whole


@pytest.mark.parametrize("seed", range(20))
def test_parts_put_every_piece_in_its_place(seed: int) -> None:
    answer, _ = made(some_pieces(seed))
    message = answer.message()
    texts = [message["content"][p["start"] : p["end"]] for p in message.get("parts", ()) if p["type"] == "text"]
    assert "".join(texts) == message["content"]
    for wire, name in (("image", "images"), ("video", "videos")):
        places = [p["index"] for p in message.get("parts", ()) if p["type"] == wire]
        assert places == list(range(len(message.get(name, ()))))


def test_pieces_of_sound_join_as_text_and_hold_every_sample() -> None:
    sounds = [Audio(np.full(n, n / 100, np.float32), 24000) for n in (1, 2, 4, 50)]
    _, deltas = made(list(sounds))
    pieces = [d["audio"]["data"] for d in deltas]
    samples = np.frombuffer(base64.b64decode("".join(pieces)), "<i2")
    whole = [np.pad(np.rint(s.samples * 32768).astype(np.int16), (0, -len(s.samples) % 3)) for s in sounds]
    assert np.array_equal(samples, np.concatenate(whole))


@given(st.lists(st.integers(1, 900), min_size=1, max_size=6), st.sampled_from([8000, 16_000, 22_050, 24_000]))
def test_a_sound_is_the_same_bytes_however_it_is_cut(cuts: list[int], rate: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, sum(cuts)).astype(np.float32)
    ends = np.cumsum(cuts)
    answer, deltas = made([AudioChunk(samples[e - n : e], rate, int(e - n)) for n, e in zip(cuts, ends, strict=True)])
    assert bytes(answer.pcm) == pcm(Audio(samples, rate))
    assert base64.b64decode("".join(d["audio"]["data"] for d in deltas)) == bytes(answer.pcm)
    assert all(len(d["audio"]["data"]) % 8 == 0 for d in deltas)
    assert len(answer.parts) == 1 and answer.parts[0]["end"] == pytest.approx(len(answer.pcm) / 48_000, abs=1e-3)


@given(st.lists(st.text("aEND", max_size=4), max_size=8), st.sampled_from([("END",), ("E", "ND"), ("aa", "NDE")]))
def test_text_ends_before_the_first_stop_word_however_it_comes(pieces: list[str], words: tuple[str, ...]) -> None:
    stops = Stops(words)
    shown = [stops.feed(piece) for piece in pieces]
    whole = "".join(pieces)
    # Words that end no earlier than others begin may overlap; the first to be complete decides.
    ends = [whole.find(w) + len(w) for w in words if w in whole]
    first = min((whole[: min(ends)].find(w) for w in words if w in whole[: min(ends)]), default=-1) if ends else -1
    result = "".join(shown) + stops.close()
    assert stops.hit == bool(ends)
    if len(set(pieces)) < 2 or not ends:
        assert ends or result == whole
    if ends and all(len(p) <= 1 for p in pieces):
        assert result == whole[:first]


def test_the_official_types_read_what_we_write() -> None:
    answer, deltas = made([Text("Hi"), Audio(np.zeros(9, np.float32), 24000), Image(np.zeros((1, 1, 3), np.uint8))])
    usage = Usage({"text": 3, "image": 34}, {"text": 2, "speech": 10, "image": 34})
    head = Head("chatcmpl-1", 5, "tiny")
    whole = ChatCompletion.model_validate(head.completion([(answer.message(), "stop")], usage), strict=True)
    assert whole.choices[0].message.audio is not None and whole.usage is not None
    assert whole.usage.total_tokens == 83
    assert whole.usage.prompt_tokens_details is not None and whole.usage.prompt_tokens_details.cached_tokens == 0
    for delta in deltas:
        chunk = ChatCompletionChunk.model_validate(head.chunk(0, delta), strict=True)
        assert chunk.choices[0].index == 0


def test_an_answer_sent_back_is_read_as_it_was_given() -> None:
    picture, sound = Image(np.zeros((1, 1, 3), np.uint8)), Audio(np.zeros(9, np.float32), 24000)
    answer, _ = made([Text("One "), picture, Text("two"), sound, picture])
    back = {"role": "assistant"} | json.loads(json.dumps(answer.message()))
    turns = ask(messages=[{"role": "user", "content": "Go"}, back, {"role": "user", "content": "on"}]).turns
    rows = [p if isinstance(p, str) else p.row for p in turns[1].parts]
    assert rows == ["One ", "image", "two", "speech", "image"]


@pytest.mark.parametrize("format", [f for f in ENCODERS if not f.startswith("pcm") and f != "aac"])
def test_every_format_of_sound_can_be_read_again(format: str) -> None:
    sound = Audio((np.sin(np.arange(9000) / 9) / 2).astype(np.float32), 24000)
    again = read_audio(ENCODERS[format][1](pcm(sound)))
    assert abs(again.seconds - sound.seconds) < 0.15 and 0.4 < np.abs(again.samples).max() < 0.6


def test_aac_is_frames_that_need_no_index() -> None:
    assert ENCODERS["aac"][1](pcm(Audio(np.zeros(9000, np.float32), 24000)))[:2] == b"\xff\xf1"
