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


def paired_bootstrap(a: Sequence[float], b: Sequence[float], draws: int = 10_000, seed: int = 0) -> Score:
    """Mean of a - b over the same items, with its bootstrap interval."""
    return mean(_differences(a, b), draws, seed)


def permutation(a: Sequence[float], b: Sequence[float], draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired sign-flip test (Fisher); exact where 2^N <= `draws`."""
    d = _differences(a, b)
    n = len(d)
    if 2**n <= draws:
        signs = 1.0 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float(np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12))
    rng = np.random.default_rng(seed)
    beyond = sum(abs((1 - 2 * rng.integers(0, 2, n)) @ d) >= abs(d.sum()) - 1e-12 for _ in range(draws))
    return float(beyond + 1) / (draws + 1)


def _differences(a: Sequence[float], b: Sequence[float]) -> Floats:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} scores are paired with {len(b)}")
    _not_empty(len(a))
    return np.asarray(a, np.float64) - np.asarray(b, np.float64)


def _not_empty(n: int) -> int:
    if n == 0:
        raise ValueError("no items to score")
    return n


def average_ranks(ranks: NDArray[np.int64]) -> Floats:
    """(annotators, items, systems) ranks, 1 best -> (systems,) mean rank."""
    out: Floats = ranks.mean((0, 1))
    return out


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
