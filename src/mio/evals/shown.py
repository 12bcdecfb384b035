"""Parts of questions and answers as a page shows them, their media inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from mio.evals.forms import FORMS, Form
from mio.types import Part, Text


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
            found.append(piece.form.shown(piece.data, alt))
        elif piece.text.strip():
            found[-1] += f"<p>{escape(piece.text.strip())}</p>"
    return "".join(f'<div class="page">{page}</div>' for page in found if page)
