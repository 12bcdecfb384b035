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
    allowed = np.concatenate(grammar.allowed()).tolist()
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
        grammar = Grammar(rules, ids(""), STOP, Limits(budget, {"speech": (1, 1)}, most, text=False))
        assert accepted(grammar) == {s for s in within if len(s) <= budget}
    with pytest.raises(ValueError, match=f"needs {least}"):
        Grammar(rules, ids(""), STOP, Limits(least - 1, {"speech": (1, 1)}, most, text=False))


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
        limits = Limits(budget, {"image": images, "speech": speeches}, 3, words)
        found = accepted(Grammar(rules, ids("t"), STOP, limits))
        assert found == {s for s in checked if len(s) <= budget}
