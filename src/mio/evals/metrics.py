"""Numbers from answers and references. Pure: no files, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True)
class Share:
    """`right` of `count`, with the 95 % interval of Wilson's score."""

    right: int
    count: int

    @property
    def value(self) -> float:
        return self.right / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.count)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927)."""
    if count == 0:
        return 0.0, 1.0
    p, scale = right / count, 1 + z * z / count
    centre = (p + z * z / (2 * count)) / scale
    half = z * sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def normal(text: str) -> str:
    """Lower case, single spaces, no final full stop: what two exact answers may differ in."""
    return " ".join(text.lower().split()).rstrip(".")


def exact(answers: Sequence[str], references: Sequence[str]) -> Share:
    """Answers equal to their reference after `normal`.

    Raises:
        ValueError: the numbers of answers and references differ.
    """
    pairs = list(zip(answers, references, strict=True))
    return Share(sum(normal(a) == normal(r) for a, r in pairs), len(pairs))
