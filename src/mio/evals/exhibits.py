"""Which media a report card is about: held-out ones, and those of the training split that its probes learn from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mio.data.sources import Item
from mio.evals.kinds import KINDS, Kind, Probe
from mio.evals.metrics.statistics import Floats, Score, proportion
from mio.processor import open_media
from mio.types import DataError

FEWEST = 8  # media of a label's source, known and new, that a probe needs


@dataclass(frozen=True)
class Exam:
    """Media of one probe by their places among `Exhibits.known` and `.items`; labels of the known come first."""

    probe: Probe
    known: list[int]
    new: list[int]
    labels: list[str]

    @property
    def what(self) -> str:
        """With the chance of being right by always saying what is commonest among the new media."""
        rest = self.labels[len(self.known) :]
        return f"{self.probe.what} (chance {max(map(rest.count, rest)) / len(rest):.0%})"

    def score(self, read: Callable[[Floats, Sequence[str]], list[str]], likeness: Floats) -> Score:
        """How often `read` is right on the new media. `likeness`: (known + new, known + new)."""
        said = read(likeness, self.labels[: len(self.known)])
        return proportion([a == b for a, b in zip(said, self.labels[len(self.known) :], strict=True)])

    def pick(self, known: Sequence[Any], new: Sequence[Any]) -> list[Any]:
        """Its own of what belongs to all known and all held-out media."""
        return [*(known[n] for n in self.known), *(new[n] for n in self.new)]


@dataclass(frozen=True)
class Exhibits:
    """Media of the kind `name`, with the items that they come from."""

    name: str
    items: tuple[Item, ...]
    media: tuple[Any, ...]
    known: tuple[Item, ...]
    known_media: tuple[Any, ...]

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @cached_property
    def exams(self) -> list[Exam]:
        """One of every probe that enough media are there for."""
        found = []
        for probe in self.kind.probes:
            known = [n for n, i in enumerate(self.known) if i.source == probe.source]
            names = [probe.label(self.known[n]) for n in known]
            new = [n for n, i in enumerate(self.items) if i.source == probe.source and probe.label(i) in names]
            if min(len(known), len(new)) >= FEWEST and len(set(names)) > 1:
                found.append(Exam(probe, known, new, [*names, *(probe.label(self.items[n]) for n in new)]))
        return found

    def examples(self, of_each: int = 2) -> list[int]:
        """Places of the first held-out media of every source."""
        sources = [i.source for i in self.items]
        return [n for n, source in enumerate(sources) if sources[:n].count(source) < of_each]


def exhibits(name: str, train: Sequence[Item], held_out: Sequence[Item], most: int) -> Exhibits:
    """At most `most` held-out media of each source, and four times as many of a probe's source to learn from."""
    items, media = _opened(name, _chosen(name, held_out, most, {i.source for i in held_out}))
    known = _chosen(name, train, 4 * most, {p.source for p in KINDS[name].probes})
    return Exhibits(name, items, media, *_opened(name, known))


def _chosen(name: str, items: Sequence[Item], most: int, sources: set[str]) -> list[Item]:
    """Items with a single medium of the kind, drawn with a fixed seed for each source."""
    out = []
    for source in sorted(sources):
        fit = [i for i in items if i.source == source and len(i.media(name)) == 1]
        out += [fit[n] for n in np.random.default_rng(0).permutation(len(fit))[:most]]
    return out


def _opened(name: str, items: Sequence[Item]) -> tuple[tuple[Item, ...], tuple[Any, ...]]:
    """Items whose medium can be read, and these media; others are named on stderr and left out."""
    found = []
    for item in items:
        try:
            found.append((item, open_media(item.media(name)[0])))
        except DataError as error:
            print(f"skipped {error.at}: {error}", file=sys.stderr)
    return tuple(i for i, _ in found), tuple(m for _, m in found)
