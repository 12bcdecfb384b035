"""The surveys' benchmarks: official files become items, and what counts together counts together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricate_benchmarks import fabricate_surveys

from mio.evals.benchmarks.items import Item, read_items
from mio.evals.metrics.text import says
from mio.evals.scoring import METRICS, Answer
from mio.evals.surveys import SURVEYS
from mio.evals.witnesses import Witnesses
from mio.processor import open_media
from mio.types import DataError, Image, MediaBytes, MediaFile, MissingError, Text


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return fabricate_surveys(tmp_path)


def items(name: str, data: Path) -> list[Item]:
    return read_items(SURVEYS[name].read, data / SURVEYS[name].folder)


def points(metric: str, found: list[Item], said: list[str]) -> list[list[float]]:
    pairs = [(Answer(item.id, text), item) for item, text in zip(found, said, strict=True)]
    return METRICS[metric].points(pairs, Witnesses()).tolist()


COUNTS = {
    "pope": 3, "textvqa": 1, "gqa": 1, "mme": 2, "hallusion-bench": 3, "mmbench": 3, "scienceqa-img": 1, "mmmu": 2,
    "mathvista": 2, "mm-vet": 1, "audiocaps": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", SURVEYS)
def test_official_files_become_items(name: str, data: Path) -> None:
    task, found = SURVEYS[name], items(name, data)
    assert (
        len(found) == COUNTS[name] and all(i.truth and i.truth[0] for i in found) and set(task.metrics) <= set(METRICS)
    )
    assert all(f"{{{n}}}" in task.prompt for n in range(len(found[0].slots)))
    media = [p for i in found for p in i.parts if isinstance(p, MediaFile | MediaBytes)]
    assert media and all(open_media(p) for p in media)


def test_truths_are_those_of_the_files(data: Path) -> None:
    assert [i.truth for i in items("pope", data)] == [("yes",), ("no",), ("no",)]
    assert items("textvqa", data)[0].truth == ("stop",) * 10
    assert items("audiocaps", data)[0].truth == ("A dog barks", "A dog, barking")


def test_a_short_cell_is_the_picture_of_another_row(data: Path) -> None:
    first, second = (open_media(i.parts[0]) for i in items("mme", data))  # type: ignore[arg-type]
    assert isinstance(first, Image) and isinstance(second, Image) and np.array_equal(first.pixels, second.pixels)
    nothing, one, _ = items("hallusion-bench", data)
    assert [type(p) for p in nothing.parts] == [Text] and [type(p) for p in one.parts] == [MediaBytes, Text]


def test_questions_may_have_several_pictures_and_no_options(data: Path) -> None:
    many, open = items("mmmu", data)
    assert [type(p) for p in many.parts] == [MediaBytes, MediaBytes, Text] and many.options == ("cat", "dog", "fox")
    assert open.options == () and open.truth == ("12",)
    assert points("answer accuracy", [many, open], ["A", "I count 1, no, 12."]) == [[1, 1], [1, 1]]
    assert points("answer accuracy", [many, open], ["B", "12 or 13"]) == [[0, 1], [0, 1]]


def test_options_that_stand_in_the_question_are_not_repeated(data: Path) -> None:
    choice, free = items("mathvista", data)
    assert choice.truth == ("B",) and choice.options == ("3", "4") and str(choice.parts[-1]).count("(A)") == 1
    assert points("answer accuracy", [choice, free], ["(B) 4", "about 1.23 m"]) == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [("It is 1,200.", "1200", True), ("-3", "3", False), ("no number", "5", False), ("A Cat.", "a cat", True)],
)
def test_numbers_are_compared_as_numbers(answer: str, truth: str, right: bool) -> None:
    assert says(answer, truth) == right


def test_a_question_is_right_only_in_every_rotation(data: Path) -> None:
    """MMBench's circular evaluation: who always says the same letter is right once, and scores nothing."""
    found = items("mmbench", data)
    assert [i.options for i in found] == [("cat", "dog", "fox"), ("dog", "fox", "cat"), ("fox", "cat", "dog")]
    assert [i.truth for i in found] == [("B",), ("A",), ("C",)] and len({i.groups for i in found}) == 1
    assert "Look.\nWhat?\nA. dog\nB. fox\nC. cat" in str(found[1].parts[-1]).replace("\\n", "\n")
    assert points("choice accuracy of groups", found, ["B", "A", "C"]) == [[1, 1], [0, 0], [0, 0]]
    assert points("choice accuracy of groups", found, ["B", "B", "B"]) == [[0, 1], [0, 0], [0, 0]]
    assert points("choice accuracy", found, ["B", "B", "B"]) == [[1, 1], [0, 1], [0, 1]]


def test_both_questions_about_a_picture_count_as_one(data: Path) -> None:
    """MME's accuracy+, and HallusionBench's by question and by figure."""
    pair = items("mme", data)
    assert points("yes-or-no accuracy", pair, ["yes", "yes"]) == [[1, 1], [0, 1]]
    assert points("yes-or-no accuracy of groups", pair, ["yes", "yes"]) == [[0, 1], [0, 0]]
    assert points("yes-or-no accuracy of groups", pair, ["Yes.", "No."]) == [[1, 1], [0, 0]]
    three = items("hallusion-bench", data)  # two figures of one question, one of which has a second question
    said = ["no", "yes", "yes"]
    assert points("yes-or-no accuracy of groups", three, said) == [[1, 1], [0, 0], [0, 1]]
    assert points("yes-or-no accuracy of figures", three, said) == [[1, 1], [0, 1], [0, 0]]


def test_what_is_missing_or_broken_is_named(data: Path) -> None:
    broken = data / "pope" / "coco_pope_random.json"
    broken.write_text("{")
    with pytest.raises(DataError):
        items("pope", data)
    broken.unlink()
    with pytest.raises(MissingError):
        items("pope", data)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("\tB\t", "\tE\t", "ValueError"), ("question", "query", "KeyError"), ("\tx\t", "", "cut short")],
)
def test_tables_of_another_form_are_named(data: Path, old: str, new: str, what: str) -> None:
    table = data / "vlmeval" / "MMBench_DEV_EN.tsv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DataError, match=what):
        items("mmbench", data)


@pytest.mark.parametrize(
    ("text", "right"), [("Yes.", 1), ("I see. No, yes", 0), ("there is a yesterday", 0), ("", 0), ("well, YES!", 1)]
)
def test_the_first_verdict_counts(text: str, right: int) -> None:
    assert points("yes-or-no accuracy", [Item("x", (), ("yes",))], [text]) == [[right, 1]]
