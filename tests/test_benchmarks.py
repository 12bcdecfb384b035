"""Official files become items, and every way in which they do not fit together has a name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from fabricate_benchmarks import CAPTIONS, WORDS, fabricate_benchmarks, people

from mio.evals.benchmarks.items import Item, medium, read_items, some
from mio.evals.paper import PUBLISHED, TASKS
from mio.evals.scoring import METRICS
from mio.processor import open_media
from mio.types import Audio, DataError, MediaFile, MioError, MissingError, Text


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_benchmarks(tmp_path_factory.mktemp("benchmarks"))


def items(name: str, data: Path) -> list[Item]:
    return read_items(TASKS[name].read, data / TASKS[name].folder)


def words(item: Item) -> list[str]:
    return [p.text for p in item.slots if isinstance(p, Text)]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_reads_its_official_files(name: str, data: Path) -> None:
    task, found = TASKS[name], items(name, data)
    assert len(found) == 2 and all(i.truth for i in found)
    prompt = task.prompt or task.base
    asked = range(len(found[0].slots) - (name == "speech-to-speech"))
    assert all(f"{{{n}}}" in prompt for n in asked)  # the words of a spoken question are for its judge
    assert all(METRICS[m] for m in task.metrics)
    assert bool(found[0].shown) == (task.out != "text" and name != "speech-to-speech")


def test_captions_are_the_test_split_with_all_sentences(data: Path) -> None:
    found = items("coco-caption", data)
    assert [i.truth[0] for i in found] == CAPTIONS[:2] and found[0].truth[1] == CAPTIONS[0].lower()
    drawn = items("coco-image", data)
    assert words(drawn[1]) == [CAPTIONS[1]] and drawn[1].shown == found[1].slots


def test_answers_find_their_questions_in_any_order(data: Path) -> None:
    assert [i.id for i in items("vqav2", data)] == ["0", "10"]
    assert items("okvqa", data)[1].truth == ("cat",) * 10


def test_letters_stand_for_options(data: Path) -> None:
    assert [i.truth for i in items("seed-bench", data)] == [("A",), ("B",)]  # the video question is left out
    assert items("omnibench", data)[0].truth == ("C",)
    first, second = items("mmlu", data)
    assert words(first)[0] == "The following are multiple choice questions (with answers) about logic.\n\n"
    assert words(second)[1].startswith("What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\nWho said")
    assert words(second)[1].endswith("\nAnswer:") and second.truth == ("C",)


def test_speech_is_read_both_ways(data: Path) -> None:
    heard, said = items("librispeech-asr", data), items("librispeech-tts", data)
    assert [i.truth[0] for i in heard] == WORDS == [words(i)[0] for i in said]
    assert [i.slots for i in heard] == [i.shown for i in said]
    assert words(items("vctk-tts", data)[0]) == ["Say seven."]
    globe = items("globe-tts", data)
    assert [words(i)[0] for i in globe] == WORDS and isinstance(open_media(globe[1].shown[0]), Audio)
    assert words(items("speech-to-speech", data)[0]) == ["What is it?"]


def test_clips_are_found_through_their_mapping(data: Path) -> None:
    clip = items("msvd-qa", data)[1].slots[0]
    assert isinstance(clip, MediaFile) and clip.path.name == "def_0_9.avi"


def change(file: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / file).write_text(edit((folder / file).read_text()))

    return spoil


def with_record(file: str, key: str, edit: Callable[[list[dict[str, object]]], object]) -> Callable[[Path], None]:
    def spoil(text: str) -> str:
        value = json.loads(text)
        edit(value[key] if key else value)
        return json.dumps(value)

    return change(file, spoil)


ANSWERS = "v2_mscoco_val2014_annotations.json"
annotated = partial(with_record, ANSWERS, "annotations")
seen = partial(with_record, "val.json", "")
EXTRA = {"question_id": 99, "image_id": 0, "answers": people("no")}
FAULTS: dict[str, tuple[str, Callable[[Path], None], type[MioError], str]] = {
    "no file": ("vizwiz", lambda f: (f / "val.json").unlink(), MissingError, "No val.json"),
    "no picture": ("vizwiz", lambda f: shutil.rmtree(f / "val"), MissingError, "2 of 2 media files are absent: val"),
    "no answer": ("vqav2", annotated(lambda r: r.pop()), DataError, "1 ids have no answer: 0"),
    "no question": ("vqav2", annotated(lambda r: r.append(EXTRA)), DataError, "1 ids have no question: 99"),
    "two answers": ("vqav2", annotated(lambda r: r.append(r[0])), DataError, "Annotations of 10 stand twice"),
    "two items": ("vizwiz", seen(lambda r: r.append(r[0])), DataError, "VizWiz_val_00000000.jpg stand"),
    "other format": (
        "seed-bench",
        with_record("SEED-Bench.json", "questions", lambda r: r[0].pop("answer")),
        DataError,
        "'answer'",
    ),
    "no such letter": (
        "mmlu",
        change("test/logic_test.csv", lambda t: t.replace(",B", ",E")),
        DataError,
        "is no letter",
    ),
    "cells": ("mmlu", change("test/logic_test.csv", lambda t: t.replace(",4,", ",")), DataError, "a row of 5 cells"),
    "no item": (
        "coco-caption",
        change("dataset_coco.json", lambda t: t.replace("test", "dev")),
        DataError,
        "not one item",
    ),
    "not JSON": ("coco-caption", change("dataset_coco.json", lambda t: t[:-9]), DataError, "not valid JSON"),
    "way out": ("vizwiz", seen(lambda r: r[0].update(image="../../etc/passwd")), DataError, "leads out"),
    "no mapping": ("msvd-qa", change("youtube_mapping.txt", lambda t: t[:13]), DataError, "vid2 is not in"),
    "no speech": ("librispeech-asr", lambda f: shutil.rmtree(f / "test-clean"), MissingError, "There is no test-clean"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named(fault: str, data: Path, tmp_path: Path) -> None:
    name, spoil, kind, message = FAULTS[fault]
    folder = shutil.copytree(data / TASKS[name].folder, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(kind) as raised:
        read_items(TASKS[name].read, folder)
    assert type(raised.value) is kind and message in str(raised.value)


def test_names_are_cut_and_counted(tmp_path: Path) -> None:
    assert some(["a", "b"]) == "a, b" and some("abcde") == "a, b, c and 2 more"
    with pytest.raises(DataError):
        medium(tmp_path, "/etc/passwd", "image")


def test_published_numbers_name_what_measures_them() -> None:
    for line in PUBLISHED:
        assert not line.task or line.metric in TASKS[line.task].metrics
        assert any(name.startswith("MIO") for name in line.values)
    assert {line.task for line in PUBLISHED} - {""} == set(TASKS) - {"flickr-caption"}
    by_what = {line.what: line.values for line in PUBLISHED}
    assert by_what["COCO captions, CIDEr"]["MIO-Instruct"] == 120.4 and by_what["VQAv2"]["MIO-Instruct"] == 65.5
    assert by_what["speech to text, WER"]["MIO-Base"] == 6.3
