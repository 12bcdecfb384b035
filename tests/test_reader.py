"""Ids as they come -> pieces of an answer."""

from __future__ import annotations

import numpy as np
import pytest

import mio
from mio.pipeline import Model
from mio.serve.reader import Reader


@pytest.fixture(scope="module")
def model() -> Model:
    return mio.load()


def picture(model: Model) -> list[int]:
    """A span of any picture."""
    vocab = model.processor.vocab
    begin, end = vocab.bounds("image")
    row = vocab.row("image")
    return [begin, *vocab.level_ids("image")[0][np.arange(row.steps)].tolist(), end]


@pytest.mark.parametrize(
    ("out", "found"),
    [
        ("text,image,video", ["Image", "Text", "Video"]),
        ("text,video", ["Video", "Text", "Video"]),
        ("text,image", ["Image", "Text", "Image", "Image"]),
    ],
)
def test_a_lone_picture_is_a_picture_and_a_run_of_them_a_clip(model: Model, out: str, found: list[str]) -> None:
    words = model.processor.text.encode("so")
    reader = Reader(model, out)
    pieces = [*reader.feed([*picture(model), *words, *picture(model) * 2]), *reader.close()]
    kinds = [type(piece).__name__ for piece in pieces]
    assert [kind for n, kind in enumerate(kinds) if kind != "Text" or kinds[n - 1 : n] != ["Text"]] == found
