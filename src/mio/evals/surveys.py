"""Benchmarks that surveys of multimodal models report and MIO's paper does not: POPE, TextVQA, GQA."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mio.checkpoint import read_json
from mio.evals.benchmarks.items import Item, medium
from mio.evals.planning import Task
from mio.types import MissingError, Text

SHORT = "{1} Answer with one word or a short phrase.\n{0}"
YES_OR_NO = "{1} Answer yes or no.\n{0}"
KINDS = ("random", "popular", "adversarial")  # how POPE chose what is not in a picture


def pope(folder: Path) -> Iterator[Item]:
    """coco_pope_*.json, one object per line, with COCO's val2014: is a thing in the picture? (Li et al., 2023)"""
    for kind in KINDS:
        path = folder / f"coco_pope_{kind}.json"
        if not path.is_file():
            raise MissingError("There is no such file.", at=str(path))
        for line in filter(None, path.read_bytes().splitlines()):
            record = json.loads(line)
            picture = medium(folder, f"val2014/{record['image']}", "image")
            yield Item(f"{kind}/{record['question_id']}", (picture, Text(record["text"])), (record["label"],))


def text_vqa(folder: Path) -> Iterator[Item]:
    """TextVQA_0.5.1_val.json with the pictures of train_images: ten people read what stands there."""
    for record in read_json(folder / "TextVQA_0.5.1_val.json")["data"]:
        picture = medium(folder, f"train_images/{record['image_id']}.jpg", "image")
        yield Item(str(record["question_id"]), (picture, Text(record["question"])), tuple(record["answers"]))


def gqa(folder: Path) -> Iterator[Item]:
    """testdev_balanced_questions.json with its images: one short answer each."""
    for id, record in read_json(folder / "testdev_balanced_questions.json").items():
        picture = medium(folder, f"images/{record['imageId']}.jpg", "image")
        yield Item(id, (picture, Text(record["question"])), (record["answer"],))


SURVEYS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("pope", "pope", "POPE on COCO, all three kinds", pope, YES_OR_NO, "", ("yes-or-no accuracy",), tokens=10),
        Task("textvqa", "textvqa", "TextVQA, validation", text_vqa, SHORT, "", ("VQA accuracy",), tokens=20),
        Task("gqa", "gqa", "GQA, testdev balanced", gqa, SHORT, "", ("accuracy",), tokens=20),
    )
}
