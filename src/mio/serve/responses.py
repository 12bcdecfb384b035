"""/v1/responses without memory: the same answers as chat, as items, because some clients see pictures only there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mio.serve.answer import Delta, Head
from mio.serve.errors import ApiError, unsupported
from mio.serve.fields import Fields
from mio.serve.protocol import MESSAGES, Settings, Source, Turn, from_base64, model, part, settings, settled, shape
from mio.serve.scheduler import End, Stream
from mio.serve.service import Service, attended, begun, client_of, event_line, json_body

STATEFUL = ("previous_response_id", "conversation", "background", "prompt")
REFUSED = (*STATEFUL, "top_logprobs", "max_tool_calls", "include")
Event = dict[str, Any]


# --------------------------------------------------------------------------------------------------------- requests


def _text(fields: Fields) -> str:
    return fields.text("text")


def _image(fields: Fields) -> str | Source:
    if fields.has("file_id"):
        raise unsupported(fields.at("file_id"), "This server keeps no files; send the picture as 'image_url'.")
    return part(Fields({"type": "image_url", "image_url": fields.raw("image_url")}, fields.path))


def _as_in_chat(fields: Fields) -> str | Source:
    return part(Fields({**fields.values, "type": fields.text("type")}, fields.path))


CONTENT: Mapping[str, Callable[[Fields], str | Source]] = {
    "input_text": _text,
    "output_text": _text,
    "input_image": _image,
    "input_audio": _as_in_chat,
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _message(item: Fields) -> Turn:
    role: Any = ROLES[item.choice("role", "", ROLES)]
    if isinstance(item.raw("content"), str):
        return Turn(role, (item.text("content"),))
    pieces = item.objects("content", MESSAGES)
    return Turn(role, tuple(CONTENT[piece.choice("type", "", CONTENT)](piece) for piece in pieces))


def _drawn(item: Fields) -> Turn:
    """A picture of an earlier answer."""
    data = from_base64(item.text("result", most=96 * 2**20), item.at("result"))
    return Turn("assistant", (Source("image", item.at("result"), data),))


ITEMS: Mapping[str, Callable[[Fields], Turn]] = {"message": _message, "image_generation_call": _drawn}


@dataclass(frozen=True)
class ItemsRequest:
    model: str
    turns: tuple[Turn, ...]
    settings: Settings
    stream: bool
    instructions: str
    format: Mapping[str, Any]  # of texts, as it came


def read(fields: Fields) -> ItemsRequest:
    fields.refuse(REFUSED)
    instructions = fields.text("instructions", "")
    if isinstance(fields.raw("input"), str):
        found = [Turn("user", (fields.text("input"),))]
    else:
        items = fields.objects("input", MESSAGES)
        found = [ITEMS[item.choice("type", "message", ITEMS)](item) for item in items]
    system = [Turn("system", (instructions,))] if instructions else []
    format = fields.object("text").object("format")
    asked = replace(settings(fields, "max_output_tokens", _out(fields)), shape=shape(format, format))
    told, shown = settled([*system, *found], "input"), format.values or {"type": "text"}
    return ItemsRequest(model(fields), told, asked, fields.flag("stream"), instructions, shown)


def _out(fields: Fields) -> str:
    """The tool for pictures allows them; to choose it asks for one. `out` and `modalities` go before."""
    tools = [tool.choice("type", "", ("image_generation",)) for tool in fields.objects("tools", 8)]
    if fields.has("out") or fields.has("modalities"):
        return ""
    chosen = isinstance(fields.raw("tool_choice"), dict) or fields.raw("tool_choice") == "required"
    return ("image" if chosen else "text,image") if tools else "text"


# ---------------------------------------------------------------------------------------------------------- answers


@dataclass
class Items:
    """Deltas of an answer -> events, each with its number; the items so far are `output`."""

    head: Head
    base: Event
    output: list[Event] = field(default_factory=list)
    text: str | None = None  # of a message item that is open
    numbers: Iterator[int] = field(default_factory=count)

    def event(self, name: str, **fields: Any) -> Event:
        return {"type": f"response.{name}", "sequence_number": next(self.numbers), **fields}

    def response(self, status: str, **fields: Any) -> Event:
        mine = {"id": self.head.id, "created_at": self.head.created, "model": self.head.model, "status": status}
        return self.base | mine | {"output": self.output} | fields

    def begin(self) -> list[Event]:
        told = self.response("in_progress")
        return [self.event("created", response=told), self.event("in_progress", response=told)]

    def add(self, delta: Delta) -> list[Event]:
        out: list[Event] = []
        if "content" in delta:
            out += self._open() if self.text is None else []
            self.text = (self.text or "") + delta["content"]
            out.append(self.event("output_text.delta", **self._at(), delta=delta["content"], logprobs=[]))
        for image in delta.get("images", ()):
            out += self._close()
            out += self._picture(image["image_url"]["url"].partition(",")[2])
        return out

    def end(self, last: End) -> list[Event]:
        out, short = self._close(), last.reason == "length"
        status = "incomplete" if short else "completed"
        details = {"reason": "max_output_tokens"} if short else None
        told = self.response(status, usage=last.usage.named("input", "output"), incomplete_details=details)
        return [*out, self.event(status, response=told)]

    def _at(self) -> Event:
        """Where the open text stands."""
        place = len(self.output)
        return {"item_id": f"msg_{self.head.id[5:]}_{place}", "output_index": place, "content_index": 0}

    def _item(self, status: str, content: list[Event]) -> Event:
        return {
            "id": self._at()["item_id"],
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _open(self) -> list[Event]:
        at, item = self._at(), self._item("in_progress", [])
        empty = {"type": "output_text", "text": "", "annotations": []}
        return [
            self.event("output_item.added", output_index=at["output_index"], item=item),
            self.event("content_part.added", **at, part=empty),
        ]

    def _close(self) -> list[Event]:
        if self.text is None:
            return []
        at, whole = self._at(), {"type": "output_text", "text": self.text, "annotations": []}
        item = self._item("completed", [whole])
        out = [
            self.event("output_text.done", **at, text=self.text, logprobs=[]),
            self.event("content_part.done", **at, part=whole),
            self.event("output_item.done", output_index=at["output_index"], item=item),
        ]
        self.text = None
        self.output = [*self.output, item]
        return out

    def _picture(self, data: str) -> list[Event]:
        place = len(self.output)
        id = f"ig_{self.head.id[5:]}_{place}"
        at = {"item_id": id, "output_index": place}
        item = {"id": id, "type": "image_generation_call", "status": "completed", "result": data}
        started = item | {"status": "in_progress", "result": None}
        self.output = [*self.output, item]
        return [
            self.event("output_item.added", output_index=place, item=started),
            self.event("image_generation_call.in_progress", **at),
            self.event("image_generation_call.generating", **at),
            self.event("image_generation_call.partial_image", **at, partial_image_b64=data, partial_image_index=0),
            self.event("image_generation_call.completed", **at),
            self.event("output_item.done", output_index=place, item=item),
        ]


def _base(asked: ItemsRequest) -> Event:
    """What every state of the response tells."""
    fixed: Event = {"object": "response", "error": None, "incomplete_details": None, "metadata": {}, "store": False}
    fixed |= {"parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "text": {"format": asked.format}}
    own = {"instructions": asked.instructions or None, "temperature": asked.settings.temperature}
    return fixed | own | {"top_p": asked.settings.top_p, "max_output_tokens": asked.settings.tokens}


async def responses(request: Request) -> Response:
    service: Service = request.app.state.service
    asked = read(await json_body(request))
    service.known(asked.model)
    if not set(service.model.kinds(asked.settings.out)) <= {"text", "image"}:
        raise ApiError("Responses hold texts and pictures; ask for others at /v1/chat/completions.", param="modalities")
    jobs = await attended(request, service.jobs(asked.turns, asked.settings))
    streams = service.scheduler.submit(jobs[:1], client_of(request))
    events = _events(service, asked, streams)
    if asked.stream:
        return await begun(_lines(events), streams)
    return JSONResponse(await attended(request, _last(events)))


async def _events(service: Service, asked: ItemsRequest, streams: Sequence[Stream]) -> AsyncIterator[Event]:
    items, opened = Items(service.head("resp_"), _base(asked)), False
    async for piece in service.deltas(streams[0], service.answer(asked.settings)):
        for event in () if opened else items.begin():
            yield event
        opened = True
        for event in items.end(piece) if isinstance(piece, End) else items.add(piece):
            yield event


async def _lines(events: AsyncIterator[Event]) -> AsyncIterator[str]:
    async for event in events:
        yield event_line(event, event["type"])


async def _last(events: AsyncIterator[Event]) -> Event:
    """The response as the last event has it."""
    event: Event = {}
    async for found in events:
        event = found
    response: Event = event["response"]
    return response
