"""How sure a number is: intervals by Wilson and by bootstrap, paired tests, agreement of people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A number over `n` items with its 95 % interval."""

    value: float
    n: int
    low: float
    high: float


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927)."""
    if count == 0:
        return 0.0, 1.0
    p, scale = right / count, 1 + z * z / count
    centre = (p + z * z / (2 * count)) / scale
    half = z * sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion(right: Sequence[bool]) -> Score:
    """Share of items that are right, with Wilson's interval."""
    _not_empty(len(right))
    low, high = wilson(sum(right), len(right))
    return Score(sum(right) / len(right), len(right), low, high)


def from_sums(rows: Floats, value: Callable[[Floats], Floats], draws: int = 1000, seed: int = 0) -> Score:
    """A corpus score that is a function of column sums, with its percentile bootstrap over items.

    Args:
        rows: (N, D), what each item adds.
        value: (..., D) sums -> (...) scores.
    """
    n = _not_empty(len(rows))
    rng = np.random.default_rng(seed)
    sums = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) @ rows for _ in range(draws)])
    low, high = np.percentile(value(sums), (2.5, 97.5))
    return Score(float(value(rows.sum(0))), n, float(low), float(high))


def mean(values: Sequence[float] | Floats, draws: int = 1000, seed: int = 0) -> Score:
    """Mean of items with its bootstrap interval."""
    rows = np.asarray(values, np.float64)[:, None]
    return from_sums(rows, lambda sums: sums[..., 0] / len(rows), draws, seed)


def ratio(points: Floats, draws: int = 1000, seed: int = 0) -> Score:
    """Points (N, 2), what each item scored and how much it counts -> their quotient of sums, with its interval."""
    return from_sums(points, _quotient, draws, seed)


def _quotient(sums: Floats) -> Floats:
    out: Floats = sums[..., 0] / np.maximum(sums[..., 1], 1e-12)
    return out


@dataclass(frozen=True)
class Difference:
    """How a score changed over the same items: bootstrap interval, and two-sided p-value of no change."""

    value: float
    n: int
    low: float
    high: float
    p: float


def paired(a: Floats, b: Floats, draws: int = 10_000, seed: int = 0) -> Difference:
    """Points (N, 2) of two systems over the same items -> how much higher the quotient of `a` is than that of `b`.

    The p-value is that of approximate randomisation (Noreen, 1989): items exchange their systems at random, all ways of
    doing so where 2^N <= `draws`. For points that count alike it is the sign-flip test.
    """
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} scores are paired with {len(b)}")
    n = _not_empty(len(a))
    both = from_sums(np.hstack([a, b]), lambda s: _quotient(s[..., :2]) - _quotient(s[..., 2:]), min(draws, 1000), seed)
    beyond, tried = _exchanged(a, b, draws, seed, abs(both.value) - 1e-12)
    exact = 2**n <= draws
    return Difference(both.value, n, both.low, both.high, (beyond + (not exact)) / (tried + (not exact)))


def _exchanged(a: Floats, b: Floats, draws: int, seed: int, least: float) -> tuple[int, int]:
    """How many exchanges give a difference of at least `least`, and of how many."""
    n = len(a)
    exact, rng = 2**n <= draws, np.random.default_rng(seed)
    beyond, tried, total, step = 0, 2**n if exact else draws, a.sum(0) + b.sum(0), 256
    for first in range(0, tried, step):
        count = min(step, tried - first)
        stay = np.arange(first, first + count)[:, None] >> np.arange(n) & 1 if exact else rng.integers(0, 2, (count, n))
        sums = b.sum(0) + stay @ (a - b)
        beyond += int((np.abs(_quotient(sums) - _quotient(total - sums)) >= least).sum())
    return beyond, tried


def _not_empty(n: int) -> int:
    if n == 0:
        raise ValueError("no items to score")
    return n


def percentage_agreement(labels: NDArray[np.int64]) -> float:
    """(annotators, items) labels -> share of annotator pairs that say the same, over all items."""
    first, second = np.triu_indices(len(labels), 1)
    return float(np.mean(labels[first] == labels[second]))


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings of the same items (M. G. Kendall, 1945)."""
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    pairs = np.triu_indices(len(x), 1)
    dx, dy = (np.sign(v[pairs[0]] - v[pairs[1]]) for v in (x, y))
    return float((dx * dy).sum() / sqrt((dx**2).sum() * (dy**2).sum()))
