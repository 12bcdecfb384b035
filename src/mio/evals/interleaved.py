"""Answers of texts and pictures in turn, scored against a family of stories whose truth is known to the pixel.

A story is a ball of one colour on a way over coloured floors. Every step is a sentence and a picture, and both can be
read back without any model: the floor's colour, the ball's colour, and in which of nine places it lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mio.data.scenes import BACKGROUNDS
from mio.evals.metrics.captions import common_length
from mio.evals.metrics.statistics import Score, mean
from mio.evals.tasks import nearest_background
from mio.pipeline import Job, Model, Reply, user
from mio.types import Image, Media, Text, Turns

BALLS = {"red": (200, 30, 30), "green": (20, 120, 40), "blue": (30, 50, 180), "black": (20, 20, 20)}
PLACES = tuple(f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right"))
LEAST = 60.0  # distance in RGB from which a pixel is no longer floor


@dataclass(frozen=True)
class Step:
    floor: str
    place: str

    @property
    def sentence(self) -> str:
        return f"The ball is {self.place} on {self.floor}."


@dataclass(frozen=True)
class Story:
    ball: str
    steps: tuple[Step, ...]

    @property
    def request(self) -> str:
        way = ", then ".join(f"{s.place} on {s.floor}" for s in self.steps)
        return f"Tell the way of the {self.ball} ball, a sentence and a picture for each step: {way}."

    def parts(self, side: int = 48) -> list[Text | Media]:
        """The perfect answer."""
        return [p for s in self.steps for p in (Text(s.sentence), draw(s, self.ball, side))]


def stories(count: int, seed: int = 0) -> Iterator[Story]:
    """Stories of three to five steps, no two steps of one alike. The same seed, the same stories."""
    rng = np.random.default_rng(seed)
    floors = sorted(BACKGROUNDS)
    for _ in range(count):
        ways = rng.permutation(len(floors) * len(PLACES))[: rng.integers(3, 6)]
        steps = tuple(Step(floors[w % len(floors)], PLACES[w // len(floors)]) for w in ways)
        yield Story(sorted(BALLS)[int(rng.integers(len(BALLS)))], steps)


def draw(step: Step, ball: str, side: int) -> Image:
    """A ball a quarter of the side wide, in the middle of its place."""
    place = PLACES.index(step.place)
    y, x = np.mgrid[:side, :side] + 0.5
    centre = (np.array([place // 3, place % 3]) + 0.5) * side / 3
    pixels = np.broadcast_to(np.array(BACKGROUNDS[step.floor], np.uint8), (side, side, 3)).copy()
    pixels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (side / 8) ** 2] = BALLS[ball]
    return Image(pixels)


@dataclass(frozen=True)
class Seen:
    """What a picture shows; "" for a ball and a place that are not to be seen."""

    floor: str
    ball: str
    place: str


def read_picture(pixels: NDArray[np.uint8]) -> Seen:
    """(H, W, 3) of any size."""
    floor = nearest_background(pixels)
    far = np.linalg.norm(pixels.astype(np.float64) - np.array(BACKGROUNDS[floor]), axis=-1)
    if far.max() < LEAST:
        return Seen(floor, "", "")
    ball = far > max(LEAST, far.max() / 2)
    colour = np.median(pixels[ball], axis=0)
    row, column = (np.argwhere(ball).mean(0) + 0.5) * 3 / np.array(pixels.shape[:2])
    name = min(BALLS, key=lambda n: float(np.abs(colour - np.array(BALLS[n])).sum()))
    return Seen(floor, name, PLACES[3 * int(row) + int(column)])


# ------------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Marks:
    """Of one answer, each from 0 to 1.

    `structure`: steps that are a text followed by a picture. `choice`: as many pictures as steps. `words`: steps that
    a text tells. `agreement`: steps whose picture shows what the text before it says. `order`: steps that are shown in
    their order. `consistency`: pictures of the one ball. What broke counts as not there, and what is too much weighs as
    what lacks.
    """

    structure: float
    choice: float
    words: float
    agreement: float
    order: float
    consistency: float

    @property
    def total(self) -> float:
        return float(np.mean(astuple(self)))


def marks(story: Story, parts: Sequence[Text | Media]) -> Marks:
    parts = [p for p in parts if isinstance(p, Image) or (isinstance(p, Text) and p.text.strip())]
    texts = [p.text.lower() for p in parts if isinstance(p, Text)]
    seen = [read_picture(p.pixels) for p in parts if isinstance(p, Image)]
    pairs = list(_pairs(parts))
    steps, most = len(story.steps), max(len(story.steps), len(seen))
    shown, wanted = [f"{s.floor} {s.place}" for s in seen], [f"{s.floor} {s.place}" for s in story.steps]
    return Marks(
        min(len(pairs), steps) / max(len(pairs), steps),
        min(len(seen), steps) / most,
        sum(any(_tells(text, step) for text in texts) for step in story.steps) / steps,
        sum(any(_tells(t, step) and _shows(p, step) for t, p in pairs) for step in story.steps) / most,
        common_length(shown, wanted) / most,
        sum(s.ball == story.ball for s in seen) / most,
    )


def _pairs(parts: Sequence[Text | Media]) -> Iterator[tuple[str, Seen]]:
    for first, second in pairwise(parts):
        if isinstance(first, Text) and isinstance(second, Image):
            yield first.text.lower(), read_picture(second.pixels)


def _tells(text: str, step: Step) -> bool:
    return step.floor in text and step.place in text


def _shows(seen: Seen, step: Step) -> bool:
    return (seen.floor, seen.place) == (step.floor, step.place)


@dataclass(frozen=True)
class Report:
    """Mean marks of many answers with their intervals; "total" is the mean of the six."""

    scores: dict[str, Score]
    faults: int


def report(told: Sequence[tuple[Story, Reply]]) -> Report:
    found = [marks(story, reply.parts) for story, reply in told]
    scores = {f.name: mean([float(vars(m)[f.name]) for m in found]) for f in fields(Marks)}
    return Report({**scores, "total": mean([m.total for m in found])}, sum(len(reply.faults) for _, reply in told))


def tell(model: Model, count: int, seed: int = 0, batch: int = 8) -> list[tuple[Story, Reply]]:
    """Ask for stories; the model itself chooses when to write and when to draw."""
    asked = list(stories(count, seed))
    jobs = [Job(Turns((user(s.request),)), "text,image", 400, seed=seed + n) for n, s in enumerate(asked)]
    replies = [r for start in range(0, count, batch) for r in model.run(jobs[start : start + batch])]
    return list(zip(asked, replies, strict=True))
