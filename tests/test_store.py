"""data/store.py: what is written is read, by the model it was written for and no other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.data.store import Column, Record, Store, write_store
from mio.sequence import TokenSequence
from mio.types import DataError, MissingError

MADE = "0123456789abcdef"


def record(number: int, length: int, task: str = "name", note: str = "") -> Record:
    rng = np.random.default_rng(number)
    return Record(
        TokenSequence(rng.integers(0, 300, length), rng.random(length) < 0.5), f"id{number}", task, note, "CC0"
    )


records = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["name", "draw"]), st.text()), max_size=8)


def test_a_store_holds_the_records_written(tmp_path: Path) -> None:
    @given(records)
    def check(drawn: list[tuple[int, str, str]]) -> None:
        written = [record(n, length, task, note) for n, (length, task, note) in enumerate(drawn)]
        write_store(tmp_path / "store", written, MADE)
        store = Store.open(tmp_path / "store", MADE)
        assert len(store) == len(written)
        assert_array_equal(store.lengths, [len(r.sequence) for r in written])
        for n, r in enumerate(written):
            assert_array_equal(store[n].ids, r.sequence.ids)
            assert_array_equal(store[n].loss, r.sequence.loss)
            about = {"id": r.id, "task": r.task, "source": r.source, "license": "CC0"}
            assert store.about(n) == about | {"hash": store.about(n)["hash"]}
        tasks = store.tasks()
        for label in ("{0.task}", "{0.task}/{0.source}"):
            names = [label.format(r) for r in written]
            held = {s: name for name in set(names) for s in tasks[name].tolist()}
            assert held == dict(enumerate(names))

    check()


def test_ids_as_large_as_any_vocabulary_are_kept(tmp_path: Path) -> None:
    ids = np.array([0, 76293, 2**31 - 1])
    write_store(tmp_path / "store", [Record(TokenSequence(ids, ids > 0), "x", "t")], MADE)
    sequence = Store.open(tmp_path / "store", MADE)[0]
    assert_array_equal(sequence.ids, ids)
    assert (sequence.ids.dtype, sequence.loss.dtype) == (np.int64, np.bool_)


def test_a_store_of_other_tokenizers_or_vocabulary_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [record(0, 5)], MADE)
    with pytest.raises(DataError, match=f"made with tokenizers and vocabulary {MADE}"):
        Store.open(tmp_path / "store", "f" * 16)


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"No config\.json"):
        Store.open(tmp_path / "none", MADE)


@pytest.mark.parametrize("before", [True, False])
def test_records_that_fail_midway_leave_nothing_new(tmp_path: Path, before: bool) -> None:
    def failing() -> Iterator[Record]:
        yield record(1, 5)
        raise RuntimeError("the second record")

    if before:
        write_store(tmp_path / "store", [record(0, 3), record(1, 4)], MADE)
    with pytest.raises(RuntimeError, match="the second record"):
        write_store(tmp_path / "store", failing(), MADE)
    assert os.listdir(tmp_path) == (["store"] if before else [])
    assert not before or Store.open(tmp_path / "store", MADE).lengths.tolist() == [3, 4]


def test_a_store_says_how_many_samples_it_has_and_with_which_fingerprint(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [record(0, 3), record(1, 4)], MADE)
    config = json.loads((tmp_path / "store" / "config.json").read_text())
    assert config == {"fingerprint": MADE, "samples": 2, "labels": [["name", ""]]}


def test_equal_sequences_have_equal_hashes(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [record(0, 5), record(1, 5), record(0, 5, "draw")], MADE)
    hashes = [Store.open(tmp_path / "store", MADE).about(n)["hash"] for n in range(3)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_spans_are_stretches_laid_end_to_end(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [record(n, 40) for n in range(6)], MADE)
    store, rng = Store.open(tmp_path / "store", MADE), np.random.default_rng(0)
    whole = store.spans(np.array([0]), np.array([240]))
    for _ in range(20):
        starts = rng.integers(0, 200, 5)
        stops = starts + rng.integers(0, 40, 5)
        found = store.spans(starts, stops)
        where = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
        assert_array_equal(found.ids, whole.ids[where])
        assert_array_equal(found.loss, whole.loss[where])


def test_a_store_that_is_cut_short_says_so(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [record(n, 40) for n in range(2)], MADE)
    os.truncate(tmp_path / "store" / "ids.bin", 300)
    store = Store.open(tmp_path / "store", MADE)
    assert len(store[0]) == 40
    with pytest.raises(DataError, match="cut short"):
        store[1]


def test_columns_are_sliced_as_arrays_are(tmp_path: Path) -> None:
    np.arange(10, dtype=np.uint32).tofile(tmp_path / "numbers")
    column = Column(tmp_path / "numbers", np.uint32)
    for span in (slice(2, 5), slice(None), slice(8, 99), slice(5, 5), slice(7, 3), slice(-3, None)):
        assert_array_equal(column[span], np.arange(10)[span])


def test_an_older_store_is_read_as_well(tmp_path: Path) -> None:
    """Without an index, and with its loss masks in a file of their own."""
    write_store(tmp_path / "store", [record(n, 5, ("name", "draw")[n % 2]) for n in range(4)], MADE)
    new = Store.open(tmp_path / "store", MADE)
    (tmp_path / "store" / "config.json").write_text(json.dumps({"fingerprint": MADE, "samples": 4}))
    (tmp_path / "store" / "labels.npy").unlink()
    (tmp_path / "store" / "lines.npy").unlink()
    np.concatenate([new[n].ids for n in range(4)]).astype(np.uint32).tofile(tmp_path / "store" / "ids.bin")
    np.concatenate([new[n].loss for n in range(4)]).tofile(tmp_path / "store" / "loss.bin")
    kept = [(new[n].ids.tolist(), new[n].loss.tolist()) for n in range(4)]
    old = Store.open(tmp_path / "store", MADE)
    assert [(old[n].ids.tolist(), old[n].loss.tolist()) for n in range(4)] == kept
    assert [old.about(n) for n in range(4)] == [new.about(n) for n in range(4)]
    assert {k: v.tolist() for k, v in old.tasks().items()} == {k: v.tolist() for k, v in new.tasks().items()}
