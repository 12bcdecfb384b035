"""A run's log as curves: loss of every kind over all stages, what rose when a stage began, and how soon it was back.

As in MIO's figure 3: a kind of data that comes in anew lifts losses for a while.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mio.train.gauge import TEXT

HELD = "held-out "
LAST = 3  # log lines whose mean is a stage's end
WHOLE = "all targets"  # the step's own loss

Point = tuple[int, float]  # steps since the first stage, loss


@dataclass(frozen=True)
class Curve:
    name: str
    points: tuple[Point, ...]

    @property
    def held(self) -> bool:
        return self.name.startswith(HELD)


@dataclass(frozen=True)
class Stretch:
    """A stage's part of the axis: where it begins, how many steps it has, and its lines by step."""

    name: str
    begin: int
    lines: Mapping[int, Mapping[str, Any]]

    @property
    def end(self) -> int:
        return self.begin + max(self.lines)


@dataclass(frozen=True)
class Rise:
    """At the border of two stages. `back`: steps until the loss was `before` again; None: it never was."""

    stage: str
    name: str
    before: float
    peak: float
    back: int | None


def lines(path: Path) -> Iterable[Mapping[str, Any]]:
    """Whole ones: a training may be writing the last."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):
            yield json.loads(line)


def stretches(lines: Iterable[Mapping[str, Any]]) -> list[Stretch]:
    """Stages in the order in which they began; of steps done twice the last line counts."""
    by_stage: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines:
        stage = by_stage.setdefault(str(line["stage"]), {})
        stage[int(line["step"])] = stage.get(int(line["step"]), {}) | dict(line)
    found, begin = list[Stretch](), 0
    for name, steps in by_stage.items():
        found.append(Stretch(name, begin, dict(sorted(steps.items()))))
        begin = found[-1].end
    return found


def kinds(stage: Stretch) -> list[str]:
    """Kinds of targets that a language stage logs; none for other stages."""
    keys = {key for line in stage.lines.values() for key in line}
    return sorted(key for key in keys if f"share of {key}" in keys)


def curves(stages: Sequence[Stretch], names: Sequence[str]) -> list[Curve]:
    """Of losses and held-out losses, over all of `stages`."""
    first = stages[0].begin
    kinds_and_held = [key for name in names for key in (name, HELD + name)]
    keys = {"loss": WHOLE} | {key: key for key in (*kinds_and_held, HELD + TEXT)}
    found = []
    for key, name in keys.items():
        lines = ((s.begin + step - first, line) for s in stages for step, line in s.lines.items())
        points = tuple((step, float(line[key])) for step, line in lines if key in line)
        found += [Curve(name, points)] if points else []
    return found


def rises(stages: Sequence[Stretch], names: Sequence[str]) -> list[Rise]:
    found = []
    for old, new in pairwise(stages):
        for key, name in {"loss": WHOLE, **{name: name for name in names}}.items():
            ends = [float(line[key]) for line in old.lines.values() if key in line][-LAST:]
            later = {step: float(line[key]) for step, line in new.lines.items() if key in line}
            before = sum(ends) / len(ends) if ends else 0.0
            if later and ends and max(later.values()) > before:
                peak = max(later, key=later.__getitem__)
                back = next((step for step, loss in later.items() if step > peak and loss <= before), None)
                found.append(Rise(new.name, name, before, later[peak], back))
    return found
