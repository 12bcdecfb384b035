"""Procedural scenes and clips from single pictures: things in relations, counts, motions. Seeded, arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.types import Image, Video

BACKGROUNDS = {
    "white": (255, 255, 255),
    "blue": (148, 190, 255),
    "pink": (255, 190, 210),
    "grey": (190, 190, 190),
    "green": (165, 225, 164),
    "yellow": (255, 236, 150),
}
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("no", "one", "two", "three", "four")
MOTIONS = (
    "moves from left to right",
    "moves from right to left",
    "moves from top to bottom",
    "moves from bottom to top",
    "gets bigger",
    "gets smaller",
    "spins around",
    "blinks",
    "jumps up and down",
)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Scene:
    """Two things in a relation, or `count` of one thing, on a background."""

    subject: str
    background: str
    style: str
    relation: str = ""
    object: str = ""
    count: int = 0

    @property
    def group(self) -> str:
        """The combination; see `combination`."""
        return f"scenes:{combination(asdict(self))}"

    @property
    def caption(self) -> str:
        if self.count:
            return f"{_several(self.subject, self.count)} on a {self.background} background"
        return f"{a(self.subject)} {_phrase(self.relation)} {a(self.object)} on a {self.background} background"

    def questions(self) -> list[tuple[str, str]]:
        """Question and answer, in the corpus's own words."""
        colour = ("what colour is the background?", self.background)
        if self.count:
            many = (f"how many {self.subject} symbols are there?", NUMBERS[self.count])
            return [many, ("what is shown?", self.subject), colour]
        what = (f"what is {_phrase(self.relation)} the {self.object}?", self.subject)
        where = (f"where is the {self.object}?", f"{_phrase(OPPOSITE[self.relation])} the {self.subject}")
        return [what, where, colour]


def combination(record: Mapping[str, Any]) -> str:
    """What a scene shows, one name for one picture: "A right of B" is "B left of A", and "below" is "above" turned."""
    if record.get("count"):
        return f"{record['count']} {record['subject']}"
    first, relation, second = record["subject"], record["relation"], record["object"]
    if relation in ("right of", "below"):
        first, relation, second = second, OPPOSITE[relation], first
    return f"{first} {relation} {second}"


def a(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _several(name: str, count: int) -> str:
    return f"{NUMBERS[count]} {name}" + (" symbols" if count > 1 else "")


def _phrase(relation: str) -> str:
    return f"to the {relation}" if relation.endswith("of") else relation


def random_scenes(names: Sequence[str], styles: Sequence[str], count: int, seed: int) -> Iterator[Scene]:
    """Two relations for each count, as in the corpus."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        first, second = rng.choice(len(names), 2, replace=False)
        scene = Scene(names[first], pick(rng, tuple(BACKGROUNDS)), pick(rng, styles))
        if rng.random() < 1 / 3:
            yield replace(scene, count=int(rng.integers(1, 5)))
        else:
            yield replace(scene, relation=pick(rng, RELATIONS), object=names[second])


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


PLACES = {"left of": (0, 24), "right of": (48, 24), "above": (24, 0), "below": (24, 48)}
CORNERS = ((0, 0), (48, 0), (0, 48), (48, 48))


def draw_scene(scene: Scene, subject: NDArray[np.uint8], other: NDArray[np.uint8] | None, seed: int) -> Image:
    """`subject` and `other`: (H, W, 3) pictures on white -> a (96, 96, 3) scene."""
    rng = np.random.default_rng(seed)
    canvas = np.full((96, 96, 3), BACKGROUNDS[scene.background], np.uint8)
    if scene.count:
        for corner in rng.permutation(4)[: scene.count]:
            paste(canvas, subject, CORNERS[corner], 44)
    elif other is not None:
        paste(canvas, subject, PLACES[scene.relation], 44)
        paste(canvas, other, PLACES[OPPOSITE[scene.relation]], 44)
    return Image(canvas)


def paste(canvas: NDArray[np.uint8], picture: NDArray[np.uint8], at: tuple[float, float], size: int) -> None:
    """Scale a picture on white to `size` and put it at (x, y) of the canvas, white turned see-through, clipped."""
    small = _shrink(picture, size)
    opaque = 1 - np.clip((small.min(-1, keepdims=True).astype(np.float32) - 235) / 20, 0, 1)
    x, y = round(at[0]), round(at[1])
    height, width = canvas.shape[:2]
    top, left = max(0, -y), max(0, -x)
    bottom, right = min(size, height - y), min(size, width - x)
    if bottom <= top or right <= left:
        return
    here = canvas[y + top : y + bottom, x + left : x + right]
    alpha, new = opaque[top:bottom, left:right], small[top:bottom, left:right]
    here[:] = (alpha * new + (1 - alpha) * here).astype(np.uint8)


def _shrink(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Area-average sampling through a 4x grid; enough for icons."""
    grid = (np.arange(4 * size) + 0.5) * len(picture) / (4 * size)
    fine = picture[grid.astype(int)][:, grid.astype(int)].astype(np.float32)
    return fine.reshape(size, 4, size, 4, 3).mean((1, 3)).astype(np.uint8)


def draw_clip(picture: NDArray[np.uint8], motion: str, background: str, frames: int = 8, seed: int = 0) -> Video:
    """One thing with one motion on a (64, 64) background: (frames, 64, 64, 3) at 8 frames a second."""
    rng = np.random.default_rng(seed)
    line = float(rng.integers(16, 25))
    canvas = np.empty((frames, 64, 64, 3), np.uint8)
    canvas[:] = BACKGROUNDS[background]
    for number, frame in enumerate(canvas):
        along = number / (frames - 1)
        size, at, turns = _pose(motion, along, number, line)
        if size:
            paste(frame, np.rot90(picture, turns), at, size)
    return Video(canvas, 8.0)


def _pose(motion: str, along: float, number: int, line: float) -> tuple[int, tuple[float, float], int]:
    """Size in pixels (0: hidden), place of the top-left corner, and quarter turns."""
    far = -5 + along * 50
    if motion.startswith("moves"):
        back = 40 - far
        ends = {"left to right": (far, line), "right to left": (back, line)}
        ends |= {"top to bottom": (line, far), "bottom to top": (line, back)}
        return 24, ends[motion.removeprefix("moves from ")], 0
    if motion.startswith("gets"):
        size = round(8 + (along if motion.endswith("bigger") else 1 - along) * 48)
        return size, (32 - size / 2, 32 - size / 2), 0
    if motion == "jumps up and down":
        return 24, (20, 34 - 28 * abs(np.sin(number * np.pi / 4))), 0
    return (24 if motion != "blinks" or number % 2 == 0 else 0), (20, 20), number if motion == "spins around" else 0
