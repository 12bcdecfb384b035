"""Parts of questions and answers as a page shows them, their media inside it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mio.media import encode_audio, encode_image, encode_video
from mio.types import Audio, Image, Part, Text, Video


@dataclass(frozen=True)
class Form:
    """How media of one type are stored, and shown in a page."""

    kind: str
    suffix: str
    mime: str
    encode: Callable[[Any], bytes]
    html: str


SOUND = '<audio controls controlslist="nodownload noplaybackrate" src="{}" aria-label="{}"></audio>'
CLIP = '<video controls autoplay loop muted playsinline src="{}" aria-label="{}"></video>'
FORMS: Mapping[type, Form] = {
    Image: Form("picture", ".png", "image/png", encode_image, '<img src="{}" alt="{}">'),
    Audio: Form("sound", ".wav", "audio/wav", encode_audio, SOUND),
    Video: Form("clip", ".mp4", "video/mp4", encode_video, CLIP),
}


@dataclass(frozen=True)
class Piece:
    """One part of a question or an answer: a text, or the bytes of a file."""

    text: str = ""
    form: Form | None = None
    file: str = ""
    data: bytes = b""

    @staticmethod
    def of(part: Part, stem: str) -> Piece:
        if isinstance(part, Text):
            return Piece(part.text)
        form = FORMS[type(part)]
        return Piece("", form, f"media/{stem}{form.suffix}", form.encode(part))

    def report(self) -> dict[str, str]:
        return {"kind": self.form.kind, "file": self.file} if self.form else {"kind": "text", "text": self.text}


def pages(pieces: Sequence[Piece], alt: str) -> str:
    """Each medium with the text that follows it."""
    found: list[str] = [""]
    for piece in pieces:
        if piece.form:
            uri = f"data:{piece.form.mime};base64,{base64.b64encode(piece.data).decode()}"
            found.append(piece.form.html.format(uri, escape(f"{piece.form.kind} {alt}")))
        elif piece.text.strip():
            found[-1] += f"<p>{escape(piece.text.strip())}</p>"
    return "".join(f'<div class="page">{page}</div>' for page in found if page)
