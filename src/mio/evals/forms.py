"""How media of each type are stored beside a page, and shown in it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from mio.media import encode_audio, encode_image, encode_video
from mio.types import Audio, Image, Video


@dataclass(frozen=True)
class Form:
    kind: str
    suffix: str
    mime: str
    encode: Callable[[Any], bytes]
    html: str

    def shown(self, data: bytes, alt: str) -> str:
        """The bytes of a file as an element that needs nothing else."""
        uri = f"data:{self.mime};base64,{base64.b64encode(data).decode()}"
        return self.html.format(uri, escape(f"{self.kind} {alt}"))


SOUND = '<audio controls controlslist="nodownload noplaybackrate" src="{}" aria-label="{}"></audio>'
CLIP = '<video controls autoplay loop muted playsinline src="{}" aria-label="{}"></video>'
FORMS: dict[type, Form] = {
    Image: Form("picture", ".png", "image/png", encode_image, '<img src="{}" alt="{}">'),
    Audio: Form("sound", ".wav", "audio/wav", encode_audio, SOUND),
    Video: Form("clip", ".mp4", "video/mp4", encode_video, CLIP),
}
