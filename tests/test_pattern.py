"""decoding/pattern.py: a pattern allows what the regular expression of the same meaning does, and no other order."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio.decoding.pattern import One, Pattern, Place, Repeat, any_order, cost, kinds, names, read, start
from mio.types import MioError

MEANING = {"text": Repeat(One("text"), 1, None), "image": One("image"), "speech": One("speech")}
SIGNS = {"text": "t", "image": "i", "speech": "s"}
KINDS = {sign: kind for kind, sign in SIGNS.items()}
COSTS = (("image", 6), ("speech", 5), ("text", 1))
STRINGS = ["".join(s) for n in range(6) for s in product("tis", repeat=n)]


def place_after(pattern: Pattern, string: str) -> Place | None:
    place = start(pattern, COSTS)
    for sign in string:
        if KINDS[sign] not in place.ways:
            return None
        place = place.ways[KINDS[sign]]
    return place


def accepts(pattern: Pattern, string: str) -> bool:
    place = place_after(pattern, string)
    return place is not None and place.may_end


def quantified(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
    times = st.sampled_from(["?", "*", "+", "{2}", "{0,2}", "{1,3}", "{2,}"])
    return st.tuples(inner, times).map(lambda p: (f"({p[0][0]}){p[1]}", f"(?:{p[0][1]}){p[1]}"))


def joined(inner: st.SearchStrategy[tuple[str, str]], ours: str, theirs: str) -> st.SearchStrategy[tuple[str, str]]:
    several = st.lists(inner, min_size=2, max_size=3)
    return several.map(lambda ps: (ours.join(f"({p})" for p, _ in ps), theirs.join(f"(?:{r})" for _, r in ps)))


written = st.recursive(  # a pattern as we write it, and as a regular expression
    st.sampled_from([("text", "t+"), ("image", "i"), ("speech", "s")]),
    lambda inner: quantified(inner) | joined(inner, " ", "") | joined(inner, " | ", "|"),
    max_leaves=5,
)


@given(written)
def test_a_pattern_allows_what_its_regular_expression_does(pair: tuple[str, str]) -> None:
    pattern, regex = read(pair[0], MEANING), re.compile(pair[1])
    assert [s for s in STRINGS if accepts(pattern, s)] == [s for s in STRINGS if regex.fullmatch(s)]


@given(written, written)
def test_a_comma_mixes_two_patterns_step_by_step(first: tuple[str, str], second: tuple[str, str]) -> None:
    pattern = read(f"({first[0]}), {second[0]}", MEANING)
    for string in (s for s in STRINGS if len(s) < 5):
        shares = product((True, False), repeat=len(string))  # every way to share the steps between the two
        splits = (
            ["".join(c for c, mine in zip(string, m, strict=True) if mine is w) for w in (True, False)] for m in shares
        )
        expected = any(re.fullmatch(first[1], a) and re.fullmatch(second[1], b) for a, b in splits)
        assert accepts(pattern, string) == expected


@given(written, st.sampled_from(STRINGS))
def test_what_is_needed_is_the_shortest_rest(pair: tuple[str, str], string: str) -> None:
    """The promise that budgets rest on: following the way that needs least ends after exactly what was needed."""
    place, spent = place_after(read(pair[0], MEANING), string), 0
    if place is None:
        return
    needed, ids = place.need, dict(COSTS)
    while not (place.may_end and place.need == 0):
        kind = min(place.ways, key=lambda k: ids[k] + place.ways[k].need)
        assert min(ids[k] + way.need for k, way in place.ways.items()) >= place.need
        spent, place = spent + ids[kind], place.ways[kind]
    assert spent == needed


def test_minimum_and_maximum_of_spans_are_a_pattern() -> None:
    pattern = any_order({"image": (1, 2), "speech": (0, 1)})
    expected = [s for s in STRINGS if 1 <= s.count("i") <= 2 and s.count("s") <= 1]
    assert [s for s in STRINGS if accepts(pattern, s)] == expected
    wordless = any_order({"image": (1, 2), "speech": (0, 1)}, text=False)
    assert [s for s in STRINGS if accepts(wordless, s)] == [s for s in expected if "t" not in s]


def test_equal_patterns_share_their_places_and_large_ones_make_only_those_they_reach() -> None:
    large = any_order({"image": (0, 1000), "speech": (0, 1000)})
    place = start(large, COSTS)
    assert start(any_order({"image": (0, 1000), "speech": (0, 1000)}), COSTS) is place
    for kind in ("image", "text", "speech") * 5:
        place = place.ways[kind]
    assert len(place.known) < 40  # of a million
    assert place.ways["text"] is place


def test_costs_and_kinds_of_a_pattern() -> None:
    pattern = read("(text image){2,} (speech | text) image?", MEANING)
    assert cost(pattern, dict(COSTS)) == 2 * 7 + 1
    assert list(kinds(pattern)) == ["text", "image", "speech", "text", "image"]
    assert names("(text image){4} | text_2*") == ("text", "image", "text_2")


@pytest.mark.parametrize(
    ("text", "what", "at"),
    [
        ("", "cannot be read from 'its end' on", "character 1"),
        ("text image)", "from ')' on", "character 11"),
        ("(text image", "from 'its end' on", "character 12"),
        ("text {2 image", "from '{2 image' on", "character 6"),
        ("text |", "from 'its end' on", "character 7"),
        ("*", "from '*' on", "character 1"),
        ("text & image", "from '& image' on", "character 6"),
        ("(" * 30 + "text" + ")" * 30, "cannot be read", "character 21"),
        ("text image{3,2}", "No part can come {3,2} times", ""),
        ("image{0}", "No part can come {0} times", ""),
        ("image{2000}", "No part can come {2000} times", ""),
        ("text imag", "cannot answer in 'imag'", ""),
        ("text " * 200, "has 1000 characters", ""),
    ],
)
def test_what_is_no_pattern_is_refused_with_its_place(text: str, what: str, at: str) -> None:
    with pytest.raises(MioError, match=re.escape(what)) as caught:
        read(text, MEANING)
    assert caught.value.at == at
    assert caught.value.fix
