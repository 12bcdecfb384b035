"""/v1/images/generations and /v1/images/edits."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mio.media import resize
from mio.serve.answer import Fault, Usage
from mio.serve.errors import ApiError, as_api_error, unsupported
from mio.serve.fields import Fields
from mio.serve.protocol import Settings, Source, Turn, model, settings
from mio.serve.scheduler import End, Stream
from mio.serve.service import Service, attended, begun, client_of, event_line, form_body, json_body
from mio.types import Image

SIDE = 2048  # most pixels of a side
FORMATS = ("png", "jpeg", "webp")


@dataclass(frozen=True)
class PictureRequest:
    """`side`: of the square that is wanted; 0: as the model draws."""

    turn: Turn
    settings: Settings
    event: str
    side: int = 0
    format: str = "png"
    url: bool = False
    stream: bool = False


async def generations(request: Request) -> Response:
    service: Service = request.app.state.service
    fields = await json_body(request)
    words = service.wording.ask(service.wording.draw, fields.text("prompt", most=32_000))
    return await _answered(service, request, fields, read(fields, Turn("user", (words,)), "image_generation"))


async def edits(request: Request) -> Response:
    """The pictures first, then what to do with them, as models have learned it."""
    service: Service = request.app.state.service
    fields, files = await form_body(request)
    if not files.get("image"):
        raise ApiError("Send the picture to edit as 'image'.", param="image", code="missing_required_parameter")
    if files.get("mask"):
        raise unsupported("mask")
    pictures = (Source("image", "image", data) for data in files["image"])
    turn = Turn("user", (*pictures, fields.text("prompt", most=32_000)))
    return await _answered(service, request, typed(fields), read(typed(fields), turn, "image_edit"))


def typed(fields: Fields) -> Fields:
    """Numbers and flags of a form, which has texts only."""
    values: dict[str, Any] = dict(fields.values)
    for name in ("n", "seed"):
        if re.fullmatch(r"-?\d{1,20}", str(values.get(name, ""))):
            values[name] = int(values[name])
    for name in ("temperature", "top_p", "speed"):
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", str(values.get(name, ""))):
            values[name] = float(values[name])
    if values.get("stream") in ("true", "false"):
        values["stream"] = values["stream"] == "true"
    return Fields(values)


def read(fields: Fields, turn: Turn, event: str) -> PictureRequest:
    if not any(isinstance(part, Source) or part.strip() for part in turn.parts):
        raise fields.fault("prompt", "not empty", "invalid_value")
    fields.refuse(("negative_prompt", "num_inference_steps", "guidance_scale", "output_compression"))
    if fields.choice("background", "auto", ("auto", "opaque", "transparent")) == "transparent":
        raise unsupported("background", "Pictures have no transparent background here.")
    url = fields.choice("response_format", "b64_json", ("b64_json", "url")) == "url"
    format = fields.choice("output_format", "png", FORMATS)
    asked = settings(fields, out="image")
    return PictureRequest(turn, asked, event, _side(fields), format, url, fields.flag("stream"))


def _side(fields: Fields) -> int:
    size = fields.text("size", "auto", 32)
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", size)
    if size == "auto":
        return 0
    if match is None or match[1] != match[2] or not 16 <= int(match[1]) <= SIDE:
        raise fields.fault("size", f"auto or a square from 16x16 to {SIDE}x{SIDE}", "invalid_value")
    return int(match[1])


async def _answered(service: Service, request: Request, fields: Fields, asked: PictureRequest) -> Response:
    service.known(model(fields))
    jobs = await attended(request, service.jobs((asked.turn,), asked.settings))
    streams = service.scheduler.submit(jobs, client_of(request))
    if asked.stream:
        return await begun(_lines(service, asked, streams), streams)
    made = await attended(request, _drawn(service, asked, streams))
    data = [
        {"b64_json": None, "url": f"data:image/{asked.format};base64,{p}"} if asked.url else {"b64_json": p}
        for p, _, _ in made
    ]
    usage = sum((u for _, _, u in made[1:]), made[0][2])
    told = {"created": int(time.time()), "data": data, "output_format": asked.format, "size": made[0][1]}
    return JSONResponse(told | {"background": "opaque", "usage": usage.named("input", "output")})


async def _drawn(service: Service, asked: PictureRequest, streams: Sequence[Stream]) -> list[tuple[str, str, Usage]]:
    try:
        return [await _one(service, asked, stream) for stream in streams]
    finally:
        for stream in streams:
            stream.cancel()


async def _one(service: Service, asked: PictureRequest, stream: Stream) -> tuple[str, str, Usage]:
    """The picture in base64, its size in words, and what it took."""
    picture: Image | None = None
    fault = Fault("The model drew nothing.")
    async for event in stream.events():
        if isinstance(event, Image):
            picture = resize(event, asked.side) if asked.side else event
        elif isinstance(event, Fault):
            fault = event
        elif isinstance(event, End):
            if picture is None:
                raise ApiError(fault.message, status=500, code="engine_error")
            height, width = picture.pixels.shape[:2]
            data = await asyncio.to_thread(service.encode, picture, asked.format)
            return base64.b64encode(data).decode(), f"{width}x{height}", event.usage
    raise as_api_error(RuntimeError("a stream without an end"))


async def _lines(service: Service, asked: PictureRequest, streams: Sequence[Stream]) -> AsyncIterator[str]:
    for stream in streams:
        data, size, usage = await _one(service, asked, stream)
        name = f"{asked.event}.completed"
        told: dict[str, Any] = {"type": name, "b64_json": data, "created_at": int(time.time()), "size": size}
        told |= {"background": "opaque", "output_format": asked.format, "quality": "auto"}
        yield event_line(told | {"usage": usage.named("input", "output")}, name)
