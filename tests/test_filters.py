"""Filters at their bounds, their accounts, and MinHash against the exact Jaccard similarity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio.data.filters import (
    Filter,
    aspect,
    length,
    minhash,
    near_duplicate,
    repetition,
    score,
    seconds,
    shingles,
    side,
    similarity,
)
from mio.types import Audio, Image


def picture(height: int, width: int) -> Image:
    return Image(np.zeros((height, width, 3), np.uint8))


def test_bounds_are_kept_and_what_is_beyond_goes() -> None:
    assert not aspect()(picture(448, 224)) and aspect()(picture(224, 449))
    assert not side()(picture(224, 300)) and side()(picture(300, 223))
    assert not seconds()(Audio(np.zeros(150, np.float32), 10)) and seconds()(Audio(np.zeros(151, np.float32), 10))
    assert not length(2, 3)("a b c") and length(2, 3)("a") and length(2, 3)("a b c d")
    assert not score(float, 0.27)("0.27") and score(float, 0.27)("0.26") and score(float, 0.27)("nan")


def test_repetition_counts_runs_seen_before() -> None:
    assert not repetition()("one two three four five six")
    assert repetition()("buy it now " * 5) == "77% repeated > 30%"  # 3 kinds of 13 runs


@given(st.lists(st.integers(0, 20)), st.integers(0, 3))
def test_a_filter_keeps_the_order_and_accounts_for_all(things: list[int], most: int) -> None:
    odd = Filter[int]("even only", lambda n: "odd" if n % 2 else "", most)
    assert list(odd(things)) == [n for n in things if n % 2 == 0]
    gone = [n for n in things if n % 2]
    assert (odd.seen, odd.dropped) == (len(things), len(gone))
    assert odd.examples == [(n, "odd") for n in gone[:most]]


@pytest.mark.parametrize("changed", [0, 10, 40, 100, 200])
def test_minhash_estimates_the_jaccard_similarity(changed: int) -> None:
    words = [f"w{n}" for n in range(200)]
    other = [f"x{n}" if n < changed else w for n, w in enumerate(words)]
    one, two = " ".join(words), " ".join(other)
    exact = len(set(shingles(one)) & set(shingles(two))) / len(set(shingles(one)) | set(shingles(two)))
    estimate = similarity(minhash(one, 1024), minhash(two, 1024))
    assert abs(estimate - exact) < 4 * max((exact * (1 - exact) / 1024) ** 0.5, 1e-9)


def test_near_duplicates_go_and_the_first_stays() -> None:
    text = " ".join(f"w{n}" for n in range(100))
    unique = Filter[str]("near duplicates", near_duplicate())
    other = " ".join(f"v{n}" for n in range(100))
    assert list(unique([text, other, text + " end", text.upper()])) == [text, other]
    assert [t for t, _ in unique.examples] == [text + " end", text.upper()]
