"""Requests as OpenAI's clients write them -> what the model is asked. Pure: knows no model, no socket and no torch."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mio.decoding.constraint import Schema
from mio.serve.errors import ApiError, unsupported
from mio.serve.fields import TEXT, Fields
from mio.serve.sound import ENCODERS
from mio.types import Audio, Image, Role, Video


@dataclass(frozen=True)
class Kind:
    """How a modality row travels. `wire`: its name in `modalities`; `field`: where a message holds such media."""

    row: str
    media: type[Image] | type[Audio] | type[Video]
    wire: str
    field: str
    part: str  # the type of a content part, and its key
    mime: str  # of the default format
    most: int  # bytes of one input file

    def url(self, data: bytes) -> str:
        return f"data:{self.mime};base64,{base64.b64encode(data).decode()}"


KINDS: Sequence[Kind] = (
    Kind("image", Image, "image", "images", "image_url", "image/png", 20 * 2**20),
    Kind("speech", Audio, "audio", "audio", "audio_url", "audio/wav", 25 * 2**20),
    Kind("video", Video, "video", "videos", "video_url", "video/mp4", 64 * 2**20),
)
BY_ROW: Mapping[str, Kind] = {kind.row: kind for kind in KINDS}
BY_TYPE: Mapping[type, Kind] = {kind.media: kind for kind in KINDS}
ROW_OF: Mapping[str, str] = {"text": "text", **{k.wire: k.row for k in KINDS}, **{k.row: k.row for k in KINDS}}

MESSAGES, MEDIA, CHOICES, STOPS = 512, 16, 8, 4
MOST_TOKENS = 131_072
SCHEMA = 2**15  # characters of a JSON schema
MOST_BASE64 = 96 * 2**20  # characters
VOICE = re.compile(r"[a-z0-9_-]{1,64}")
FORMATS = ("wav", "mp3", "flac", "opus", "aac", "pcm16")


@dataclass(frozen=True)
class Source:
    """A medium as it came: `data`, or a `url` to fetch. `row`: what it must be; "" for any."""

    row: str
    param: str
    data: bytes = b""
    url: str = ""


@dataclass(frozen=True)
class Turn:
    role: Role
    parts: tuple[str | Source, ...]


@dataclass(frozen=True)
class Settings:
    """How an answer is decoded; None is the model's own way."""

    out: str = "text"
    tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    count: int = 1
    stop: tuple[str, ...] = ()
    frames: int = 0
    shape: Schema | None = None  # of each text


@dataclass(frozen=True)
class ChatRequest:
    model: str
    turns: tuple[Turn, ...]
    settings: Settings
    stream: bool = False
    usage: bool = False  # a last chunk with the usage
    format: str = "wav"
    voice: str = ""


# ------------------------------------------------------------------------------------------------------ media


def data_url(text: str, param: str) -> bytes | None:
    """The bytes of a data: URL; None for another kind of URL.

    Raises:
        ApiError: it is a data: URL, but not base64.
    """
    if text[:5].lower() != "data:":
        return None
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ApiError("A data: URL must be base64.", param=param, code="invalid_url")
    return from_base64(body, param)


