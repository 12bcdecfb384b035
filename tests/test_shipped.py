"""The model that ships: whole, small enough, described, and still what its report says on the package's sample."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import mio
from mio.checkpoint import read_json, verify
from mio.data.sources import Item, held_out, read_corpus
from mio.evals.tasks import MEASURES, answers, background, structure
from mio.pipeline import Job, Model, user
from mio.processor import open_media
from mio.types import Audio, Image, Turns, Video

ASSETS = Path(str(files("mio") / "assets"))
TINY, SAMPLE = ASSETS / "tiny", ASSETS / "sample"


@pytest.fixture(scope="module")
def model() -> Model:
    return mio.load()


def unseen(source: str) -> list[Item]:
    """The sample's items of a source that no training has seen."""
    rule = read_json(SAMPLE / "split.json")
    share = rule["held_out"][source]
    return [i for i in read_corpus(SAMPLE) if i.source == source and held_out(i.group, share, rule["seed"])]


def test_its_files_are_whole_and_at_most_24_megabytes() -> None:
    verify(TINY)
    assert sum(p.stat().st_size for p in TINY.rglob("*") if p.is_file()) <= 24_000_000


def test_its_card_names_numbers_limits_and_licences() -> None:
    card, rows = (TINY / "README.md").read_text(encoding="utf-8"), read_json(TINY / "report.json")
    unjudged = {(m.direction, m.what) for m in MEASURES if m.check in (answers, background, structure)}
    assert all(str(row["what"]) in card for row in rows)
    assert unjudged <= {(row["direction"], row["what"]) for row in rows}  # the rest waits for its classifiers
    assert "CC BY-SA" in card and "does **not**" in card


def test_readme_and_results_carry_the_numbers_of_its_report() -> None:
    root = Path(__file__).parent.parent
    for page in ("README.md", "docs/results.md"):
        text = (root / page).read_text(encoding="utf-8")
        for row in read_json(TINY / "report.json"):
            assert f"| {row['what']} | {row['value']:.1%} |" in text


@pytest.mark.parametrize(
    ("source", "modality", "question", "at_least"),
    [("fsdd", "speech", "What is said?", 0.7), ("digits", "image", "What is this?", 0.75)],
)
def test_it_still_reads_digits_it_has_never_seen(
    model: Model, source: str, modality: str, question: str, at_least: float
) -> None:
    items = unseen(source)
    jobs = [Job(Turns((user(open_media(i.media(modality)[0]), question),)), "text", 30) for i in items]
    right = [r.text == next(p.text for p in i.parts[1:]) for r, i in zip(model.run(jobs), items, strict=True)]  # type: ignore[union-attr]
    assert len(items) >= 10 and np.mean(right) >= at_least


@pytest.mark.parametrize(("out", "kind"), [("image", Image), ("speech", Audio), ("video", Video)])
def test_it_answers_in_every_modality(model: Model, out: str, kind: type) -> None:
    request = {"image": "Draw a fox.", "speech": "Say seven.", "video": "Film a fox blinks on a blue background."}[out]
    (part,) = model.chat(request, out=out).parts
    assert isinstance(part, kind)


def test_drawings_and_voices_are_not_empty(model: Model) -> None:
    drawing = model.chat("Draw pizza in twemoji style.", out="image").media(Image)[0]
    voice = model.chat("Say seven in the voice of theo.", out="speech").media(Audio)[0]
    assert drawing.pixels.std() > 5 and np.abs(voice.samples).max() > 0.02
