"""An answer asked for in runs is the answer that the grammar would have let through."""

from __future__ import annotations

import contextlib
import re
import string

import numpy as np
import pytest

from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, Repeat, read
from mio.decoding.runs import NONE, Run, run_of
from mio.types import DataError

TEXT, STOP = np.arange(10), 10
IMAGE = SpanRule("image", 11, 12, np.arange(20, 30)[None], steps=3)
RULES = {
    "image": IMAGE,
    "sequential": SpanRule("speech", 13, 14, np.arange(30, 60).reshape(3, 10)),
    "alternating": SpanRule("speech", 13, 14, np.arange(30, 60).reshape(3, 10), "alternating"),
    "delay": SpanRule("speech", 13, 14, np.arange(30, 60).reshape(3, 10), "delay"),
}
MEANING = {"text": Repeat(One("text"), 1, None), "image": One("image"), "speech": One("speech")}


def grammar(out: str, layout: str = "sequential", tokens: int = 40) -> Grammar:
    return Grammar([IMAGE, RULES[layout]], TEXT, STOP, Limits(tokens, read(out, MEANING), steps=5))


def answered(g: Grammar, seed: int) -> tuple[list[int], list[Run]]:
    """An answer that a back end makes of runs alone, at random, and the runs."""
    dice, out, runs = np.random.default_rng(seed), [], []
    while not g.finished:
        runs.append(run_of(g))
        stay, leave = set(runs[-1].stay.tolist()), set(runs[-1].leave.tolist())
        for _ in range(runs[-1].most):
            id = int(dice.choice(sorted(stay | leave)))
            assert id in g.allowed()
            g.take(id)
            out.append(id)
            if id in leave:
                break
    return out, runs


@pytest.mark.parametrize("layout", ["sequential", "alternating", "delay"])
@pytest.mark.parametrize("out", ["text", "image", "speech", "(text image){2}", "text? speech", "text, image, speech"])
def test_whatever_is_made_of_runs_is_an_answer(out: str, layout: str) -> None:
    for seed in range(20):
        ids, _ = answered(grammar(out, layout), seed)
        assert ids[-1] == STOP and len(ids) <= 40


def test_text_is_one_run_and_an_image_is_one_beside_what_is_forced() -> None:
    g = Grammar([IMAGE], TEXT, STOP, Limits(40))
    assert run_of(g).lark == "start: <[0-9]>* <[10]>" and run_of(g).most == 39
    g = grammar("image")
    assert run_of(g).lark == "start: <[11]>" and len(g.allowed()) == 1
    g.take(11)
    assert run_of(g).lark == "start: <[20-29]>{3}"


def test_codebooks_of_speech_have_equal_lengths_whatever_the_first_has() -> None:
    g = grammar("speech")
    for id in (13, 30, 31, 32, 40):
        g.take(id)
    assert run_of(g).lark == "start: <[40-49]>{2}"
    g.take(41), g.take(42)
    assert run_of(g).lark == "start: <[50-59]>" or run_of(g).most == 3


@pytest.mark.parametrize(
    "run",
    [Run(TEXT, np.array([11, 13]), 7), Run(np.array([3, 5, 6, 7]), NONE, 32), Run(NONE, np.array([4, 9]), 1)],
    ids=["ends", "counted", "one"],
)
def test_a_run_is_read_as_it_was_written(run: Run) -> None:
    again = Run.read(run.lark, run.most, 20)
    assert again.most == run.most and again.lark == run.lark
    assert np.array_equal(again.stay, run.stay) and np.array_equal(again.leave, run.leave)


def test_the_grammar_of_a_run_lets_through_what_the_run_does() -> None:
    ended = Run(np.array([1, 2]), np.array([5, 6]), 3).grammar()
    assert set(ended.allowed()) == {1, 2, 5, 6}
    ended.take(2), ended.take(6)
    assert ended.finished
    full = Run(np.array([1, 2]), np.array([5, 6]), 2).grammar()
    full.take(1), full.take(1)
    assert len(full.allowed()) == 1  # beyond `most`: forced, not part of it
    counted = Run(np.array([1, 2]), NONE, 2).grammar()
    for _ in range(2):
        assert set(counted.allowed()) == {1, 2}
        counted.take(1)
    assert len(counted.allowed()) == 1


@pytest.mark.parametrize(
    "lark",
    [
        "",
        "start: text",
        "start: <[]>",
        "start: <[5-3]>",
        "start: <[0-99]>",
        "start: <[3,3]>",
        "start: <[0-5,2]>* <[9]>",
        "start: <[1-2-3]>",
        "start: <[1]>{2}",
        "start: <[1]>* <[2]>\nstart: <[3]>",
        "start: <[" + "0-19," * 3 + "1]>",
    ],
)
def test_what_is_no_run_is_refused(lark: str) -> None:
    with pytest.raises(DataError):
        Run.read(lark, 3, 20)


def test_no_text_makes_reading_fail_in_another_way() -> None:
    dice = np.random.default_rng(0)
    pieces = ["start: ", "<[", "]>", "*", "{", "}", " ", "-", ",", *string.digits]
    for _ in range(300):
        text = "".join(dice.choice(pieces, dice.integers(1, 12)))
        with contextlib.suppress(DataError):
            assert re.match(r"start: <\[\d", Run.read(text, 1, 20).lark)