def from_base64(text: str, param: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError("This is not valid base64.", param=param, code="invalid_base64") from error


def _linked(row: str, fields: Fields, name: str) -> Source:
    """`{"url": ...}`, or the URL alone."""
    holder = Fields({"url": fields.raw(name)}, fields.at(name))
    link = holder if isinstance(fields.raw(name), str) else fields.object(name)
    url = link.text("url", most=MOST_BASE64)
    data = data_url(url, link.at("url"))
    return Source(row, link.at("url"), url=url) if data is None else _held(row, link.at("url"), data)


def _held(row: str, param: str, data: bytes) -> Source:
    most = BY_ROW[row].most if row else max(kind.most for kind in KINDS)
    if len(data) > most:
        raise ApiError(f"The file has more than {most:,} bytes.", status=413, param=param, code="request_too_large")
    return Source(row, param, data)


def _text(fields: Fields) -> str:
    return fields.text("refusal" if fields.raw("type") == "refusal" else "text")


def _input_audio(fields: Fields) -> Source:
    audio = fields.object("input_audio")
    text = audio.text("data", most=MOST_BASE64)
    data = data_url(text, audio.at("data"))
    return _held("speech", audio.at("data"), from_base64(text, audio.at("data")) if data is None else data)


def _file(fields: Fields) -> Source:
    file = fields.object("file")
    if file.has("file_id"):
        raise unsupported(file.at("file_id"), "This server keeps no files; send the file itself as 'file_data'.")
    text = file.text("file_data", most=MOST_BASE64)
    data = data_url(text, file.at("file_data"))
    return _held("", file.at("file_data"), from_base64(text, file.at("file_data")) if data is None else data)


def _medium(kind: Kind) -> Callable[[Fields], Source]:
    return lambda fields: _linked(kind.row, fields, kind.part)


PARTS: Mapping[str, Callable[[Fields], str | Source]] = {
    "text": _text,
    "refusal": _text,
    "input_audio": _input_audio,
    "file": _file,
    **{kind.part: _medium(kind) for kind in KINDS},
}


def part(fields: Fields) -> str | Source:
    """A content part -> its text or its medium."""
    return PARTS[fields.choice("type", "", PARTS)](fields)


def content(fields: Fields, name: str = "content") -> tuple[str | Source, ...]:
    """A string, a list of parts, or nothing."""
    if isinstance(fields.raw(name), str):
        return (fields.text(name),)
    return tuple(part(piece) for piece in fields.objects(name, MESSAGES))


# --------------------------------------------------------------------------------------------------- messages


def _answer(message: Fields) -> tuple[str | Source, ...]:
    """An earlier answer that the client sends back: its `parts` say the order, as we gave it."""
    told = content(message)
    media = {kind.wire: _media(message, kind) for kind in KINDS}
    if message.has("parts"):
        return tuple(_ordered(message, "".join(p for p in told if isinstance(p, str)), media))
    return (*told, *(source for sources in media.values() for source in sources))


def _media(message: Fields, kind: Kind) -> list[Source]:
    if kind.field != "audio":
        return [_linked(kind.row, item, kind.part) for item in message.objects(kind.field, MEDIA)]
    audio = message.object("audio")
    if not audio.values:
        return []
    if not audio.has("data"):
        raise unsupported(audio.at("id"), "This server keeps no answers; send the audio's 'data' back, not its 'id'.")
    data = from_base64(audio.text("data", most=MOST_BASE64), audio.at("data"))
    bare = audio.choice("format", "wav", FORMATS) == "pcm16"
    return [_held(kind.row, audio.at("data"), ENCODERS["wav"][1](data[: len(data) // 2 * 2]) if bare else data)]


def _ordered(message: Fields, text: str, media: Mapping[str, list[Source]]) -> Iterator[str | Source]:
    """As `parts` says. Speech is one file, so it stands where its first piece stood."""
    spoken = False
    for piece in message.objects("parts", MESSAGES):
        kind = piece.choice("type", "", ("text", "error", *media))
        if kind == "text":
            yield text[piece.whole("start", 0, TEXT) or 0 : piece.whole("end", 0, TEXT) or 0]
        elif kind in media and not (kind == "audio" and spoken):
            number = piece.whole("index", 0, MEDIA) or 0
            if number >= len(media[kind]):
                raise piece.fault("index", f"the number of one of the message's {kind} parts", "invalid_value")
            spoken = spoken or kind == "audio"
            yield media[kind][number]


ROLES: Mapping[str, tuple[Role, Callable[[Fields], tuple[str | Source, ...]]]] = {
    "system": ("system", content),
    "developer": ("system", content),
    "user": ("user", content),
    "assistant": ("assistant", _answer),
}


def turns(fields: Fields) -> tuple[Turn, ...]:
    """The conversation. Texts of the system, wherever they stand, are joined at its beginning.

    Raises:
        ApiError: it asks nothing, has too many media, or a role or part that is not known.
    """
    found = []
    for message in fields.objects("messages", MESSAGES):
        message.refuse(("tool_calls", "function_call"))
        role, read = ROLES[message.choice("role", "", ROLES)]
        found.append(Turn(role, read(message)))
    return settled(found)


def settled(found: Sequence[Turn], param: str = "messages") -> tuple[Turn, ...]:
    media = [p for turn in found for p in turn.parts if isinstance(p, Source)]
    if len(media) > MEDIA:
        raise ApiError(f"More than {MEDIA} media in one request.", param=param, code="too_many_media")
    system = [turn for turn in found if turn.role == "system"]
    if any(isinstance(p, Source) for turn in system for p in turn.parts):
        raise ApiError("A system message holds text only.", param=param)
    rest = [turn for turn in found if turn.role != "system"]
    if not any(turn.role == "user" and any(turn.parts) for turn in rest):
        raise ApiError("The conversation has no message of a user.", param=param, code="empty_conversation")
    joined = "\n".join("".join(map(str, turn.parts)) for turn in system)
    return (Turn("system", (joined,)), *rest) if joined else tuple(rest)


# --------------------------------------------------------------------------------------------------- requests

REFUSED = (
    *("tools", "functions", "tool_choice", "function_call", "logprobs", "top_logprobs", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "prediction", "web_search_options", "prompt_embeds"),
)


def chat_request(fields: Fields) -> ChatRequest:
    """The body of /v1/chat/completions. Fields nobody knows are ignored; known ones that cannot be kept are refused."""
    fields.refuse(REFUSED)
    format = fields.object("response_format")
    wanted = replace(settings(fields), shape=shape(format, format.object("json_schema")))
    stream = fields.flag("stream")
    audio = fields.object("audio")
    spoken = audio.choice("format", "pcm16" if stream else "wav", FORMATS)
    if stream and spoken != "pcm16":
        raise unsupported("audio.format", "A stream carries audio as 'pcm16' only.")
    usage = fields.object("stream_options").flag("include_usage")
    told = turns(fields)
    return ChatRequest(model(fields), told, wanted, stream, usage, spoken, voice(audio))


def shape(format: Fields, holder: Fields) -> Schema | None:
    """What texts must be, by the `type` of a format; `holder` has the schema."""
    kind = format.choice("type", "text", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    if kind == "json_schema" and not holder.has("schema"):
        raise holder.fault("schema", "a JSON schema", "missing_required_parameter")
    found = Schema.of(holder.object("schema").values if kind == "json_schema" else {"type": "object"})
    if len(found.text) > SCHEMA:
        raise holder.fault("schema", f"at most {SCHEMA:,} characters", "string_above_max_length")
    return found


def model(fields: Fields) -> str:
    return fields.text("model", "", 256)


def settings(fields: Fields, limit: str = "max_completion_tokens", out: str = "") -> Settings:
    """`limit`: the endpoint's name for the budget of tokens; `out`: the output, where the endpoint says it."""
    stop = fields.texts("stop", STOPS, 64)
    if "" in stop:
        raise fields.fault("stop", "not empty", "invalid_value")
    return Settings(
        out or _out(fields),
        fields.whole(limit, 1, MOST_TOKENS) or fields.whole("max_tokens", 1, MOST_TOKENS),
        fields.number("temperature", 0, 2),
        fields.number("top_p", 0, 1),
        fields.whole("seed", -(2**63), 2**63 - 1),
        fields.whole("n", 1, CHOICES) or 1,
        stop,
    )


def _out(fields: Fields) -> str:
    """`out`, an order such as "(text image){4}"; or `modalities`, of which the model may use any."""
    if fields.has("out"):
        return re.sub(r"[a-z]+", lambda word: ROW_OF.get(word[0], word[0]), fields.text("out", most=256))
    wanted = fields.texts("modalities", len(KINDS) + 1, 16) or ("text",)
    for name in wanted:
        if name not in ROW_OF:
            raise fields.fault("modalities", f"a list of {', '.join(('text', *(k.wire for k in KINDS)))}")
    return ",".join(dict.fromkeys(ROW_OF[name] for name in wanted))


def voice(fields: Fields) -> str:
    """A voice's name, or `{"id": name}`."""
    holder = fields.object("voice") if isinstance(fields.raw("voice"), dict) else fields
    name = holder.text("voice" if holder is fields else "id", "", 64)
    if name and not VOICE.fullmatch(name):
        raise holder.fault("voice", "lower-case letters, digits, _ and -", "invalid_value")
    return name


@dataclass
class Stops:
    """Text that ends where one of `words` begins. What may be the beginning of one is held back."""

    words: tuple[str, ...]
    held: str = field(default="")
    hit: bool = False

    def feed(self, text: str) -> str:
        """The text that is safe to show."""
        if self.hit or not self.words:
            return "" if self.hit else text
        self.held += text
        found = [at for word in self.words if (at := self.held.find(word)) >= 0]
        self.hit = bool(found)
        keep = 0 if self.hit else max(map(self._begun, self.words))
        shown = self.held[: min(found)] if found else self.held[: len(self.held) - keep]
        self.held = self.held[len(shown) :]
        return shown

    def _begun(self, word: str) -> int:
        """How many characters at the end could begin this word."""
        return next((n for n in range(min(len(word) - 1, len(self.held)), 0, -1) if self.held.endswith(word[:n])), 0)

    def close(self) -> str:
        """What was held back, now that nothing follows."""
        rest, self.held = ("" if self.hit else self.held), ""
        return rest
