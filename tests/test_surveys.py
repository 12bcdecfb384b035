"""The surveys' benchmarks: official files become items, and a verdict is the first yes or no."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mio.evals.benchmarks.items import Item, read_items
from mio.evals.scoring import METRICS, Answer
from mio.evals.surveys import SURVEYS
from mio.evals.witnesses import Witnesses
from mio.media import write_image
from mio.types import DataError, Image, MediaFile, MissingError, Text


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Each benchmark at one picture."""
    for name in ("pope/val2014/a", "textvqa/train_images/a", "gqa/images/a"):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        write_image(Image(np.zeros((8, 8, 3), np.uint8)), path)
    for kind, label in (("random", "yes"), ("popular", "no"), ("adversarial", "no")):
        record = {"question_id": 1, "image": "a.jpg", "text": "Is there a cat in the image?", "label": label}
        (tmp_path / f"pope/coco_pope_{kind}.json").write_text(json.dumps(record) + "\n")
    asked = {"question": "what is written?", "image_id": "a", "question_id": 7, "answers": ["stop"] * 10}
    (tmp_path / "textvqa/TextVQA_0.5.1_val.json").write_text(json.dumps({"data": [asked]}))
    asked = {"imageId": "a", "question": "Is it red?", "answer": "no"}
    (tmp_path / "gqa/testdev_balanced_questions.json").write_text(json.dumps({"20": asked}))
    return tmp_path


@pytest.mark.parametrize(("name", "ids"), [("pope", 3), ("textvqa", 1), ("gqa", 1)])
def test_official_files_become_items(name: str, ids: int, data: Path) -> None:
    task = SURVEYS[name]
    found = read_items(task.read, data / task.folder)
    assert len({i.id for i in found}) == ids and all(set(task.metrics) <= set(METRICS) for _ in found)
    assert [type(p) for p in found[0].slots] == [MediaFile, Text] and "{0}" in task.prompt and "{1}" in task.prompt


def test_truths_are_those_of_the_files(data: Path) -> None:
    assert [i.truth for i in read_items(SURVEYS["pope"].read, data / "pope")] == [("yes",), ("no",), ("no",)]
    assert read_items(SURVEYS["textvqa"].read, data / "textvqa")[0].truth == ("stop",) * 10


def test_what_is_missing_or_broken_is_named(data: Path) -> None:
    broken = data / "pope" / "coco_pope_random.json"
    broken.write_text("{")
    with pytest.raises(DataError):
        read_items(SURVEYS["pope"].read, data / "pope")
    broken.unlink()
    with pytest.raises(MissingError):
        read_items(SURVEYS["pope"].read, data / "pope")


@pytest.mark.parametrize(
    ("text", "points"), [("Yes.", 1), ("I see. No, yes", 0), ("there is a yesterday", 0), ("", 0), ("well, YES!", 1)]
)
def test_the_first_verdict_counts(text: str, points: int) -> None:
    pair = (Answer("x", text), Item("x", (), ("yes",)))
    assert METRICS["yes-or-no accuracy"].points([pair], Witnesses()).tolist() == [[points, 1]]
