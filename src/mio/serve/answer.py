"""Pieces of an answer -> deltas of a stream, and their sum, the message. Pure: bytes of files come from outside.

OpenAI's clients add deltas up naively (texts are joined, numbers added, lists appended by `index`). So an id, a time
and a whole picture each stand in exactly one delta, and every piece of base64 is whole groups.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mio.serve.protocol import BY_TYPE, KINDS, Stops
from mio.serve.sound import Pcm, seconds
from mio.types import Audio, AudioChunk, Media, Text

Delta = dict[str, Any]
Encode = Callable[[Media], bytes]


@dataclass(frozen=True)
class Fault:
    """A part of an answer that could not be made; the rest is none the worse."""

    message: str


Piece = Text | Media | Fault


@dataclass(frozen=True)
class Usage:
    """Numbers of ids by row name, and "text"."""

    prompt: Mapping[str, int]
    completion: Mapping[str, int]

    def __add__(self, other: Usage) -> Usage:
        """Of several answers to one prompt."""
        return Usage(self.prompt, {k: n + other.completion.get(k, 0) for k, n in self.completion.items()})

    def named(self, prompt: str = "prompt", completion: str = "completion") -> dict[str, Any]:
        """As the chat endpoint names them, or with "input" and "output" as the others do."""
        came, went = sum(self.prompt.values()), sum(self.completion.values())
        return {
            f"{prompt}_tokens": came,
            f"{completion}_tokens": went,
            "total_tokens": came + went,
            f"{prompt}_tokens_details": _details(self.prompt) | {"cached_tokens": 0},
            f"{completion}_tokens_details": _details(self.completion) | {"reasoning_tokens": 0},
        }


def _details(counts: Mapping[str, int]) -> dict[str, int]:
    names = {"text": "text", **{kind.row: kind.wire for kind in KINDS}}
    return {f"{names[row]}_tokens": count for row, count in counts.items() if row in names}


@dataclass
class Answer:
    """One answer as it comes. `encode`: a medium to its kind's default file; `stop`: words that end the text."""

    encode: Encode
    stop: Stops
    id: str = ""  # of the audio
    expires: int = 0
    text: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pcm: bytearray = field(default_factory=bytearray)
    sound: Pcm | None = None  # one that may go on

    def add(self, piece: Piece) -> list[Delta]:
        goes_on = isinstance(piece, AudioChunk) and piece.start > 0
        before = [] if goes_on else self._rest()
        if isinstance(piece, Text):
            return before + self._say(self.stop.feed(piece.text))
        before += self._say(self.stop.close())  # a stop word does not reach across a medium
        if self.stop.hit:
            return before
        if isinstance(piece, Fault):
            self.parts.append({"type": "error", "message": piece.message})
            return before
        return before + (self._sound(piece) if isinstance(piece, Audio) else self._file(piece))

    def _say(self, text: str) -> list[Delta]:
        if not text:
            return []
        if not self.parts or self.parts[-1]["type"] != "text":
            self.parts.append({"type": "text", "start": len(self.text), "end": len(self.text)})
        self.text += text
        self.parts[-1]["end"] = len(self.text)
        return [{"content": text}]

    def _file(self, media: Media) -> list[Delta]:
        kind = BY_TYPE[type(media)]
        files = self.files.setdefault(kind.field, [])
        files.append({"type": kind.part, kind.part: {"url": kind.url(self.encode(media))}, "index": len(files)})
        self.parts.append({"type": kind.wire, "index": len(files) - 1})
        return [{kind.field: [files[-1]]}]

    def _sound(self, audio: Audio) -> list[Delta]:
        """A whole sound, or the next piece of one."""
        if self.sound is None:
            self.sound, start = Pcm(audio.rate), seconds(self.pcm)
            self.parts.append({"type": "audio", "index": 0, "start": start, "end": start})
        return self._heard(self.sound.feed(audio.samples))

    def _rest(self) -> list[Delta]:
        """The end of a sound that does not go on."""
        sound, self.sound = self.sound, None
        return [] if sound is None else self._heard(sound.end())

    def _heard(self, data: bytes) -> list[Delta]:
        if not data:
            return []
        head = {"id": self.id, "expires_at": self.expires, "transcript": "", "format": "pcm16"}
        once = {} if self.pcm else head
        self.pcm += data
        self.parts[-1]["end"] = seconds(self.pcm)
        return [{"audio": {**once, "data": base64.b64encode(data).decode()}}]

    def close(self) -> list[Delta]:
        """What was held back."""
        return self._rest() + self._say(self.stop.close())

    def message(self, format: str = "pcm16", seal: Callable[[bytes], bytes] = bytes) -> dict[str, Any]:
        """The whole, once closed. `seal`: PCM to a file of that format."""
        out: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.pcm:
            data = base64.b64encode(seal(bytes(self.pcm))).decode()
            out["audio"] = {"id": self.id, "transcript": "", "data": data, "expires_at": self.expires, "format": format}
        return out | self.files | ({"parts": self.parts} if self.parts else {})


@dataclass(frozen=True)
class Head:
    """What all chunks of one reply share."""

    id: str
    created: int
    model: str

    def reply(self, kind: str, choices: list[dict[str, Any]], usage: Usage | None) -> dict[str, Any]:
        told = usage.named() if usage else None
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices} | {
            "usage": told,
            "system_fingerprint": None,
        }

    def chunk(self, index: int, delta: Delta) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self.reply("chat.completion.chunk", [choice], None)

    def last(self, index: int, answer: Answer, finish: str) -> dict[str, Any]:
        """The end of one answer. The order stands beside the delta, where no client tries to add it up."""
        choice = {"index": index, "delta": {}, "logprobs": None, "finish_reason": finish, "parts": answer.parts}
        return self.reply("chat.completion.chunk", [choice], None)

    def completion(self, messages: list[tuple[dict[str, Any], str]], usage: Usage) -> dict[str, Any]:
        """Messages, each with why it ended."""
        choices = [
            {"index": n, "message": message, "logprobs": None, "finish_reason": finish}
            for n, (message, finish) in enumerate(messages)
        ]
        return self.reply("chat.completion", choices, usage)
