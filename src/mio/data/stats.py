"""What a store holds, and what a plan makes of it: samples, tokens and trained targets by source and by modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.data.packing import turns
from mio.data.plan import Mix, Plan
from mio.data.store import Store

_CHUNK = 4096  # samples at a time


@dataclass(frozen=True)
class Tally:
    """Rows are labels ("task/source"), columns kinds of ids. samples (L,): how often any of them comes; size (L,): how
    many there are; least, most (L,): how often one of them comes; tokens, targets (L, K)."""

    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    samples: NDArray[np.int64]
    size: NDArray[np.int64]
    least: NDArray[np.int64]
    most: NDArray[np.int64]
    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]

    def by_source(self) -> list[dict[str, Any]]:
        """A row for every label: counts, its shares of all, and in how many epochs it comes."""
        tokens, targets = self.tokens.sum(axis=1), self.targets.sum(axis=1)
        return [
            {
                "task/source": label,
                "samples": int(self.samples[n]),
                "tokens": int(tokens[n]),
                "targets": int(targets[n]),
                "share of samples": _share(self.samples, n),
                "share of tokens": _share(tokens, n),
                "share of targets": _share(targets, n),
                "epochs": round(float(self.samples[n] / self.size[n]), 3),
                "repeats": [int(self.least[n]), int(self.most[n])],
            }
            for n, label in enumerate(self.labels)
        ]

    def by_kind(self) -> list[dict[str, Any]]:
        """A row for every modality; text has the control ids, too."""
        tokens, targets = self.tokens.sum(axis=0), self.targets.sum(axis=0)
        return [
            {
                "modality": kind,
                "tokens": int(tokens[n]),
                "targets": int(targets[n]),
                "share of tokens": _share(tokens, n),
                "share of targets": _share(targets, n),
            }
            for n, kind in enumerate(self.kinds)
        ]


def _share(counts: NDArray[np.int64], n: int) -> float:
    return round(float(counts[n] / max(counts.sum(), 1)), 5)


def tally(store: Store, of: NDArray[np.int64], kinds: tuple[str, ...], plan: Plan | None = None) -> Tally:
    """Of a whole store, every sample once, or of all packs of a plan. `of` (vocabulary,): kind of every id."""
    counting, labels = _Counting(store, plan, of, len(kinds)), store.index.labels
    repeats = counting.repeats()
    numbers = np.flatnonzero(repeats)
    table = np.zeros((2, len(store.index.names) * len(kinds)), np.int64)
    for start in range(0, len(numbers), _CHUNK):
        some = numbers[start : start + _CHUNK]
        table += counting.cells(some, repeats[some])
    tokens, targets = table.reshape(2, -1, len(kinds))
    each = counting.of_samples(repeats)
    least, most = np.full(len(tokens), np.iinfo(np.int64).max), np.zeros(len(tokens), np.int64)
    np.minimum.at(least, labels, each)
    np.maximum.at(most, labels, each)
    samples = np.bincount(labels, each, minlength=len(tokens)).astype(np.int64)
    names = tuple("/".join(name) for name in store.index.names)
    size = np.bincount(labels, minlength=len(tokens))
    return Tally(names, kinds, samples, size, least, most, tokens, targets)


@dataclass(frozen=True)
class _Counting:
    store: Store
    plan: Plan | None
    of: NDArray[np.int64]
    kinds: int

    def repeats(self) -> NDArray[np.int64]:
        """How often every number comes: a sample's, and after those a piece's."""
        if self.plan is None:
            return np.ones(len(self.store), np.int64)
        out = np.zeros(len(self.store) + len(self.plan.extra), np.int64)
        for start in range(0, len(self.plan.numbers), 2**20):
            out += np.bincount(self.plan.numbers[start : start + 2**20], minlength=len(out))
        return out

    def of_samples(self, repeats: NDArray[np.int64]) -> NDArray[np.int64]:
        """(samples,): how often each comes; one in pieces as often as its first piece."""
        out = repeats[: len(self.store)].copy()
        if self.plan is not None:
            first = np.flatnonzero(self.plan.extra[:, 1] == 0)
            out[self.plan.extra[first, 0]] = repeats[len(self.store) + first]
        return out

    def cells(self, numbers: NDArray[np.int64], repeats: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2, labels * kinds): tokens and targets of samples or pieces that come so often."""
        samples, starts, stops = self._places(numbers)
        whole, lengths = self.store.spans(starts, stops), stops - starts
        whole.loss[(np.cumsum(lengths) - lengths)[lengths > 0]] = False  # nothing predicts a first id
        label = np.repeat(self.store.index.labels[samples].astype(np.int64), lengths)
        cell, size = label * self.kinds + self.of[whole.ids], len(self.store.index.names) * self.kinds
        weight = np.repeat(repeats, lengths).astype(np.float64)  # exact below 2**53
        counts = [np.bincount(cell, w, minlength=size) for w in (weight, weight * whole.loss)]
        return np.stack(counts).astype(np.int64)

    def _places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        if self.plan is None:
            return numbers, self.store.offsets[numbers], self.store.offsets[numbers + 1]
        return self.plan.samples(numbers, self.store), *self.plan.spans(numbers, self.store)


@dataclass(frozen=True)
class Realised:
    """What the packs of a plan hold: `fill`, the share of their room, and for every slot its share of packs, as
    asked for, and of tokens."""

    packs: int
    fill: float
    slots: dict[str, dict[str, float]]


def realised(store: Store, plan: Plan, mix: Mix) -> Realised:
    numbers = plan.numbers[:].astype(np.int64)
    lengths = np.concatenate([store.lengths, plan.extra[:, 2] - plan.extra[:, 1]])
    tokens = np.add.reduceat(lengths[numbers], plan.offsets[:-1])  # no pack is empty
    order = turns(mix.turn)
    slots = {}
    for name in mix.turn:
        mine = np.array([order[n % len(order)] == name for n in range(len(plan))])
        asked = mix.turn[name] / len(order)
        slots[name] = {"packs": round(asked, 5), "tokens": round(float(tokens[mine].sum() / tokens.sum()), 5)}
    return Realised(len(plan), round(float(tokens.mean() / mix.tokens), 5), slots)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of equal keys as lines for people."""
    cells = [[*rows[0]], *([_cell(v) for v in row.values()] for row in rows)] if rows else []
    widths = [max(len(line[n]) for line in cells) for n in range(len(cells[0]))] if cells else []
    return [
        "  ".join(c.ljust(w) if not n else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " to ".join(f"{v:,}" for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
