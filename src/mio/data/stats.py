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
    numbers, repeats = np.arange(len(store)), np.ones(len(store), np.int64)
    if plan is not None:
        repeats = np.zeros(len(store) + len(plan.extra), np.int64)
        for start in range(0, len(plan.numbers), 2**20):
            repeats += np.bincount(plan.numbers[start : start + 2**20], minlength=len(repeats))
        numbers = np.flatnonzero(repeats)
    labels, table = len(store.index.names), np.zeros((2, len(store.index.names) * len(kinds)), np.int64)
    for start in range(0, len(numbers), _CHUNK):
        table += _counted(store, of, plan, numbers[start : start + _CHUNK], repeats)
    tokens, targets = table.reshape(2, labels, len(kinds))
    size = np.bincount(store.index.labels, minlength=labels)
    samples, least, most = _epochs(store, _of_samples(store, plan, repeats))
    names = tuple("/".join(name) for name in store.index.names)
    return Tally(names, kinds, samples, size, least, most, tokens, targets)


def _counted(
    store: Store, of: NDArray[np.int64], plan: Plan | None, numbers: NDArray[np.int64], repeats: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(2, labels * kinds): tokens and targets of some samples or pieces, times their repeats."""
    samples = plan.samples(numbers, store) if plan else numbers
    starts, stops = plan.spans(numbers, store) if plan else (store.offsets[numbers], store.offsets[numbers + 1])
    whole, lengths, kinds = store.spans(starts, stops), stops - starts, int(of.max(initial=0)) + 1
    whole.loss[(np.cumsum(lengths) - lengths)[lengths > 0]] = False  # nothing predicts a first id
    place = np.repeat(store.index.labels[samples].astype(np.int64) * kinds, lengths) + of[whole.ids]
    weight = np.repeat(repeats[numbers], lengths).astype(np.float64)
    cells = len(store.index.names) * kinds
    tokens = np.bincount(place, weight, minlength=cells)
    return np.stack([tokens, np.bincount(place, weight * whole.loss, minlength=cells)]).astype(np.int64)


def _of_samples(store: Store, plan: Plan | None, repeats: NDArray[np.int64]) -> NDArray[np.int64]:
    """(samples,): how often each comes; one in pieces as often as its first piece."""
    out = repeats[: len(store)].copy()
    if plan is not None:
        first = np.flatnonzero(plan.extra[:, 1] == 0)
        out[plan.extra[first, 0]] = repeats[len(store) + first]
    return out


def _epochs(store: Store, repeats: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """(labels,) each: sum, least and most of the samples' repeats."""
    labels, count = store.index.labels, len(store.index.names)
    least, most = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(least, labels, repeats)
    np.maximum.at(most, labels, repeats)
    return np.bincount(labels, repeats, minlength=count).astype(np.int64), least, most


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
