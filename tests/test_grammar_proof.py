"""decoding/grammar.py against brute force: of all strings over a tiny vocabulary it accepts what a checker accepts.

Ids are written as characters: t text, ( ) speech with codes a (level 0) and b (level 1), [ ] an image of codes i, . the
end. The checkers are regular expressions, which know of no budget, level count or automaton of ours.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import product

import numpy as np
import pytest

from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, Repeat, any_order, read
from mio.types import MioError

SIGNS = "t()ab[]i."
STOP = SIGNS.index(".")


def ids(signs: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([SIGNS.index(s) for s in signs], np.int64)


def rule(name: str, bounds: str, levels: str, layout: str = "sequential", steps: int = 0) -> SpanRule:
    return SpanRule(name, *ids(bounds).tolist(), ids(levels)[:, None], layout, steps)


@cache
def strings(signs: str, longest: int) -> tuple[str, ...]:
    """Every string of these signs, of any length up to `longest`."""
    return tuple("".join(s) for n in range(longest + 1) for s in product(signs, repeat=n))


def accepted(grammar: Grammar) -> set[str]:
    """Every answer of the automaton; a state that lets nothing through before the end is a dead one."""
    if grammar.finished:
        return {""}
    allowed = grammar.allowed().tolist()
    assert len(set(allowed)) == len(allowed) > 0
    out = set()
    for id in allowed:
        after = grammar.copy()
        after.take(id)
        out |= {SIGNS[id] + rest for rest in accepted(after)}
    return out


SPOKEN = {  # two codebooks, one to three steps
    "sequential": r"\((ab|aabb|aaabbb)\)",
    "alternating": r"\((ab|abab|ababab)\)",
    "delay": r"\((ab|aabb|aababb)\)",
    "content": r"\((a|aa|aaa)\)",
}


@pytest.mark.parametrize("layout", SPOKEN)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_span_is_any_that_follows_its_layout_in_any_budget(layout: str, most: int) -> None:
    checked = [s for s in strings("()ab", 8) if re.fullmatch(SPOKEN[layout], s)]
    within = [s + "." for s in checked if s.count("a") <= most]
    rules = [rule("speech", "()", "ab", layout)]
    least = min(map(len, within))
    for budget in range(least, 12):
        grammar = Grammar(rules, ids(""), STOP, Limits(budget, One("speech"), most))
        assert accepted(grammar) == {s for s in within if len(s) <= budget}
    with pytest.raises(ValueError, match=f"needs {least}"):
        Grammar(rules, ids(""), STOP, Limits(least - 1, One("speech"), most))


@pytest.mark.parametrize("images", [(0, 0), (0, 1), (1, 1), (1, 2)])
@pytest.mark.parametrize("speeches", [(0, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("words", [True, False])
def test_an_answer_is_any_that_has_its_spans_in_any_budget(
    images: tuple[int, int], speeches: tuple[int, int], words: bool
) -> None:
    text = "t|" if words else ""
    whole = re.compile(rf"({text}\[i\]|\(a{{1,3}}\))*\.")
    checked = {
        s
        for s in strings("t()a[]i.", 6)
        if whole.fullmatch(s) and images[0] <= s.count("[") <= images[1] and speeches[0] <= s.count("(") <= speeches[1]
    }
    rules = [rule("image", "[]", "i", steps=1), rule("speech", "()", "ab", "content")]
    least = 1 + 3 * (images[0] + speeches[0])
    for budget in range(least, 7):
        limits = Limits(budget, any_order({"image": images, "speech": speeches}, words), 3)
        found = accepted(Grammar(rules, ids("t"), STOP, limits))
        assert found == {s for s in checked if len(s) <= budget}


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [
        ("(text image){2}", r"(t+\[i\]){2}"),
        ("text, image{2}", r"(?=.*t)[^\[]*\[i\][^\[]*\[i\][^\[]*"),
        ("image | text", r"\[i\]|t+"),
        ("text? image{1,2} text", r"t*\[i\](\[i\])?t+"),
        ("image* (text image)+", r"(\[i\])*(t+\[i\])+"),
    ],
)
def test_an_answer_is_any_that_follows_its_pattern_in_any_budget(pattern: str, regex: str) -> None:
    parts = re.compile(r"(t|\[i\])*")  # codes stand in spans
    checked = [f"{s}." for s in strings("t[]i", 8) if parts.fullmatch(s) and re.fullmatch(regex, s)]
    asked = read(pattern, {"text": Repeat(One("text"), 1, None), "image": One("image")})
    rules = [rule("image", "[]", "i", steps=1)]
    least = min(map(len, checked))
    for budget in range(least, 10):
        found = accepted(Grammar(rules, ids("t"), STOP, Limits(budget, asked)))
        assert found == {s for s in checked if len(s) <= budget}
    with pytest.raises(MioError, match=f"{least - 1} ids are too few: what must appear needs {least}"):
        Grammar(rules, ids("t"), STOP, Limits(least - 1, asked))


def test_what_no_rule_writes_and_spans_of_no_steps_are_refused() -> None:
    with pytest.raises(MioError, match="No rule says how 'smell' is written"):
        Grammar([], ids("t"), STOP, Limits(9, One("smell")))
    with pytest.raises(MioError, match="0 steps holds nothing"):
        Grammar([rule("speech", "()", "ab")], ids("t"), STOP, Limits(9, One("speech"), 0))


def test_a_step_joins_no_ids_that_were_joined_before() -> None:
    grammar = Grammar([rule("speech", "()", "ab", "delay")], ids("t"), STOP, Limits(90, any_order({"speech": (0, 9)})))
    again = grammar.copy()
    walked = []
    for sign in "t(ab)t(ab)":
        walked.append(grammar.allowed())
        grammar.take(SIGNS.index(sign))
    for sign, before in zip("t(ab)t(ab)", walked, strict=True):
        assert again.allowed() is before
        again.take(SIGNS.index(sign))
    assert all(a is b for a, b in zip(walked[1:5], walked[6:], strict=False))
