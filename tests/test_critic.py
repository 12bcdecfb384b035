"""A judge behind a real endpoint on this machine: marks are its numbers, and nothing is asked twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from judging import Judge, fabricate_judge, judging

from mio.evals.benchmarks.items import Item
from mio.evals.critic import MARKS, Critic, Marking, mark_of
from mio.evals.scoring import METRICS, Answer
from mio.evals.witnesses import Witnesses
from mio.types import DataError, MioError, MissingError, Text


@pytest.fixture
def judge() -> Iterator[Judge]:
    with judging() as server:
        yield server


@pytest.fixture
def folder(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUDGES_KEY", "secret")
    return fabricate_judge(tmp_path, judge)


def test_answers_are_marked_with_question_and_reference(folder: Path, judge: Judge) -> None:
    item = Item("x", (Text("What is {it}?"),), ("a {cat}",))
    pairs = [(Answer("x", "12345"), item), (Answer("x", " "), item)]
    assert METRICS["judged content"].points(pairs, Witnesses(folder)).tolist() == [[0.5, 1], [0, 1]]
    (asked,) = judge.asked  # nothing is said of silence
    assert asked["model"] == "counter" and asked["temperature"] == 0
    assert all(words in str(asked["messages"]) for words in ("What is {it}?", "a {cat}", "12345"))
    assert Witnesses(folder).known_as("judge").startswith("judge ")


def test_nothing_is_asked_twice(folder: Path, judge: Judge) -> None:
    one, other = Marking("q", "r", "abc"), Marking("q", "r", "abcd")
    assert Critic(folder / "judge").marks([one, other, one]) == [0.3, 0.4, 0.3] and len(judge.asked) == 2
    assert Critic(folder / "judge").marks([other]) == [0.4] and len(judge.asked) == 2
    assert len((folder / "judge" / MARKS).read_text().splitlines()) == 2


def test_a_judge_who_does_not_answer_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGES_KEY", "wrong")
    with pytest.raises(MissingError, match="401"):
        Critic(folder / "judge").marks([Marking("q", "r", "a")])
    (folder / "judge" / "config.json").write_text(json.dumps({"url": "file:///etc/passwd", "model": "x"}))
    with pytest.raises(MioError, match="no address"):
        Critic(folder / "judge")


@pytest.mark.parametrize(("said", "mark"), [("7", 0.7), ("Mark: 10/10", 1.0), ("2.5 of 10", 0.25)])
def test_a_mark_is_the_first_number(said: str, mark: float) -> None:
    assert mark_of(said) == pytest.approx(mark)


@pytest.mark.parametrize("said", ["good", "11", ""])
def test_no_mark_is_no_mark(said: str) -> None:
    with pytest.raises(DataError, match="no mark"):
        mark_of(said)
