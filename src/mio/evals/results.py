"""Scores of finished runs with all that they depend on, and how sure the difference of two runs is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mio.checkpoint import read_json, write_json
from mio.evals.answering import read_answers, read_plan, write_lines
from mio.evals.benchmarks.items import Item, some
from mio.evals.metrics.statistics import Difference, Floats, paired, ratio
from mio.evals.planning import Task, commit, content
from mio.evals.scoring import METRICS, Answer, Pairs
from mio.evals.witnesses import Witnesses
from mio.pipeline import Model
from mio.types import DataError, Document, MediaBytes, MediaFile, MioError, MissingError, Part, Text, Turns

SAMPLES, SCORES = "samples.jsonl", "scores.json"


@dataclass(frozen=True)
class Result:
    """One score with everything that it depends on; `value`, `low` and `high` are per hundred."""

    metric: str
    value: float
    n: int
    low: float
    high: float
    higher: bool
    witness: str = ""


def score(task: Task, items: Sequence[Item], folder: Path, witnesses: Witnesses | None = None) -> dict[str, Any]:
    """Score a finished run into scores.json, which it returns.

    Metrics whose witness is not there are named in "missing". What failed or came out empty counts as wrong, and is
    named.

    Raises:
        MissingError: there is no such run. DataError: answers are missing, doubled or to no item.
    """
    ours, witnesses = read_plan(folder), witnesses or Witnesses()
    pairs = paired_up(folder, items[: ours.asked])
    lacking = {name: [w for w in METRICS[name].needs if not witnesses.has(w)] for name in task.metrics}
    scored = [name for name in task.metrics if not lacking[name]]
    points = {name: METRICS[name].points(pairs, witnesses) for name in scored}
    failed = [a.id for a, _ in pairs if a.error]
    document = {
        **asdict(ours),
        "whole": ours.whole and not failed,
        "scores": [asdict(_result(name, points[name], witnesses)) for name in scored],
        "missing": {name: " and no ".join(lost) for name, lost in lacking.items() if lost},
        "empty": [a.id for a, _ in pairs if a.empty and not a.scores and not a.error],
        "failed": failed,
        "seconds": round(sum(a.seconds for a, _ in pairs), 3),
        "commit": commit(),
        "points": {name: {i.id: p.tolist() for (_, i), p in zip(pairs, points[name], strict=True)} for name in scored},
    }
    write_json(folder / SCORES, document)
    return document


def paired_up(folder: Path, items: Sequence[Item]) -> Pairs:
    """Each item with its answer, whose files lie in the folder.

    Raises:
        DataError: an item has no answer; nothing is scored that is not complete.
    """
    by_id = {a.id: a for a in read_answers(folder, items)}
    open = [i.id for i in items if i.id not in by_id]
    if open:
        what = f"{len(open)} of {len(items)} items have no answer: {some(open)}."
        raise DataError(what, at=str(folder), fix="Run it again to go on.")
    found = ((by_id[i.id], i) for i in items)
    return [(replace(a, files=tuple(str(folder / f) for f in a.files)), i) for a, i in found]


def _result(name: str, points: Floats, witnesses: Witnesses) -> Result:
    found, metric = ratio(points[points.any(1)]), METRICS[name]
    value, low, high = (round(100 * x, 3) for x in (found.value, found.low, found.high))
    known = ", ".join(map(witnesses.known_as, metric.needs))
    return Result(name, value, found.n, low, high, metric.higher, known)


def write_samples(task: Task, model: Model, items: Sequence[Item], folder: Path) -> Path:
    """Every prompt as it was put, with its answer, truth and points, one JSON line each."""
    points = read_json(folder / SCORES)["points"]

    def lines() -> Iterator[str]:
        for answered, item in paired_up(folder, items[: read_plan(folder).asked]):
            yield json.dumps(_sample(answered, item, prompt_of(content(task, model, item)), points), ensure_ascii=False)

    write_lines(folder / SAMPLES, list(lines()))
    return folder / SAMPLES


def _sample(answered: Answer, item: Item, prompt: str, points: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **asdict(answered),
        "prompt": prompt,
        "truth": item.truth,
        "options": item.options,
        "shown": [str(f.path) if isinstance(f, MediaFile) else f.name for f in item.shown],
        "points": {name: found[item.id] for name, found in points.items()},
    }


def prompt_of(content: Turns | Document) -> str:
    """A prompt for people: its text, and its media by file name."""
    parts = content.parts if isinstance(content, Document) else [p for m in content.messages for p in m.parts]
    return "".join(map(_named, parts))


def _named(part: Part) -> str:
    if isinstance(part, MediaFile):
        return f"<{part.path.name}>"
    return part.text if isinstance(part, Text) else f"<{part.name}>" if isinstance(part, MediaBytes) else "<medium>"


def read_scores(folder: Path) -> dict[str, Any]:
    """Raises: MissingError where a folder holds no finished run."""
    if not (folder / SCORES).is_file():
        raise MissingError("This run has no scores yet.", at=str(folder), fix="Finish it: mio eval run.")
    found: dict[str, Any] = read_json(folder / SCORES)
    return found


def compare(first: Path, second: Path) -> dict[str, Difference]:
    """How much higher each score of `second` is than that of `first`, over the same items.

    Raises:
        MissingError: a run is not finished. MioError: they are of two tasks. DataError: they answer different items.
    """
    a, b = read_scores(first), read_scores(second)
    if a["task"] != b["task"]:
        raise MioError(f"One run is of {a['task']!r}, the other of {b['task']!r}.", fix="Compare runs of one task.")
    shared = [name for name in a["points"] if name in b["points"]]
    for name in shared:
        _same_items(a["points"][name], b["points"][name], f"{first}, {second}")
    return {name: _difference(a, b, name) for name in shared}


def _same_items(a: Mapping[str, Any], b: Mapping[str, Any], at: str) -> None:
    alone = [id for id in {**a, **b} if id not in a or id not in b]
    if alone:
        raise DataError(
            f"{len(alone)} items are in one run only: {some(alone)}.", at=at, fix="Use one --limit for both."
        )


def _difference(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> Difference:
    """In units of the scores, per hundred."""
    theirs = np.array([a["points"][name][id] for id in b["points"][name]], np.float64)
    found = paired(np.array(list(b["points"][name].values()), np.float64), theirs)
    return Difference(100 * found.value, found.n, 100 * found.low, 100 * found.high, found.p)
