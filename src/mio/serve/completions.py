"""/v1/completions over ids, for a front that stands before this server: a prompt and a run of ids in, ids out.

The fields are vLLM's, so that one front serves both. Off unless asked for (`mio serve --bare`): whoever writes ids
writes control ids, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mio.decoding.runs import Run
from mio.decoding.sampling import RANGES, Sampling
from mio.serve.answer import Head, Usage
from mio.serve.errors import ApiError
from mio.serve.fields import Fields
from mio.serve.scheduler import End, Stream
from mio.serve.service import Service, attended, begun, client_of, event_line, json_body
from mio.serve.work import Continuation, Ids


async def completions(request: Request) -> Response:
    service: Service = request.app.state.service
    fields = await json_body(request)
    service.known(fields.text("model", ""))
    work = continuation(fields, len(service.model.processor.vocab), service.model.config.backbone.positions)
    streams = service.scheduler.submit([work], client_of(request))
    head = service.head("cmpl-")
    if fields.flag("stream"):
        return await begun(_lines(head, work, streams[0]), streams)
    return JSONResponse(await attended(request, _whole(head, work, streams)))


def continuation(fields: Fields, vocabulary: int, positions: int) -> Continuation:
    """Raises: ApiError for anything but ids, a run of ids, and settings that mean something."""
    prompt = fields.items("prompt", positions)
    if not prompt or not all(isinstance(id, int) and not isinstance(id, bool) for id in prompt):
        raise fields.fault("prompt", "a list of ids")
    fields.refuse(("n", "logprobs", "echo", "suffix", "use_beam_search", "logit_bias", "stop"))
    most = fields.whole("max_tokens", 1, positions) or 16
    grammar = fields.object("structured_outputs").text("grammar", "")
    if not grammar:
        raise fields.fault("structured_outputs", 'an object with a "grammar"', "missing_required_parameter")
    return Continuation(
        tuple(prompt), Run.read(grammar, most, vocabulary), sampling(fields), fields.whole("seed", 0, 2**63 - 1) or 0
    )


def sampling(fields: Fields) -> Sampling:
    """As vLLM's defaults are, where a field is missing."""
    found = {name: fields.number(name, *RANGES[name]) for name in ("temperature", "top_p", "min_p")}
    penalty, top_k = (
        fields.number("repetition_penalty", *RANGES["repetition_penalty"]),
        fields.whole("top_k", -1, 10**9),
    )
    heat, mass, least = (found[name] for name in ("temperature", "top_p", "min_p"))
    return Sampling(
        1.0 if heat is None else heat,
        1.0 if mass is None else mass,
        max(top_k or 0, 0),
        1.0 if penalty is None else penalty,
        least or 0.0,
    )


def _choice(ids: Sequence[int], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": "", "token_ids": [*ids], "logprobs": None, "finish_reason": finish}


def _reply(head: Head, choice: dict[str, Any], usage: Usage | None) -> dict[str, Any]:
    return head.reply("text_completion", [choice], usage)


def _finish(work: Continuation, last: int | None) -> str:
    return "stop" if last is not None and last in work.run.leave else "length"


async def _lines(head: Head, work: Continuation, stream: Stream) -> AsyncIterator[str]:
    last: int | None = None
    async for event in stream.events():
        if isinstance(event, Ids):
            last = event.ids[-1]
            yield event_line(_reply(head, _choice(event.ids, None), None))
        elif isinstance(event, End):
            yield event_line(_reply(head, _choice((), _finish(work, last)), event.usage))


async def _whole(head: Head, work: Continuation, streams: Sequence[Stream]) -> dict[str, Any]:
    ids: list[int] = []
    try:
        async for event in streams[0].events():
            if isinstance(event, Ids):
                ids += event.ids
            elif isinstance(event, End):
                return _reply(head, _choice(ids, _finish(work, ids[-1] if ids else None)), event.usage)
    finally:
        streams[0].cancel()
    raise ApiError("The answer ended without its end.", status=500, code="engine_error")
