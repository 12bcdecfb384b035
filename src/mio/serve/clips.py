"""/v1/videos: clips as jobs that a client comes back for. Kept in memory, a few, for an hour."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mio.serve.errors import ApiError, as_api_error, unsupported
from mio.serve.fields import Fields
from mio.serve.pictures import typed
from mio.serve.protocol import Settings, Turn, model, settings
from mio.serve.scheduler import End, Stream
from mio.serve.service import Service, client_of, form_body, json_body
from mio.types import Video

KEPT, SECONDS = 64, 3600  # clips; of each


@dataclass(eq=False)
class Clip:
    """`owner`: the client that may see it. `data`: the file, once it is there."""

    owner: str
    prompt: str
    model: str
    seconds: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: f"video_{uuid.uuid4().hex}")
    status: str = "queued"
    size: str = "auto"
    completed: int | None = None
    error: Mapping[str, str] | None = None
    data: bytes = b""
    task: asyncio.Task[None] | None = None

    def told(self) -> dict[str, Any]:
        done = {"queued": 0, "in_progress": 50}.get(self.status, 100)
        times = {"created_at": self.created, "completed_at": self.completed, "expires_at": self.created + SECONDS}
        what = {"model": self.model, "prompt": self.prompt, "seconds": self.seconds, "size": self.size}
        head = {"id": self.id, "object": "video", "status": self.status, "progress": done, "error": self.error}
        return head | times | what | {"remixed_from_video_id": None}


class Shelf:
    """The clips by id. The oldest that is finished makes room; without one there is none."""

    def __init__(self) -> None:
        self.clips: dict[str, Clip] = {}

    def add(self, clip: Clip) -> None:
        """Raises: ApiError when all places are taken by clips under way."""
        self._expire()
        done = [c for c in self.clips.values() if c.completed is not None]
        if len(self.clips) >= KEPT and not done:
            raise ApiError("Too many clips are under way.", status=429, code="server_overloaded", retry_after=10)
        if len(self.clips) >= KEPT:
            del self.clips[done[0].id]
        self.clips[clip.id] = clip

    def get(self, request: Request) -> Clip:
        """Raises: ApiError where the client has no such clip."""
        self._expire()
        clip = self.clips.get(request.path_params["id"])
        if clip is None or clip.owner != client_of(request):
            raise ApiError("There is no such video.", status=404, param="id", code="not_found")
        return clip

    def _expire(self) -> None:
        old = time.time() - SECONDS
        self.clips = {id: clip for id, clip in self.clips.items() if clip.created > old}


async def create(request: Request) -> Response:
    service, shelf = request.app.state.service, request.app.state.shelf
    form = request.headers.get("content-type", "").startswith("multipart/")
    fields, files = await form_body(request) if form else (await json_body(request), {})
    if files or fields.has("input_reference"):
        raise unsupported("input_reference")
    clip, asked = _read(service, typed(fields), client_of(request))
    words = service.wording.ask(service.wording.film, clip.prompt)
    jobs = await service.jobs((Turn("user", (words,)),), asked)
    shelf.add(clip)
    (stream,) = service.scheduler.submit(jobs[:1], clip.owner)
    clip.task = asyncio.create_task(_film(service, clip, stream))
    return JSONResponse(clip.told())


def _read(service: Service, fields: Fields, owner: str) -> tuple[Clip, Settings]:
    """A clip has the model's own length and size; a client that names others is told what it will get."""
    name, prompt = model(fields), fields.text("prompt", most=32_000)
    service.known(name)
    if not prompt.strip():
        raise fields.fault("prompt", "not empty", "invalid_value")
    rates = [row.rate for row in service.model.config.rows if row.spans_of]
    if not rates:
        raise ApiError("This model makes no clips.", code="unsupported_parameter")
    seconds = f"{service.model.config.frames / rates[0]:g}"
    return Clip(owner, prompt, service.name, seconds), settings(fields, out="video")


async def _film(service: Service, clip: Clip, stream: Stream) -> None:
    try:
        async for event in stream.events():
            clip.status = "in_progress"
            if isinstance(event, Video):
                height, width = event.frames.shape[1:3]
                clip.size, clip.data = f"{width}x{height}", await asyncio.to_thread(service.encode, event)
            elif isinstance(event, End) and not clip.data:
                raise ApiError("The model made no clip.", status=500, code="engine_error")
        clip.status = "completed"
    except ApiError as error:
        clip.status, clip.error = "failed", {"code": error.label, "message": str(error)}
    except Exception as error:
        told = as_api_error(error)
        clip.status, clip.error = "failed", {"code": told.label, "message": str(told)}
    finally:
        clip.completed = int(time.time())
        stream.cancel()


async def one(request: Request) -> Response:
    return JSONResponse(request.app.state.shelf.get(request).told())


async def every(request: Request) -> Response:
    mine = [c.told() for c in request.app.state.shelf.clips.values() if c.owner == client_of(request)]
    ends = {"first_id": mine[0]["id"] if mine else None, "last_id": mine[-1]["id"] if mine else None}
    return JSONResponse({"object": "list", "data": mine, "has_more": False} | ends)


async def content(request: Request) -> Response:
    clip: Clip = request.app.state.shelf.get(request)
    if clip.status != "completed":
        raise ApiError("This video is not finished.", status=404, param="id", code="not_ready")
    return Response(clip.data, media_type="video/mp4", headers={"x-ai-generated": "true"})


async def delete(request: Request) -> Response:
    """Also ends the work on it."""
    clip: Clip = request.app.state.shelf.get(request)
    if clip.task is not None:
        clip.task.cancel()
    request.app.state.shelf.clips.pop(clip.id, None)
    return JSONResponse({"id": clip.id, "object": "video.deleted", "deleted": True})
