"""data/plan.py, loader.py: packs follow from their number alone, kinds take turns, long samples are cut or counted."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mio.data.loader import Loader
from mio.data.packing import best_fit, mixture
from mio.data.plan import Mix, Plan, Slot, write_plan
from mio.data.store import Record, Store, write_store
from mio.sequence import TokenSequence

MADE = "0123456789abcdef"
CODES = 200  # ids from here on are codes
KINDS = (np.arange(300) >= CODES).astype(np.int64)


def record(number: int, length: int, task: str, source: str = "") -> Record:
    rng = np.random.default_rng(number)
    sequence = TokenSequence(rng.integers(0, CODES, length), rng.random(length) < 0.5)
    return Record(sequence, f"{source}{number}", task, source)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    records = [record(n, 5 + n % 7, ("name", "draw")[n % 2], f"s{n % 3}") for n in range(60)]
    write_store(tmp_path / "store", records, MADE)
    return Store.open(tmp_path / "store", MADE)


MIX = Mix({"all": Slot(1, {"name": 1.0, "draw": 2.0})}, tokens=64, seed=3)


def loader(folder: Path, store: Store, mix: Mix = MIX, packs: int = 24) -> Loader:
    write_plan(folder, store, mix, KINDS, packs)
    return Loader(store, Plan.open(folder), KINDS)


def contents(plan: Plan) -> list[list[int]]:
    return [plan[n].tolist() for n in range(len(plan))]


def test_a_plan_is_the_mixture_packed_and_its_batches_hold_those_samples(tmp_path: Path, store: Store) -> None:
    drawn = mixture(store.tasks(), store.lengths, {"name": 1.0, "draw": 2.0}, 3)
    packs = list(islice(best_fit(drawn, store.lengths, 64), 24))
    found = loader(tmp_path / "plan", store)
    assert contents(found.plan) == [[draw.number for draw in pack] for pack in packs]
    for number, pack in enumerate(packs):
        batch = found.batch(number)
        samples = sorted((store[draw.number] for draw in pack), key=len)
        assert batch.ids.tolist() == [i for s in samples for i in s.ids]
        assert batch.segments.lengths == tuple(map(len, samples))
        assert batch.positions.tolist() == [p for s in samples for p in range(len(s))]
        assert len(batch.ids) <= 64


def test_a_plan_that_is_there_is_not_made_again_and_another_one_is(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "plan"
    loader(folder, store)
    made = (folder / "numbers.bin").stat().st_ino
    loader(folder, store)
    assert (folder / "numbers.bin").stat().st_ino == made
    before = contents(Plan.open(folder))
    for change in (replace(MIX, seed=4), replace(MIX, slots={"all": Slot(1, {"name": 1.0})}), replace(MIX, tokens=48)):
        loader(folder, store, change)
        assert contents(Plan.open(folder)) != before
    assert contents(loader(folder, store).plan) == before


def test_a_longer_plan_begins_as_a_shorter_one(tmp_path: Path, store: Store) -> None:
    short, long = loader(tmp_path / "short", store, packs=10), loader(tmp_path / "long", store, packs=40)
    assert contents(long.plan)[:10] == contents(short.plan)


def test_kinds_fill_packs_of_their_own_in_every_turn(tmp_path: Path, store: Store) -> None:
    mix = Mix({"a": Slot(3, {"name": 1.0}), "b": Slot(1, {"draw": 1.0}), "c": Slot(0, {"none": 1.0})}, tokens=64)
    found = loader(tmp_path / "plan", store, mix, 40)
    kinds = [{store.about(s)["task"] for s in found.plan[n].tolist()} for n in range(40)]
    assert all(len(kind) == 1 for kind in kinds)
    for start in range(0, 40, 4):
        turn = Counter(task for kind in kinds[start : start + 4] for task in kind)
        assert turn == {"name": 3, "draw": 1}


def document(number: int, spans: int, task: str = "text") -> Record:
    """Text of three ids and a span of ten codes, in turns."""
    ids = np.concatenate([np.r_[[1, 2, 3], np.full(10, CODES + number)] for _ in range(spans)])
    return Record(TokenSequence(ids, np.ones(len(ids), bool)), f"d{number}", task, "docs")


def test_long_documents_are_cut_outside_spans_and_carried_into_other_packs(tmp_path: Path) -> None:
    speech = Record(TokenSequence(np.full(70, CODES), np.ones(70, bool)), "long", "say", "voices")
    write_store(tmp_path / "store", [document(0, 2), document(1, 9), speech], MADE)
    store = Store.open(tmp_path / "store", MADE)
    mix = Mix({"all": Slot(1, {"text": 1.0, "say": 1.0}, "split"), "none": Slot(0, {"other": 1.0})}, tokens=40)
    found = loader(tmp_path / "plan", store, mix, 8)
    assert (found.plan.left_out, found.plan.split) == ({"say/voices": 1}, {"text/docs": 1})
    seen: list[int] = []
    for number in range(8):
        starts, stops = found.plan.spans(found.plan[number], store)
        for sample, start, stop in zip(found.plan.samples(found.plan[number], store), starts, stops, strict=True):
            ids = store.spans(np.array([start]), np.array([stop])).ids
            assert np.bincount(ids, minlength=300)[CODES:].max(initial=10) % 10 == 0  # whole spans only
            seen += ids.tolist() if sample == 1 else []
        assert found.batch(number).ids.shape == ((stops - starts).sum(),)
    whole = store[1].ids.tolist()
    assert seen[: len(whole)] == whole  # the pieces of a document come in order, none missing


def test_without_a_rule_long_samples_are_left_out_and_counted(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [document(0, 2), document(1, 9)], MADE)
    store = Store.open(tmp_path / "store", MADE)
    found = loader(tmp_path / "plan", store, Mix({"all": Slot(1, {"text": 1.0})}, tokens=40), 5)
    assert (found.plan.left_out, found.plan.split) == ({"text/docs": 1}, {})
    assert {n for pack in contents(found.plan) for n in pack} == {0}


# --------------------------------------------------------------------------------------------- stops and resumes

WORLDS = (1, 2, 4, 1)
PARTS = 4  # packs of a step, which ranks share


def read_as_rank(folder: Path, log: Path, rank: int, world: int, first: int) -> None:
    """A rank from step `first` on, until it is killed: opens store and plan, and writes down what it reads."""
    store = Store.open(folder / "store", MADE)
    mine = Loader(store, Plan.open(folder / "plan"), KINDS)
    with log.open("a", buffering=1) as file:
        for step in range(first, len(mine.plan) // PARTS):
            time.sleep(0.01)  # so that it is in the middle of its work when it is killed
            for part in range(rank, PARTS, world):
                number = step * PARTS + part
                tokens = mine.batch(number).ids.sum().item()
                file.write(json.dumps([number, mine.ids(number), tokens]) + "\n")


def steps_done(logs: list[Path], first: int) -> int:
    """Up to which all packs are in the logs."""
    numbers = {number for log in logs for number, _, _ in entries(log)}
    step = first
    while all(step * PARTS + part in numbers for part in range(PARTS)):
        step += 1
    return step


def entries(log: Path) -> list[tuple[int, list[str], int]]:
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # the last may be cut short
    return [tuple(json.loads(line)) for line in lines]


@pytest.mark.parametrize("many", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_stops_and_other_numbers_of_processes_change_nothing_that_is_read(tmp_path: Path, many: int) -> None:
    sizes = {"s0": 37, "s1": 150, "s2": 90}
    records = [record(n, 5 + n % 40, "text", source) for source, size in sizes.items() for n in range(size)]
    write_store(tmp_path / "store", records, MADE)
    store, steps = Store.open(tmp_path / "store", MADE), 4 * many
    mix = Mix({"a": Slot(3, {"text/s0": 1.0, "text/s1": 2.0}), "b": Slot(1, {"text/s2": 1.0})}, tokens=128, seed=1)
    unbroken = loader(tmp_path / "plan", store, mix, steps * PARTS)
    expected = {n: (unbroken.ids(n), unbroken.batch(n).ids.sum().item()) for n in range(steps * PARTS)}

    found: dict[int, tuple[list[str], int]] = {}
    rng, context, first = np.random.default_rng(0), multiprocessing.get_context("forkserver"), 0
    stops = killed = 0
    context.set_forkserver_preload(["mio.data.loader"])
    while first < steps:
        world, last = WORLDS[stops % 4], stops >= many
        logs = [tmp_path / f"run{stops}-{rank}" for rank in range(world)]
        ranks = [
            context.Process(target=read_as_rank, args=(tmp_path, log, rank, world, first))
            for rank, log in enumerate(logs)
        ]
        for process in ranks:
            process.start()
        target = steps if last else first + int(rng.integers(0, 6))
        while steps_done(logs, first) < target:
            time.sleep(0.005)
        for process in ranks:
            if not last:
                process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
        done = steps if last else min(steps_done(logs, first), first + 3)  # a state is some steps old
        for number, ids, tokens in (entry for log in logs for entry in entries(log)):
            assert found.setdefault(number, (ids, tokens)) == (ids, tokens)  # read again: the same
        first, stops = done, stops + 1
    assert stops == many + 1
    assert killed >= many  # the others were done already
    assert found == expected
    for source, size in sizes.items():
        order = [i for n in range(steps * PARTS) for i in found[n][0] if i.startswith(source)]
        assert len(order) > size or many < 50
        for start in range(0, len(order), size):
            epoch = order[start : start + size]
            assert len(set(epoch)) == len(epoch)  # none twice before all came once
