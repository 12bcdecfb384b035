"""/v1/audio/speech and /v1/audio/transcriptions."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mio.pipeline import Job
from mio.serve.answer import Usage
from mio.serve.errors import ApiError, unsupported
from mio.serve.pictures import typed
from mio.serve.protocol import Settings, Source, Turn, model, settings, voice
from mio.serve.scheduler import End, Stream
from mio.serve.service import (
    TOKENS,
    Piped,
    Service,
    attended,
    begun,
    client_of,
    event_line,
    form_body,
    json_body,
)
from mio.serve.sound import ENCODERS
from mio.types import Audio, Message, Text, Turns

LONGEST = 4096  # characters of one speech
SHAPES = ("json", "text", "verbose_json", "srt", "vtt")


async def speech(request: Request) -> Response:
    """The file; bare PCM as it is being said; or with `stream_format` "sse" events of PCM."""
    service: Service = request.app.state.service
    fields = await json_body(request)
    service.known(model(fields))
    words, named = fields.text("input", most=LONGEST), voice(fields)
    service.check_voice(named, "voice")
    if not words.strip():
        raise fields.fault("input", "not empty", "invalid_value")
    if fields.number("speed", 0.25, 4) not in (None, 1.0):
        raise unsupported("speed")
    fields.refuse(("instructions",))
    format = fields.choice("response_format", "mp3", ENCODERS)
    events = fields.choice("stream_format", "audio", ("audio", "sse")) == "sse"
    asked = settings(fields, out="speech")
    turn = Turn("user", (service.wording.say_as(words, named),))
    asked = replace(asked, count=1)
    if not events and format != "pcm":
        (reply,) = await service.replies(request, (turn,), asked)
        data = service.sound(_said(bytes(reply.answer.pcm)), format)
        return Response(data, media_type=ENCODERS[format][0], headers={"x-ai-generated": "true"})
    streams = service.scheduler.submit(await service.jobs((turn,), asked), client_of(request))
    if events:
        return await begun(_spoken(service, asked, streams), streams)
    pieces = _pieces(service, asked, streams)
    first = _said(await attended(request, anext(pieces, b"")))
    return Piped(_on(first, pieces), streams, ENCODERS[format][0])


def _said(pcm: bytes) -> bytes:
    if not pcm:
        raise ApiError("The model said nothing.", status=500, code="engine_error")
    return pcm


async def _pieces(service: Service, asked: Settings, streams: Sequence[Stream]) -> AsyncIterator[bytes]:
    async for event in service.deltas(streams[0], service.answer(asked)):
        if not isinstance(event, End) and "audio" in event:
            yield base64.b64decode(event["audio"]["data"])


async def _on(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _spoken(service: Service, asked: Settings, streams: Sequence[Stream]) -> AsyncIterator[str]:
    async for event in service.deltas(streams[0], service.answer(asked)):
        if isinstance(event, End):
            told: dict[str, Any] = {"type": "speech.audio.done", "usage": event.usage.named("input", "output")}
            yield event_line(told, "speech.audio.done")
        elif "audio" in event:
            told = {"type": "speech.audio.delta", "audio": event["audio"]["data"]}
            yield event_line(told, "speech.audio.delta")


async def transcriptions(request: Request) -> Response:
    service: Service = request.app.state.service
    form, files = await form_body(request)
    fields = typed(form)
    service.known(model(fields))
    if len(files.get("file", ())) != 1:
        raise ApiError("Send one 'file' of sound.", param="file", code="missing_required_parameter")
    shape = fields.choice("response_format", "json", SHAPES)
    fields.refuse(("timestamp_granularities", "include", "chunking_strategy"))
    sound = await attended(request, service.intake.read(Source("speech", "file", files["file"][0])))
    assert isinstance(sound, Audio)
    asked = settings(fields, out="text")
    turns = Turns((Message("user", (sound, Text(service.wording.hear))),))
    job = Job(turns, "text", TOKENS, seed=asked.seed or 0, sampling=service.sampling(asked))
    streams = service.scheduler.submit([job], client_of(request))
    if fields.flag("stream"):
        return await begun(_heard(service, asked, streams), streams)
    (reply,) = await attended(request, service.collect(streams, asked))
    return _shaped(shape, reply.answer.text.strip(), sound.seconds, reply.usage)


def _shaped(shape: str, text: str, seconds: float, usage: Usage) -> Response:
    """The words as one segment: the model tells no times within it."""
    if shape == "text":
        return PlainTextResponse(f"{text}\n")
    if shape in ("srt", "vtt"):
        end = f"{int(seconds // 3600):02}:{int(seconds // 60 % 60):02}:{seconds % 60:06.3f}"
        lines = f"00:00:00.000 --> {end}\n{text}\n"
        return PlainTextResponse(f"WEBVTT\n\n{lines}" if shape == "vtt" else f"1\n{lines}".replace(".", ",", 2))
    told: dict[str, Any] = {"text": text}
    if shape == "verbose_json":
        segment = {"id": 0, "start": 0.0, "end": seconds, "text": text}
        told |= {"task": "transcribe", "language": "english", "duration": seconds, "segments": [segment]}
    return JSONResponse(told | {"usage": {"type": "tokens"} | usage.named("input", "output")})


async def _heard(service: Service, asked: Settings, streams: Sequence[Stream]) -> AsyncIterator[str]:
    answer = service.answer(asked)
    async for event in service.deltas(streams[0], answer):
        if isinstance(event, End):
            told: dict[str, Any] = {"type": "transcript.text.done", "text": answer.text}
            told |= {"usage": {"type": "tokens"} | event.usage.named("input", "output")}
            yield event_line(told, "transcript.text.done")
        elif "content" in event:
            yield event_line({"type": "transcript.text.delta", "delta": event["content"]}, "transcript.text.delta")
