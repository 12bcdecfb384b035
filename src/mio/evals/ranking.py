"""People rank the answers of several systems on one page, without knowing whose they are; what they say is averaged.

The protocol is that of MIO's Appendix E: three annotators, average rank, percentage agreement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from mio.checkpoint import read_json, write_json
from mio.config import from_dict
from mio.evals.benchmarks.items import some
from mio.evals.metrics.statistics import Floats, Score, kendall_tau, mean, percentage_agreement
from mio.evals.results import SAMPLES
from mio.evals.shown import Piece, pages
from mio.media import read
from mio.types import DataError, MioError, MissingError, Text

Samples = dict[str, dict[str, Any]]  # of one run, by the id of its item


@dataclass(frozen=True)
class Key:
    """Whose answers stand where. `orders`: for each item, the systems from left to right."""

    form: str
    systems: tuple[str, ...]
    orders: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sheet:
    """What one annotator saved: for each item, the ranks from left to right, 1 best; equal ones are ties."""

    form: str
    annotator: str
    ranks: dict[str, tuple[int, ...]]


def write_form(runs: Sequence[Path], path: Path, count: int, seed: int) -> Key:
    """One page for at most `count` items that all runs answered; beside it, which annotators must not see, its key.

    Raises:
        MissingError: a run has kept no samples. DataError: the runs share no item.
    """
    samples = [_samples(run) for run in runs]
    shared = [id for id in samples[0] if all(id in other for other in samples)]
    if not shared:
        raise DataError("These runs answer no item in common.", at=", ".join(map(str, runs)))
    rng = np.random.default_rng(seed)
    chosen = [shared[n] for n in sorted(rng.permutation(len(shared))[:count])]
    orders = {id: tuple(int(n) for n in rng.permutation(len(runs))) for id in chosen}
    systems = tuple(str(run) for run in runs)
    key = Key(sha256(json.dumps([systems, orders]).encode()).hexdigest()[:12], systems, orders)
    cards = "".join(_card(id, [(runs[n], samples[n][id]) for n in orders[id]]) for id in chosen)
    template = Template((files("mio") / "assets" / "ranking.html").read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(template.substitute(form=key.form, cards=cards, items=len(chosen)), encoding="utf-8")
    write_json(path.with_suffix(".key.json"), asdict(key))
    return key


def _samples(run: Path) -> Samples:
    path = run / SAMPLES
    if not path.is_file():
        raise MissingError("This run has kept no samples.", at=str(run), fix="Run it with --samples.")
    return {s["id"]: s for s in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def _card(id: str, answers: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """What was asked, and the answers from left to right, each with a place for its rank."""
    name, asked = escape(id, quote=True), escape(answers[0][1]["prompt"])
    places = "".join(f"<option>{n + 1}</option>" for n in range(len(answers)))
    shown = "".join(
        f'<li><div class="answer">{_answer(run, sample)}</div><label>Rank of answer {n + 1} '
        f'<select required name="{name}"><option value=""></option>{places}</select></label></li>'
        for n, (run, sample) in enumerate(answers)
    )
    return f'<fieldset data-item="{name}"><legend>{asked}</legend><ol>{shown}</ol></fieldset>'


def _answer(run: Path, sample: Mapping[str, Any]) -> str:
    parts = [Text(sample["text"]), *(read(run / file) for file in sample["files"])]
    return pages([Piece.of(part, "") for part in parts], "answer") or "<p>(nothing)</p>"


# ------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Verdict:
    """What people said. `ranks`: mean rank of each system, over items; `agreement`: of pairs of annotators, how often
    both say the same of two systems (better, equal, worse); `tau`: their mean Kendall's tau, where it is defined.
    `wins`: how often a system is ranked above another one."""

    ranks: dict[str, Score]
    wins: dict[str, dict[str, float]]
    agreement: float | None
    tau: float | None
    annotators: int
    items: int


def read_ranks(key_file: Path, sheets: Sequence[Path]) -> tuple[Key, Floats]:
    """-> ranks (annotators, items, systems).

    Raises:
        DataError: a sheet is of another form, not complete, or the second one of an annotator.
    """
    key, found, seen = from_dict(Key, read_json(key_file)), [], set()
    for path in sheets:
        sheet = from_dict(Sheet, read_json(path))
        if sheet.form != key.form:
            raise DataError(f"This sheet is of form {sheet.form!r}, not {key.form!r}.", at=str(path))
        if sheet.annotator in seen:
            raise DataError(f"{sheet.annotator!r} has two sheets.", at=str(path), fix="Keep one of them.")
        seen.add(sheet.annotator)
        found.append([_by_system(order, sheet.ranks.get(id, ())) for id, order in key.orders.items()])
        open = [id for id, row in zip(key.orders, found[-1], strict=True) if not row]
        if open:
            raise DataError(f"{len(open)} items are not ranked: {some(open)}.", at=str(path), fix="Rank them all.")
    if not found:
        raise MioError("There is no sheet to read.", fix="Give the files that annotators saved.")
    return key, np.array(found, np.float64)


def _by_system(order: Sequence[int], ranks: Sequence[int]) -> list[float]:
    """Ranks from left to right -> by system, ties at the mean of their places; none where a rank is missing."""
    if len(ranks) != len(order) or not all(1 <= r <= len(order) for r in ranks):
        return []
    places = [sum(other < r for other in ranks) + (ranks.count(r) + 1) / 2 for r in map(int, ranks)]
    return [places[order.index(system)] for system in range(len(order))]


def verdict(key: Key, ranks: Floats) -> Verdict:
    """Ranks (annotators, items, systems) -> what they say, intervals by resampling items."""
    people, items, _ = ranks.shape
    first, second = np.triu_indices(len(key.systems), 1)
    better = np.sign(ranks[..., second] - ranks[..., first]).astype(np.int64).reshape(people, -1)
    pairs = list(zip(*np.triu_indices(people, 1), strict=True))
    taus = [kendall_tau(ranks[a, n], ranks[b, n]) for a, b in pairs for n in range(items) if _told(ranks[[a, b], n])]
    return Verdict(
        {name: mean(ranks[..., n].mean(0)) for n, name in enumerate(key.systems)},
        {name: dict(_against(key, ranks, n)) for n, name in enumerate(key.systems)},
        percentage_agreement(better) if people > 1 else None,
        float(np.mean(taus)) if taus else None,
        people,
        items,
    )


def _told(ranks: Floats) -> bool:
    """Whether neither of two rankings ties everything."""
    return bool((np.ptp(ranks, axis=1) > 0).all())


def _against(key: Key, ranks: Floats, system: int) -> Iterator[tuple[str, float]]:
    """How often a system is ranked above each other one."""
    for other, name in enumerate(key.systems):
        if other != system:
            yield name, float((ranks[..., system] < ranks[..., other]).mean())
