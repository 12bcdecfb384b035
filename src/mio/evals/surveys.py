"""Benchmarks that surveys of multimodal models report and MIO's paper does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from mio.checkpoint import read_json
from mio.evals.benchmarks.clips import audio_caps
from mio.evals.benchmarks.items import Item, medium
from mio.evals.benchmarks.tables import Table
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


CHOICE = "{0}{1}\nAnswer with the letter of the right option."
EITHER = "{0}{1}\nAnswer with the letter of the right option, or where there are none, with a word or a number."
VERDICT = "{0}{1}\nAnswer yes or no."
FIGURE, QUESTION = "{l2-category}/{parts[3]}/{parts[4]}", "{l2-category}/{parts[3]}/{parts[5]}"

_choice = partial(Task, prompt=CHOICE, base="", metrics=("choice accuracy",), tokens=20)
_verdict = partial(Task, prompt=VERDICT, base="", tokens=10)
_either = partial(Task, prompt=EITHER, base="", metrics=("answer accuracy",), tokens=60)

SURVEYS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("pope", "pope", "POPE on COCO, all three kinds", pope, YES_OR_NO, "", ("yes-or-no accuracy",), tokens=10),
        Task("textvqa", "textvqa", "TextVQA, validation", text_vqa, SHORT, "", ("VQA accuracy",), tokens=20),
        Task("gqa", "gqa", "GQA, testdev balanced", gqa, SHORT, "", ("accuracy",), tokens=20),
        _verdict("mme", "vlmeval", "MME, two questions a picture", Table("MME.tsv", ("{category}/{image_path}",)),
                 metrics=("yes-or-no accuracy", "yes-or-no accuracy of groups")),
        _verdict("hallusion-bench", "vlmeval", "HallusionBench, with pictures and without",
                 Table("HallusionBench.tsv", (QUESTION, FIGURE)),
                 metrics=("yes-or-no accuracy", "yes-or-no accuracy of groups", "yes-or-no accuracy of figures")),
        _choice("mmbench", "vlmeval", "MMBench, English dev, circular", Table("MMBench_DEV_EN.tsv", circular=True),
                metrics=("choice accuracy of groups", "choice accuracy")),
        _choice("scienceqa-img", "vlmeval", "ScienceQA, test, with pictures", Table("ScienceQA_TEST.tsv")),
        _either("mmmu", "vlmeval", "MMMU, dev and validation", Table("MMMU_DEV_VAL.tsv")),
        _either("mathvista", "vlmeval", "MathVista, testmini; the last number counts", Table("MathVista_MINI.tsv")),
        Task("mm-vet", "vlmeval", "MM-Vet, marked by a judge", Table("MMVet.tsv"), "{0}{1}", "", ("judged content",),
             tokens=400),
        Task("audiocaps", "audiocaps", "AudioCaps, test", audio_caps, "{0}Describe this sound in one sentence.", "",
             ("CIDEr",)),
    )
}  # fmt: skip
