"""What all endpoints share: bodies in, jobs for the scheduler, answers collected, whole or as they come."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mio.decoding.constraint import Schema
from mio.decoding.sampling import Sampling
from mio.media import encode_image, encode_video
from mio.pipeline import Job, Model
from mio.serve.answer import Answer, Delta, Head, Usage
from mio.serve.errors import ApiError, as_api_error, unsupported
from mio.serve.fields import Fields, parse_object
from mio.serve.intake import Intake
from mio.serve.metrics import Metrics
from mio.serve.protocol import BY_TYPE, Settings, Source, Stops, Turn
from mio.serve.provenance import Provenance
from mio.serve.scheduler import End, Scheduler, Stream
from mio.serve.sound import ENCODERS
from mio.serve.wording import Wording
from mio.serve.work import Ids
from mio.types import Image, Media, Message, MioError, MissingError, Part, Text, Turns, Video

T = TypeVar("T")
TOKENS = 400  # ids of an answer where the client sets no budget
EXPIRES = 3600  # seconds; what we say of audio, which is kept nowhere
KEEP_ALIVE, PATIENCE = 10.0, 5.0  # seconds between signs of life; until a stream begins without a first piece
LARGE = 2**16  # bytes of JSON that are read outside the loop


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    answer: Answer
    finish: str
    usage: Usage


@dataclass(frozen=True)
class Service:
    model: Model
    wording: Wording
    scheduler: Scheduler
    intake: Intake
    metrics: Metrics
    provenance: Provenance
    begun: int = field(default_factory=lambda: int(time.time()))

    @property
    def name(self) -> str:
        return self.model.config.name

    def known(self, model: str) -> None:
        """Raises: ApiError unless it is ours; none named means ours, too."""
        if model not in ("", self.name):
            raise ApiError("There is no such model here.", status=404, param="model", code="model_not_found")

    def head(self, prefix: str) -> Head:
        return Head(f"{prefix}{uuid.uuid4().hex}", int(time.time()), self.name)

    # -------------------------------------------------------------------------------------------------- jobs

    async def jobs(self, turns: Sequence[Turn], settings: Settings, voice: str = "") -> list[Job]:
        """One for each answer that is wanted. Without a seed each request has its own."""
        messages = [await self._message(turn) for turn in turns]
        if voice:
            messages = self._voiced(messages, voice)
        seed = random.getrandbits(62) if settings.seed is None else settings.seed % 2**63
        job = Job(Turns(tuple(messages)), settings.out, settings.tokens or TOKENS, settings.frames, seed)
        if settings.shape is not None:
            await asyncio.to_thread(self._shaped, settings.shape)  # read once, and not in the model's thread
        job = replace(job, sampling=self.sampling(settings), shape=settings.shape)
        return [replace(job, seed=(seed + number) % 2**63) for number in range(settings.count)]

    def _shaped(self, shape: Schema) -> None:
        """Raises: ApiError where text cannot be given this shape."""
        try:
            self.model.constraint(shape)
        except MissingError as error:
            raise unsupported("response_format", "This server has no package for JSON formats.") from error
        except MioError as error:
            raise ApiError(str(error), param="response_format", code="invalid_schema") from error

    async def _message(self, turn: Turn) -> Message:
        parts: list[Part] = []
        for part in turn.parts:
            parts.append(await self.intake.read(part) if isinstance(part, Source) else Text(part))
        return Message(turn.role, tuple(parts))

    def _voiced(self, messages: list[Message], voice: str) -> list[Message]:
        """The last text of the conversation, naming the voice."""
        self.check_voice(voice, "audio.voice")
        *earlier, last = messages
        texts = [n for n, part in enumerate(last.parts) if isinstance(part, Text)]
        if not texts:
            return messages
        parts = list(last.parts)
        parts[texts[-1]] = Text(self.wording.in_voice(parts[texts[-1]].text, voice))  # type: ignore[union-attr]
        return [*earlier, Message(last.role, tuple(parts))]

    def check_voice(self, voice: str, param: str) -> None:
        """ "alloy", which OpenAI's clients must send, and "default" leave the choice to the model."""
        if voice not in ("", "alloy", "default", *self.wording.voices):
            known = ", ".join(("default", *self.wording.voices))
            raise ApiError(f"There is no such voice. Known are {known}.", param=param, code="invalid_voice")

    def sampling(self, settings: Settings) -> dict[str, Sampling]:
        """What would decode the answer anyway, but for what the client sets."""
        if settings.temperature is None and settings.top_p is None:
            return {}
        own = self.model.decoding(settings.out)
        heat, mass = settings.temperature, settings.top_p
        return {
            place: Sampling(
                s.temperature if heat is None else heat,
                s.top_p if mass is None else mass,
                s.top_k,
                s.repetition_penalty,
            )
            for place, s in own.items()
        }

    # ----------------------------------------------------------------------------------------------- answers

    def answer(self, settings: Settings) -> Answer:
        return Answer(self.encode, Stops(settings.stop), f"audio_{uuid.uuid4().hex}", int(time.time()) + EXPIRES)

    def encode(self, media: Media, format: str = "") -> bytes:
        """A medium in its kind's default format, or another, marked as made by a model."""
        if isinstance(media, Image):
            return self.provenance.seal(encode_image(media, format or "png"), f"image/{format or 'png'}")
        assert isinstance(media, Video)
        return self.provenance.seal(encode_video(media), BY_TYPE[Video].mime)

    def sound(self, pcm: bytes, format: str) -> bytes:
        mime, encode = ENCODERS[format]
        return self.provenance.seal(encode(pcm), mime)

    async def deltas(self, stream: Stream, answer: Answer) -> AsyncIterator[Delta | End]:
        """The answer as it comes, then how it ended. The model stops where a stop word or the client does."""
        try:
            async for event in stream.events():
                if isinstance(event, End):
                    for delta in answer.close():
                        yield delta
                    yield replace(event, reason="stop") if answer.stop.hit else event
                elif not (answer.stop.hit or isinstance(event, Ids)):
                    heavy = not isinstance(event, Text)
                    made = await asyncio.to_thread(answer.add, event) if heavy else answer.add(event)
                    if answer.stop.hit:
                        stream.cancel()
                    for delta in made:
                        yield delta
        finally:
            stream.cancel()

    async def collect(self, streams: Sequence[Stream], settings: Settings) -> list[Reply]:
        """Whole answers; where this is cancelled, so are they."""
        try:
            return [await self._collect(stream, settings) for stream in streams]
        finally:
            for stream in streams:
                stream.cancel()

    async def _collect(self, stream: Stream, settings: Settings) -> Reply:
        answer, end = self.answer(settings), None
        async for event in self.deltas(stream, answer):
            end = event if isinstance(event, End) else end
        assert end is not None
        return Reply(answer, end.reason, end.usage)

    async def replies(
        self, request: Request, turns: Sequence[Turn], settings: Settings, voice: str = ""
    ) -> list[Reply]:
        """From what is asked to whole answers, unless the client hangs up."""

        async def work() -> list[Reply]:
            streams = self.scheduler.submit(await self.jobs(turns, settings, voice), client_of(request))
            return await self.collect(streams, settings)

        return await attended(request, work())


