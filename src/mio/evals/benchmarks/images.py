"""Pictures with captions (Karpathy's splits), and with questions that people answered (VQA's files, VizWiz's)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mio.checkpoint import read_json
from mio.evals.benchmarks.items import Item, by_id, joined, medium
from mio.types import Text


@dataclass(frozen=True)
class Karpathy:
    """The test split of dataset_*.json (Karpathy and Fei-Fei, 2015). `images`: folder of pictures that name none."""

    file: str
    images: str = ""

    def captions(self, folder: Path) -> Iterator[Item]:
        """Picture in, any of its captions out."""
        for record in self._records(folder):
            yield Item(str(record["imgid"]), (medium(folder, self._name(record), "image"),), _sentences(record))

    def drawings(self, folder: Path) -> Iterator[Item]:
        """The first caption in, its picture out."""
        for record in self._records(folder):
            asked, shown = Text(_sentences(record)[0]), medium(folder, self._name(record), "image")
            yield Item(str(record["imgid"]), (asked,), _sentences(record), shown=(shown,))

    def _records(self, folder: Path) -> Iterator[dict[str, Any]]:
        return (r for r in read_json(folder / self.file)["images"] if r["split"] == "test")

    def _name(self, record: dict[str, Any]) -> str:
        return f"{record.get('filepath', self.images)}/{record['filename']}"


def _sentences(record: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(s["raw"]).strip() for s in record["sentences"])


@dataclass(frozen=True)
class Vqa:
    """Two files of the VQA challenge, questions and annotations; the pictures are those of COCO's val2014."""

    questions: str
    annotations: str

    def __call__(self, folder: Path) -> Iterator[Item]:
        asked = by_id(_keyed(folder / self.questions, "questions"), "Questions", folder)
        told = by_id(_keyed(folder / self.annotations, "annotations"), "Annotations", folder)
        for id, question, annotation in joined(asked, told, folder):
            picture = medium(folder, f"val2014/COCO_val2014_{question['image_id']:012d}.jpg", "image")
            yield Item(id, (picture, Text(question["question"])), _people(annotation))


def _keyed(path: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((str(r["question_id"]), r) for r in read_json(path)[key])


def _people(annotation: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(a["answer"]) for a in annotation["answers"])


def vizwiz(folder: Path) -> Iterator[Item]:
    """val.json and the pictures of `val`. Unanswerable questions stay: "unanswerable" is then the people's answer."""
    for record in read_json(folder / "val.json"):
        picture = medium(folder, f"val/{record['image']}", "image")
        yield Item(record["image"], (picture, Text(record["question"])), _people(record))
