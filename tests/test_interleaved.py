"""Interleaved answers: stories are read back to the pixel, and every way of being worse costs what it should."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mio.data.scenes import BACKGROUNDS
from mio.evals.interleaved import BALLS, PLACES, Marks, Seen, Step, Story, draw, marks, read_picture, report, stories
from mio.pipeline import Reply
from mio.types import Image, Media, Text

Parts = list[Text | Media]
STORIES = list(stories(12))


def steps_of(parts: Parts) -> list[Parts]:
    return [parts[n : n + 2] for n in range(0, len(parts), 2)]


def joined(steps: list[Parts]) -> Parts:
    return [p for step in steps for p in step]


@pytest.mark.parametrize("side", [24, 48, 97])
def test_every_picture_is_read_back(side: int) -> None:
    for floor in BACKGROUNDS:
        for place in PLACES:
            for ball in BALLS:
                assert read_picture(draw(Step(floor, place), ball, side).pixels) == Seen(floor, ball, place)


def test_a_bare_floor_shows_no_ball() -> None:
    floor = sorted(BACKGROUNDS)[0]
    pixels = np.broadcast_to(np.array(BACKGROUNDS[floor], np.uint8), (20, 20, 3))
    assert read_picture(pixels) == Seen(floor, "", "")


@settings(max_examples=25)
@given(st.integers(0, 500))
def test_a_noisy_picture_is_read_all_the_same(seed: int) -> None:
    story = STORIES[seed % len(STORIES)]
    clean = draw(story.steps[0], story.ball, 48).pixels
    noisy = (clean + np.random.default_rng(seed).normal(0, 12, clean.shape)).clip(0, 255).astype(np.uint8)
    assert read_picture(noisy) == Seen(story.steps[0].floor, story.ball, story.steps[0].place)


def test_stories_are_drawn_from_their_seed() -> None:
    assert list(stories(5)) == STORIES[:5] != list(stories(5, seed=1))
    assert {len(s.steps) for s in STORIES} == {3, 4, 5}
    assert all(len(set(s.steps)) == len(s.steps) for s in STORIES)


@pytest.mark.parametrize("story", [s for s in STORIES if len(s.steps) < 5][:3])
def test_perfect_is_above_shuffled_above_a_missing_picture_above_text_alone(story: Story) -> None:
    """Whatever the order of the steps, and whichever picture is missing."""
    perfect = story.parts()
    steps = steps_of(perfect)
    shuffled = [marks(story, joined(list(p))).total for p in permutations(steps) if list(p) != steps]
    lacking = [marks(story, perfect[:n] + perfect[n + 1 :]).total for n in range(1, len(perfect), 2)]
    words = marks(story, perfect[::2]).total
    assert marks(story, perfect) == Marks(1, 1, 1, 1, 1, 1)
    assert max(shuffled) < 1 and min(shuffled) > max(lacking) and min(lacking) > words > marks(story, []).total == 0


def test_of_five_steps_too_the_worst_order_is_above_a_missing_picture() -> None:
    story = next(s for s in STORIES if len(s.steps) == 5)
    perfect = story.parts()
    assert marks(story, joined(steps_of(perfect)[::-1])).total > marks(story, perfect[:-1]).total


def test_each_mark_falls_for_its_own_reason() -> None:
    story = next(s for s in STORIES if len(s.steps) == 4)
    perfect = story.parts()
    (a, b, c, d) = steps_of(perfect)
    assert marks(story, joined([d, c, b, a])) == Marks(1, 1, 1, 1, 0.25, 1)
    swapped = [a[0], b[1], b[0], a[1], *c, *d]
    assert marks(story, swapped) == Marks(1, 1, 1, 0.5, 0.75, 1)
    other = next(n for n in BALLS if n != story.ball)
    recoloured = joined([[s[0], draw(step, other, 48)] for s, step in zip((a, b, c, d), story.steps, strict=True)])
    assert marks(story, recoloured) == Marks(1, 1, 1, 1, 1, 0)
    mute = joined([[Text("Look."), s[1]] for s in (a, b, c, d)])
    assert marks(story, mute) == Marks(1, 1, 0, 0, 1, 1)
    texts_first = [a[0], b[0], c[0], d[0], a[1], b[1], c[1], d[1]]
    assert marks(story, texts_first) == Marks(0.25, 1, 1, 0, 1, 1)


def test_too_much_weighs_as_what_lacks() -> None:
    story = STORIES[0]
    twice = marks(story, story.parts() + story.parts())
    assert twice == Marks(0.5, 0.5, 1, 0.5, 0.5, 1)


def test_blank_texts_and_sizes_do_not_matter() -> None:
    story = STORIES[1]
    parts: Parts = [p for part in story.parts(100) for p in (part, Text(" \n"))]
    assert marks(story, parts).total == 1


def test_a_report_has_means_intervals_and_faults() -> None:
    told = [
        (s, Reply(tuple(s.parts() if n % 2 else s.parts()[::2]), (), ("cut",) * n)) for n, s in enumerate(STORIES[:4])
    ]
    found = report(told)
    assert found.scores["choice"].value == 0.5 and found.scores["choice"].n == 4 and found.faults == 6
    assert found.scores["words"].value == 1 and found.scores["total"].low <= found.scores["total"].value
    assert isinstance(told[0][1].parts[0], Text) and isinstance(told[1][1].parts[1], Image)
