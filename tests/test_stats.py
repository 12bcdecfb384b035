"""data/stats.py: counts of a store and of a plan are those of a plain loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mio.data.plan import Mix, Plan, Slot, write_plan
from mio.data.stats import realised, table, tally
from mio.data.store import Record, Store, write_store
from mio.sequence import TokenSequence

MADE = "0123456789abcdef"
KINDS = ("text", "image", "speech")
OF = np.repeat([0, 1, 2], 100)  # kind of 300 ids


def record(number: int, length: int, task: str, source: str) -> Record:
    rng = np.random.default_rng(number)
    ids = np.concatenate([rng.integers(0, 100, 3), rng.integers(0, 300, length)])
    return Record(TokenSequence(ids, rng.random(length + 3) < 0.6), f"id{number}", task, source)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    records = [record(n, n % 30, ("say", "see")[n % 2], f"s{n % 3}") for n in range(80)]
    write_store(tmp_path / "store", [*records, record(99, 150, "see", "s0")], MADE)
    return Store.open(tmp_path / "store", MADE)


def counted(sequences: list[tuple[str, TokenSequence]]) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Tokens and targets by label and kind, in a plain loop."""
    tokens, targets = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for label, sequence in sequences:
        for place, id in enumerate(sequence.ids.tolist()):
            tokens[label, KINDS[OF[id]]] += 1
            targets[label, KINDS[OF[id]]] += int(place > 0 and sequence.loss[place])
    return tokens, targets


def label(store: Store, sample: int) -> str:
    return "{task}/{source}".format(**store.about(sample))


def cells(labels: tuple[str, ...], numbers: np.ndarray) -> Counter[tuple[str, str]]:
    return Counter({(x, k): int(numbers[n, m]) for n, x in enumerate(labels) for m, k in enumerate(KINDS)})


def test_counts_of_a_store_are_those_of_a_plain_loop(store: Store) -> None:
    found = tally(store, OF, KINDS)
    tokens, targets = counted([(label(store, n), store[n]) for n in range(len(store))])
    assert (+cells(found.labels, found.tokens), +cells(found.labels, found.targets)) == (+tokens, +targets)
    assert found.samples.tolist() == found.size.tolist()
    assert sum(row["share of tokens"] for row in found.by_source()) == pytest.approx(1, abs=1e-3)
    assert sum(row["tokens"] for row in found.by_kind()) == len(store.ids)


@pytest.mark.parametrize("long", ["drop", "split"])
def test_counts_of_a_plan_are_those_of_a_plain_loop(store: Store, tmp_path: Path, long: str) -> None:
    slots = {"a": Slot(2, {"say": 1.0}), "b": Slot(1, {"see/s0": 2.0, "see/s1": 1.0}, long)}  # type: ignore[arg-type]
    mix = Mix(slots, tokens=64)
    write_plan(tmp_path / "plan", store, mix, OF, 60)
    plan, read = Plan.open(tmp_path / "plan"), list[tuple[str, TokenSequence]]()
    samples = Counter[str]()
    for pack in range(60):
        starts, stops = plan.spans(plan[pack], store)
        for sample, start, stop in zip(plan.samples(plan[pack], store), starts, stops, strict=True):
            read.append((label(store, sample), store.spans(np.array([start]), np.array([stop]))))
            samples[label(store, sample)] += int(start == store.offsets[sample])
    found = tally(store, OF, KINDS, plan)
    tokens, targets = counted(read)
    assert (+cells(found.labels, found.tokens), +cells(found.labels, found.targets)) == (+tokens, +targets)
    assert +Counter(dict(zip(found.labels, found.samples.tolist(), strict=True))) == +samples
    assert all(0 <= most - least <= 1 for least, most in zip(found.least, found.most, strict=True) if least)
    facts = realised(store, plan, mix)
    assert facts.fill == pytest.approx(sum(tokens.values()) / 60 / 64, abs=1e-4)
    assert facts.slots["a"]["packs"] == pytest.approx(2 / 3, abs=1e-4)
    said = sum(n for (name, _), n in tokens.items() if name.startswith("say")) / sum(tokens.values())
    assert facts.slots["a"]["tokens"] == pytest.approx(said, abs=1e-4)


def test_tables_line_up() -> None:
    lines = table([{"name": "a", "tokens": 1234567, "share": 0.12345}, {"name": "long", "tokens": 1, "share": 1.0}])
    assert lines == ["name     tokens   share", "a     1,234,567  0.1235", "long          1       1"]
    assert table([]) == []
