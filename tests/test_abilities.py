"""docs/abilities.md: every call in it runs as it is written there, and answers with the parts it promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import fabricate_model

from mio.decoding.sampling import BeamSearch, Sampling
from mio.pipeline import Job, Model, Regex, Reply, Schema, assistant, load, user
from mio.types import Audio, Image, Text, Turns, Video

PAGE = Path(__file__).parents[1] / "docs" / "abilities.md"
ROW = re.compile(r"^\| ([^|]+) \| `((?:[^`|]|\\\|)+)` \| ?([a-z ]*) ?\|$", re.MULTILINE)
KINDS = {"text": Text, "image": Image, "speech": Audio, "video": Video}
FRAME = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def rows() -> list[Any]:
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return [pytest.param(call.replace("\\|", "|"), kinds.split(), id=name) for name, call, kinds in found]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's calls refer to."""
    model: Model = load(fabricate_model(tmp_path_factory.mktemp("model")))
    picture, sound = Image(FRAME), Audio(np.sin(np.arange(4000) / 20).astype(np.float32), 16000)
    clip = Video(np.stack([FRAME] * 4), 4.0)
    media = {"picture": picture, "other": picture, "chart": picture, "sound": sound, "clip": clip}
    words = {"user": user, "assistant": assistant, "Sampling": Sampling, "BeamSearch": BeamSearch}
    words |= {"Schema": Schema, "Regex": Regex}
    return media | words | {"model": model, "Job": Job, "Turns": Turns, "Reply": Reply}


def test_the_page_has_the_nineteen_abilities_of_the_checklist_and_more() -> None:
    text = PAGE.read_text(encoding="utf-8")
    first = text[text.index("## The abilities") : text.index("## How they")]
    assert len(ROW.findall(first)) == 19
    assert len(rows()) == 19 + 16
    assert all((Path(__file__).parent / name).is_file() for name in re.findall(r"`(test_\w+\.py)`", text))


@pytest.mark.parametrize(("call", "kinds"), rows())
def test_a_call_answers_with_the_parts_that_it_promises(names: dict[str, Any], call: str, kinds: list[str]) -> None:
    reply: Reply = eval(call, dict(names))
    assert reply.faults == ()
    assert reply.error is None
    got = [type(p) for p in reply.parts]
    if kinds:
        assert [issubclass(g, KINDS[k]) for g, k in zip(got, kinds, strict=True)] == [True] * len(kinds)
    else:
        assert got
