"""Texts as the released script takes them: media stand for <image_placeholder_0>, <speech_placeholder_0> and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mio.types import Part, Text

PLACEHOLDER = re.compile(r"(<(?:image|speech)_placeholder_\d+>)", re.ASCII)


def placed(text: str, images: Sequence[Part] = (), speeches: Sequence[Part] = ()) -> tuple[Part, ...]:
    """A text with its placeholders as media, counted from 0 for each kind, any of them any number of times.

    As in the script, a placeholder without a medium stays text, and a medium without a placeholder is left out.
    """
    media = {f"<image_placeholder_{n}>": part for n, part in enumerate(images)}
    media |= {f"<speech_placeholder_{n}>": part for n, part in enumerate(speeches)}
    return tuple(media.get(piece, Text(piece)) for piece in PLACEHOLDER.split(text) if piece)
