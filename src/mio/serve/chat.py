"""/v1/chat/completions: interleaved answers, whole or as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mio.serve.answer import Head, Usage
from mio.serve.protocol import ChatRequest, chat_request
from mio.serve.scheduler import End, Stream
from mio.serve.service import Service, attended, begun, client_of, event_line, json_body


async def chat(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = chat_request(await json_body(request))
    service.known(asked.model)
    if asked.stream:
        return await _stream(service, request, asked)
    replies = await service.replies(request, asked.turns, asked.settings, asked.voice)

    def seal(pcm: bytes) -> bytes:
        return service.sound(pcm, asked.format)

    messages = [(reply.answer.message(asked.format, seal), reply.finish) for reply in replies]
    usage = sum((reply.usage for reply in replies[1:]), replies[0].usage)
    return JSONResponse(service.head("chatcmpl-").completion(messages, usage))


async def _stream(service: Service, request: Request, asked: ChatRequest) -> Response:
    jobs = await attended(request, service.jobs(asked.turns, asked.settings, asked.voice))
    streams = service.scheduler.submit(jobs, client_of(request))
    return await begun(_lines(service, asked, service.head("chatcmpl-"), streams), streams)


async def _lines(service: Service, asked: ChatRequest, head: Head, streams: Sequence[Stream]) -> AsyncIterator[str]:
    """Answers one after the other; each begins with its role once the model has taken it on."""
    total: Usage | None = None
    for number, stream in enumerate(streams):
        answer, opened = service.answer(asked.settings), False
        async for event in service.deltas(stream, answer):
            if not opened:
                opened = True
                yield event_line(head.chunk(number, {"role": "assistant", "content": "", "refusal": None}))
            if isinstance(event, End):
                total = event.usage if total is None else total + event.usage
                yield event_line(head.last(number, answer, event.reason))
            else:
                yield event_line(head.chunk(number, event))
    if asked.usage and total is not None:
        yield event_line(head.reply("chat.completion.chunk", [], total))
