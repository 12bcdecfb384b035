"""English as Whisper's evaluation writes it before words are counted: digits, American spellings, no fillers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any

from mio.types import MissingError

SPELLINGS = "english_spelling.json"  # of openai/whisper (MIT)


def spelt(texts: Sequence[str]) -> list[str]:
    """Texts as Whisper's English normaliser writes them.

    Raises:
        MissingError: transformers, which has the normaliser, is not there.
    """
    return [_normaliser()(text).strip() for text in texts]


@cache
def _normaliser() -> Callable[[str], str]:
    try:
        theirs: Any = import_module("transformers.models.whisper.english_normalizer")
    except ImportError as error:
        raise MissingError("Word error rates need transformers.", fix="Install it: pip install 'mio[hf]'") from error
    spellings = json.loads((files("mio") / "assets" / SPELLINGS).read_text(encoding="utf-8"))
    made: Callable[[str], str] = theirs.EnglishTextNormalizer(spellings)
    return made
