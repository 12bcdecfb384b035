"""The application: endpoints by path, errors as JSON, the page if it is there, and the guard around everything."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mio.pipeline import Model
from mio.serve import chat, clips, completions, facts, pictures, responses, speech
from mio.serve.credentials import Credentials
from mio.serve.errors import ApiError, as_api_error
from mio.serve.fetch import Fetcher
from mio.serve.guard import Guard, Rules
from mio.serve.intake import Intake
from mio.serve.metrics import Metrics
from mio.serve.provenance import Provenance
from mio.serve.scheduler import Load, Scheduler
from mio.serve.service import Service
from mio.serve.wording import wording_of
from mio.serve.work import AnyEngine
from mio.types import MioError

log = logging.getLogger("mio.serve")
Endpoint = Callable[[Request], Awaitable[Response]]

ENDPOINTS: Mapping[tuple[str, str], Endpoint] = {
    ("POST", "/v1/chat/completions"): chat.chat,
    ("POST", "/v1/responses"): responses.responses,
    ("POST", "/v1/images/generations"): pictures.generations,
    ("POST", "/v1/images/edits"): pictures.edits,
    ("POST", "/v1/audio/speech"): speech.speech,
    ("POST", "/v1/audio/transcriptions"): speech.transcriptions,
    ("POST", "/v1/videos"): clips.create,
    ("GET", "/v1/videos"): clips.every,
    ("GET", "/v1/videos/{id}"): clips.one,
    ("GET", "/v1/videos/{id}/content"): clips.content,
    ("DELETE", "/v1/videos/{id}"): clips.delete,
    ("POST", "/v1/content_provenance_checks"): facts.provenance,
    ("GET", "/v1/models"): facts.models,
    ("GET", "/v1/models/{name}"): facts.one_model,
    ("POST", "/tokenize"): facts.tokenize,
    ("POST", "/detokenize"): facts.detokenize,
    ("GET", "/health"): facts.health,
    ("GET", "/ready"): facts.ready,
    ("GET", "/metrics"): facts.metrics,
    ("GET", "/version"): facts.tell_version,
}
BARE: Mapping[tuple[str, str], Endpoint] = {("POST", "/v1/completions"): completions.completions}
STATUS_CODES: Mapping[int, tuple[str, str]] = {
    404: ("There is no such endpoint.", "not_found"),
    405: ("This endpoint has no such method.", "method_not_allowed"),
}


@dataclass(frozen=True)
class Options:
    """How a server is run. `fetch`: hosts that media may be fetched from; `marks`: whether files are marked, and with
    `credentials` also signed; `bare`: whether a front may ask for ids."""

    rules: Rules = field(default_factory=Rules)
    load: Load = field(default_factory=Load)
    fetch: frozenset[str] = frozenset()
    marks: bool = True
    credentials: Credentials | None = None
    seconds: float = 30.0  # for answers under way when the server is told to end
    bare: bool = False


@dataclass(frozen=True)
class Served:
    """The application and what runs beside it."""

    app: ASGIApp
    service: Service


def build(model: Model, options: Options | None = None, engine: Callable[[], AnyEngine] | None = None) -> Served:
    """`engine`: what decodes, where it is not the model."""
    options = options or Options()
    metrics = Metrics()
    scheduler = Scheduler(model, options.load, metrics, engine)
    intake = Intake(Fetcher(options.fetch), metrics)
    marks = Provenance(model.config.name, options.marks, options.credentials)
    service = Service(model, wording_of(model), scheduler, intake, metrics, marks)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await asyncio.to_thread(scheduler.stop, options.seconds)
        await intake.close()

    page = _page()
    endpoints = {
        **ENDPOINTS,
        **(BARE if options.bare else {}),
        **{("GET", path): endpoint for path, endpoint in page.items()},
    }
    routes = [Route(path, endpoint, methods=[method]) for (method, path), endpoint in endpoints.items()]
    inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_route})
    inner.add_exception_handler(MioError, _failed)
    inner.add_exception_handler(Exception, _failed)
    inner.state.service, inner.state.shelf = service, clips.Shelf()
    rules = replace(options.rules, open=options.rules.open | page.keys())
    return Served(Guard(inner, rules, metrics, [path for _, path in endpoints]), service)


async def _failed(request: Request, error: Exception) -> Response:
    if not isinstance(error, MioError):
        log.error("a request failed", exc_info=error)
    return _told(as_api_error(error))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what, code = STATUS_CODES.get(error.status_code, ("The request is not valid.", "invalid_value"))
    status = error.status_code if error.status_code in STATUS_CODES else 400
    return _told(ApiError(what, status=status, code=code))


def _told(error: ApiError) -> Response:
    closing = {"connection": "close"} if error.status in (408, 413) else {}
    return JSONResponse(error.body(), error.status, headers=error.headers() | closing)


def _page() -> dict[str, Endpoint]:
    """A route for every file of the page, read once: no path that a client sends ever reaches the disk."""
    folder = Path(str(files("mio") / "serve" / "page"))
    found = {f"/{path.relative_to(folder).as_posix()}": path for path in sorted(folder.rglob("*")) if path.is_file()}
    routes = {route: _file(path) for route, path in found.items()}
    return routes | ({"/": routes["/index.html"]} if "/index.html" in routes else {})


def _file(path: Path) -> Endpoint:
    data = path.read_bytes()
    mime = {".js": "text/javascript"}.get(path.suffix) or mimetypes.guess_type(path.name)[0]

    async def endpoint(request: Request) -> Response:
        return Response(data, media_type=mime or "application/octet-stream", headers={"cache-control": "no-cache"})

    return endpoint
