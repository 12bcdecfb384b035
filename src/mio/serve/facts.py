"""Endpoints that tell about the server, its model and files: models, tokens, health, numbers, provenance."""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from mio.serve.errors import ApiError
from mio.serve.protocol import KINDS, Source, turns
from mio.serve.provenance import findings
from mio.serve.service import Service, form_body, json_body
from mio.types import Message, Text, Turns

IDS = 131_072


def _card(service: Service) -> dict[str, Any]:
    """An entry of /v1/models, with what the page and curious clients want to know beyond OpenAI's fields."""
    spoken = service.model.modalities
    kinds = ["text", *(kind.wire for kind in KINDS if kind.row in spoken)]
    card = {"id": service.name, "object": "model", "created": service.begun, "owned_by": "mio"}
    positions = service.model.config.backbone.positions
    more = {"modalities": {"input": kinds, "output": kinds}, "max_model_len": positions}
    return card | more | {"voices": list(service.wording.voices)}


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_card(request.app.state.service)]})


async def one_model(request: Request) -> Response:
    service: Service = request.app.state.service
    service.known(request.path_params["name"])
    return JSONResponse(_card(service))


async def health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    service: Service = request.app.state.service
    if not service.scheduler.ready:
        raise ApiError("Not ready.", status=503, code="not_ready", retry_after=5)
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def tell_version(request: Request) -> Response:
    return JSONResponse({"version": version("mio")})


async def tokenize(request: Request) -> Response:
    """Text -> its ids alone; a conversation of texts -> the ids that the model would see."""
    service: Service = request.app.state.service
    fields, processor = await json_body(request), service.model.processor
    if fields.has("prompt"):
        ids = list(processor.text.encode(fields.text("prompt")))
    else:
        told = turns(fields)
        if any(isinstance(part, Source) for turn in told for part in turn.parts):
            raise ApiError("Only texts are tokenized here.", param="messages", code="unsupported_parameter")
        messages = tuple(Message(turn.role, tuple(Text(str(part)) for part in turn.parts)) for turn in told)
        ids = processor.sequence(Turns(messages), open_turn=True).ids.tolist()
    return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": service.model.config.backbone.positions})


async def detokenize(request: Request) -> Response:
    """Ids -> their text; control ids and media have none."""
    service: Service = request.app.state.service
    fields, processor = await json_body(request), service.model.processor
    ids = fields.items("tokens", IDS)
    if not ids or any(
        isinstance(id, bool) or not isinstance(id, int) or not 0 <= id < len(processor.vocab) for id in ids
    ):
        raise fields.fault("tokens", f"a list of ids from 0 to {len(processor.vocab) - 1}")
    parts = processor.parse(np.array(ids, np.int64)).parts
    return JSONResponse({"prompt": "".join(part.text for part in parts if isinstance(part, Text))})


async def provenance(request: Request) -> Response:
    """Which marks a file carries. Their absence means nothing."""
    _, files = await form_body(request)
    if len(files.get("file", ())) != 1:
        raise ApiError("Send one 'file'.", param="file", code="missing_required_parameter")
    results = await asyncio.to_thread(findings, files["file"][0])
    return JSONResponse({"object": "content_provenance_check", "created_at": int(time.time()), "results": results})