def client_of(request: Request) -> str:
    """Whose turn it is, when several wait: the key's owner, or the address."""
    return request.headers.get("authorization") or (request.client.host if request.client else "")


async def attended(request: Request, work: Awaitable[T]) -> T:
    """The result; the work is cancelled when the client hangs up first."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError("The client hung up.", status=400, code="client_closed_request")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.wait({task})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# ------------------------------------------------------------------------------------------------------- bodies


async def json_body(request: Request) -> Fields:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError("Send application/json.", status=415, code="unsupported_media_type")
    data = await request.body()
    return await asyncio.to_thread(parse_object, data) if len(data) > LARGE else parse_object(data)


async def form_body(request: Request) -> tuple[Fields, dict[str, list[bytes]]]:
    """The fields of a form as strings, and its files by name; the last of a field counts."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError("Send multipart/form-data.", status=415, code="unsupported_media_type")
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    async with request.form(max_files=16, max_fields=64, max_part_size=2**20) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files.setdefault(name.removesuffix("[]"), []).append(await value.read())
            else:
                fields[name] = value
    return Fields(fields), files


# ------------------------------------------------------------------------------------------------------ streams


class Piped(StreamingResponse):
    """What comes of some answers, as it comes; they end with the connection."""

    def __init__(
        self, content: AsyncIterator[str | bytes], streams: Sequence[Stream], mime: str = "text/event-stream"
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "x-ai-generated": "true"}
        super().__init__(content, media_type=mime, headers=headers)
        self.streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for stream in self.streams:
                stream.cancel()


async def begun(lines: AsyncIterator[str], streams: Sequence[Stream]) -> Piped:
    """The response to lines of events, once the first is there or has kept us waiting; so errors still have a status.

    Raises:
        ApiError: what went wrong before the first line.
    """
    first = asyncio.ensure_future(anext(lines))
    try:
        await asyncio.wait({first}, timeout=PATIENCE)
        if first.done():
            first.result()
    except BaseException:
        for stream in streams:
            stream.cancel()
        raise
    return Piped(_alive(first, lines), streams)


async def _alive(pending: asyncio.Future[str], lines: AsyncIterator[str]) -> AsyncIterator[str]:
    """Lines, comments while none comes, and errors as an event."""
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=KEEP_ALIVE)
            if not done:
                yield ": keep-alive\n\n"
                continue
            yield pending.result()
            pending = asyncio.ensure_future(anext(lines))
    except StopAsyncIteration:
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield event_line(error.body()) + "data: [DONE]\n\n"
    except Exception as error:
        yield event_line(as_api_error(error).body()) + "data: [DONE]\n\n"
    finally:
        pending.cancel()


def event_line(data: dict[str, Any], name: str = "") -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"
