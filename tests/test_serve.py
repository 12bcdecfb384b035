"""The server as OpenAI's own client meets it: the shipped model, a real socket, every kind of media in and out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI
from serving import CLIP, PICTURE, SOUND, Live, data_url, named, running
from test_shipped import unseen

import mio
from mio.media import encode_audio, encode_image, read_audio, read_image, read_video
from mio.pipeline import Model
from mio.processor import open_media
from mio.serve.app import ENDPOINTS
from mio.serve.provenance import marked
from mio.types import Image, MediaFile


@pytest.fixture(scope="module")
def model() -> Model:
    return mio.load()


@pytest.fixture(scope="module")
def live(model: Model) -> Iterator[Live]:
    with running(model) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> OpenAI:
    return live.client()


def said(words: str) -> list[Any]:
    return [{"role": "user", "content": words}]


def shown(*media: tuple[str, str], words: str) -> list[Any]:
    parts: list[Any] = [{"type": kind, kind: {"url": url}} for kind, url in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": words}]}]


def from_url(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


# -------------------------------------------------------------------------------------------------- the model as is


def test_text_is_what_the_model_answers(model: Model, client: OpenAI) -> None:
    reply = client.chat.completions.create(model="tiny", messages=said("What is dog?"), seed=0, max_tokens=12)
    direct = model.chat("What is dog?", tokens=12)
    assert reply.choices[0].message.content == "".join(p.text for p in direct.parts)  # type: ignore[union-attr]
    assert reply.usage is not None and reply.usage.completion_tokens == len(direct.ids)
    assert reply.choices[0].finish_reason in ("stop", "length")


def test_a_picture_and_a_recording_are_read_as_by_the_model(model: Model, client: OpenAI) -> None:
    for source, mime, kind, words in (
        ("digits", "image/png", "image_url", "What is this?"),
        ("fsdd", "audio/wav", "audio_url", "What is said?"),
    ):
        (media,) = [open_media(p) for p in unseen(source)[0].parts if isinstance(p, MediaFile)]
        data = encode_image(media) if isinstance(media, Image) else encode_audio(media)  # type: ignore[arg-type]
        asked = shown((kind, data_url(data, mime)), words=words)
        reply = client.chat.completions.create(model="tiny", messages=asked, seed=0)
        assert (reply.choices[0].message.content or "").strip() == model.chat(media, words).text


def test_sound_in_openai_s_own_part_and_a_clip(client: OpenAI) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "wav"}}
    parts = [sound, {"type": "text", "text": "What is said?"}]
    reply = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": parts}])
    assert reply.usage is not None and reply.usage.prompt_tokens_details.audio_tokens > 0
    clip = shown(("video_url", data_url(CLIP, "video/mp4")), words="How does it move?")
    told = client.chat.completions.create(model="tiny", messages=clip).usage
    assert told is not None and told.prompt_tokens_details.image_tokens == 4 * 32


def test_a_picture_comes_as_images_marked_and_the_same_for_the_same_seed(client: OpenAI) -> None:
    replies = [
        client.chat.completions.create(
            model="tiny", messages=said("Draw a fox in noto style."), modalities=["image"], seed=seed
        )
        for seed in (7, 7)
    ]
    urls = [reply.choices[0].message.images[0]["image_url"]["url"] for reply in replies]
    assert urls[0] == urls[1]
    assert read_image(from_url(urls[0])).pixels.shape == (64, 64, 3)
    assert marked(from_url(urls[0]))
    assert replies[0].choices[0].message.parts == [{"type": "image", "index": 0}]
    assert replies[0].usage.completion_tokens_details.image_tokens == 32


def test_speech_comes_as_audio_in_the_format_asked_for(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny",
        messages=said("Say seven."),
        modalities=["audio"],
        audio={"voice": "theo", "format": "mp3"},
        max_tokens=120,
        seed=1,
    )
    audio = reply.choices[0].message.audio
    assert audio is not None
    sound = read_audio(base64.b64decode(audio.data))
    assert 0.1 < sound.seconds < 6 and np.abs(sound.samples).max() > 0.01


def test_an_illustrated_story_comes_in_order(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny",
        messages=said("Tell an illustrated story: The lost goat"),
        extra_body={"out": "(text image){2}"},
        max_tokens=90,
        seed=1,
    )
    message = reply.choices[0].message
    assert [p["type"] for p in message.parts] == ["text", "image", "text", "image"]
    assert len(message.images) == 2


def test_a_clip_comes_as_one_video(client: OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny", messages=said("Film a red ball moving left."), modalities=["video"], seed=0
    )
    (clip,) = reply.choices[0].message.videos
    assert len(read_video(from_url(clip["video_url"]["url"])).frames) == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": said("What is dog?"), "max_tokens": 12},
        {"messages": said("Tell a story: The lost goat"), "extra_body": {"out": "text image"}, "max_tokens": 50},
        {"messages": said("Say seven."), "modalities": ["audio"], "audio": {"format": "pcm16"}, "max_tokens": 90},
        {"messages": said("What is dog?"), "n": 2, "temperature": 1.0, "max_tokens": 12},
        {"messages": said("What is dog?"), "stop": ["a"], "max_tokens": 12},
    ],
)
def test_a_stream_adds_up_to_the_whole(client: OpenAI, fields: dict[str, Any]) -> None:
    whole = client.chat.completions.create(model="tiny", seed=3, **fields)
    kept = {k: v for k, v in fields.items() if k != "n"}
    options = {"n": fields.get("n", 1)}
    with client.chat.completions.stream(
        model="tiny", seed=3, stream_options={"include_usage": True}, **kept, **options
    ) as stream:
        orders = [
            choice.parts
            for event in stream
            if event.type == "chunk"
            for choice in event.chunk.choices
            if hasattr(choice, "parts")
        ]
        final = stream.current_completion_snapshot
    assert "stop" in fields or final.usage == whole.usage  # ids beyond a stop word depend on when it was seen
    for number, choice in enumerate(whole.choices):
        ours, theirs = choice.message.to_dict(), final.choices[number].message.to_dict()
        assert ours.pop("parts", []) == orders[number]
        for message in (ours, theirs):
            message.pop("parsed", None)
            for name in ("id", "expires_at"):
                (message.get("audio") or {}).pop(name, None)
        assert {k: v for k, v in theirs.items() if v is not None} == {k: v for k, v in ours.items() if v is not None}
        assert final.choices[number].finish_reason == choice.finish_reason


def test_an_answer_with_a_picture_can_be_sent_back(client: OpenAI) -> None:
    first = client.chat.completions.create(
        model="tiny", messages=said("Draw a fox in noto style."), modalities=["image"], seed=7
    )
    back = first.choices[0].message.to_dict()
    again = client.chat.completions.create(
        model="tiny", messages=[*said("Draw a fox in noto style."), back, *said("Redraw it in twemoji style.")]
    )
    assert again.usage.prompt_tokens_details.image_tokens == 32


# -------------------------------------------------------------------------------------------------- other endpoints


def test_the_models_endpoint_tells_what_goes_in_and_out(client: OpenAI) -> None:
    (card,) = client.models.list().data
    assert card.id == "tiny" and client.models.retrieve("tiny").id == "tiny"
    assert card.modalities["output"] == ["text", "image", "audio", "video"] and "theo" in card.voices
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_pictures_are_drawn_in_number_size_and_format(client: OpenAI) -> None:
    made = client.images.generate(
        prompt="a fox in noto style", model="tiny", n=2, size="256x256", output_format="jpeg", extra_body={"seed": 1}
    )
    pictures = [read_image(base64.b64decode(item.b64_json or "")) for item in made.data or ()]
    assert [p.pixels.shape for p in pictures] == [(256, 256, 3)] * 2
    assert made.usage is not None and made.usage.output_tokens_details.image_tokens == 64  # type: ignore[union-attr]


def test_a_picture_is_streamed_and_edited(client: OpenAI) -> None:
    events = [*client.images.generate(prompt="a fox", model="tiny", stream=True, extra_body={"seed": 1})]
    assert [event.type for event in events] == ["image_generation.completed"]
    for files in (named(PICTURE, "a.png"), [named(PICTURE, "a.png"), named(PICTURE, "b.png")]):
        made = client.images.edit(image=files, prompt="Redraw it in noto style.", model="tiny")
        assert read_image(base64.b64decode(made.data[0].b64_json)).pixels.shape == (64, 64, 3)


def test_speech_is_spoken_and_heard_again(client: OpenAI) -> None:
    made = client.audio.speech.create(
        model="tiny", voice="theo", input="seven", response_format="wav", extra_body={"seed": 1, "max_tokens": 120}
    )
    assert marked(made.content)
    told = client.audio.transcriptions.create(model="tiny", file=named(made.content, "seven.wav"))
    text = client.audio.transcriptions.create(
        model="tiny", file=named(made.content, "seven.wav"), response_format="text"
    )
    assert told.text == text.strip() and told.text
    events = [*client.audio.transcriptions.create(model="tiny", file=named(made.content, "seven.wav"), stream=True)]
    assert events[-1].type == "transcript.text.done" and events[-1].text == told.text


def test_ids_of_a_text_are_the_way_back_and_never_a_control_token(live: Live, model: Model) -> None:
    words = "A dog <image> <|im_end|> <img5> äöü"
    ids = live.http.post("/tokenize", json={"prompt": words}).json()["tokens"]
    assert max(ids) < model.processor.vocab.text_size
    assert live.http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": words}
    turn = live.http.post("/tokenize", json={"messages": said("Hi")}).json()
    assert turn["count"] == len(turn["tokens"])


def test_the_mark_of_a_generated_file_is_found_and_others_have_none(client: OpenAI) -> None:
    made = client.images.generate(prompt="a fox", model="tiny").data[0].b64_json  # type: ignore[index]
    for data, outcome in ((base64.b64decode(made or ""), "detected"), (PICTURE, "not_detected")):
        signed, plain = client.content_provenance_checks.create(file=named(data, "a.png")).results
        assert (signed.outcome, plain.outcome) == ("not_detected", outcome)  # this server has no key


def test_numbers_are_told_in_prometheus_format(live: Live) -> None:
    text = live.http.get("/metrics").text
    for name in ("mio_requests_running", "mio_requests_waiting", "mio_ttft_seconds_count", "mio_tokens_total"):
        assert name in text
    assert 'mio_request_total{endpoint="/v1/chat/completions",status="200"}' in text


def test_a_json_schema_is_kept_whole_or_streamed(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
    format: Any = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema}}
    asked: dict[str, Any] = {"model": "tiny", "messages": said("What is dog?"), "max_tokens": 40, "seed": 3}
    whole = client.chat.completions.create(**asked, response_format=format).choices[0].message.content
    assert isinstance(json.loads(whole or "")["legs"], int)
    chunks = client.chat.completions.create(**asked, response_format=format, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    item = client.responses.create(model="tiny", input="Dog?", text={"format": {"type": "json_object"}})
    assert isinstance(json.loads(item.output_text), dict)


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 9}, openai.BadRequestError, "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "unsupported_parameter"),
        (
            {"messages": shown(("image_url", "data:image/png;base64,AAAA"), words="?")},
            openai.BadRequestError,
            "invalid_media",
        ),
        (
            {"messages": shown(("image_url", "https://example.org/x.png"), words="?")},
            openai.BadRequestError,
            "invalid_url",
        ),
        ({"messages": said("word " * 2000)}, openai.BadRequestError, "invalid_value"),
        ({"audio": {"voice": "nobody"}}, openai.BadRequestError, "invalid_voice"),
        ({"extra_body": {"out": "smell"}}, openai.BadRequestError, "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "x"}}}},
            openai.BadRequestError,
            "invalid_schema",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_faults_reach_the_client_as_its_own_errors(
    client: OpenAI, fields: dict[str, Any], error: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**({"model": "tiny", "messages": said("Hi"), "stream": stream} | fields))
    assert caught.value.code == code
    assert caught.value.response.headers["x-request-id"].startswith("req_")
    assert "0x" not in caught.value.message and "/" not in caught.value.message.replace("image/", "")


def test_what_is_no_endpoint_or_method_or_type_is_told_as_json(live: Live) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405)):
        reply = live.http.request(method, path)
        assert reply.status_code == status and reply.json()["error"]["message"]
    reply = live.http.post("/v1/chat/completions", content=json.dumps({"messages": said("Hi")}))
    assert reply.status_code == 415


def test_every_endpoint_answers_with_the_page_s_security_headers(live: Live) -> None:
    for path in [path for method, path in ENDPOINTS if method == "GET" and "{" not in path]:
        headers = live.http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and "access-control-allow-origin" not in headers
    posts = [path for method, path in ENDPOINTS if method == "POST"]
    assert all(live.http.post(path, json={}).status_code in (400, 415) for path in posts)


# ------------------------------------------------------------------------------------------------------- responses


def test_a_response_holds_text_and_pictures_as_items(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "input": "Tell a story: The lost goat", "max_output_tokens": 60}
    asked["extra_body"] = {"out": "text image", "seed": 3}
    whole = client.responses.create(**asked)
    assert [item.type for item in whole.output] == ["message", "image_generation_call"]
    assert read_image(base64.b64decode(whole.output[1].result or "")).pixels.shape == (64, 64, 3)  # type: ignore[union-attr]
    with client.responses.stream(**asked) as stream:
        events = [*stream]
    final = events[-1].response  # type: ignore[union-attr]
    assert [e.sequence_number for e in events] == [*range(len(events))]
    assert events[0].type == "response.created" and final.output_text == whole.output_text
    assert final.output[1].result == whole.output[1].result  # type: ignore[union-attr]
    assert final.usage == whole.usage


def test_a_response_reads_pictures_instructions_and_earlier_items(client: OpenAI) -> None:
    picture = {"type": "input_image", "image_url": data_url(PICTURE, "image/png"), "detail": "auto"}
    said = {"role": "user", "content": [picture, {"type": "input_text", "text": "What is this?"}]}
    drawn = {"type": "image_generation_call", "result": base64.b64encode(PICTURE).decode()}
    items: Any = [{"role": "user", "content": "Draw it."}, drawn, said]
    reply = client.responses.create(model="tiny", input=items, instructions="You are MIO.", max_output_tokens=8)
    assert reply.usage is not None and reply.usage.input_tokens_details.image_tokens == 64  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "fields",
    [{"previous_response_id": "resp_1"}, {"background": True}, {"input": []}, {"tools": [{"type": "web_search"}]},
     {"extra_body": {"modalities": ["audio"]}}],
)  # fmt: skip
def test_what_a_response_would_need_memory_or_other_tools_for_is_refused(client: OpenAI, fields: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client.responses.create(**({"model": "tiny", "input": "Hi"} | fields))


# ---------------------------------------------------------------------------------------------------------- videos


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_a_clip_is_a_job_that_a_client_comes_back_for(live: Live, client: OpenAI) -> None:
    job = client.videos.create(model="tiny", prompt="a red ball moving left")  # type: ignore[arg-type]
    assert job.status in ("queued", "in_progress")
    live.until(lambda: client.videos.retrieve(job.id).status == "completed", 120)
    data = client.videos.download_content(job.id).read()
    assert len(read_video(data).frames) == 4 and marked(data)
    assert [v.id for v in client.videos.list()] == [job.id]
    with pytest.raises(openai.NotFoundError):
        live.client("another key").videos.retrieve(job.id)
    assert client.videos.delete(job.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(job.id)
