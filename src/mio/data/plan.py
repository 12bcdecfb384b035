"""The packs of a training stage, planned once and kept: what a step reads depends on its number alone.

A plan is a folder: numbers.bin (what every pack holds, one after the other), offsets.npy, extra.npy and config.json.
Opening one costs the same at any step, and any number of processes may read it.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mio.checkpoint import commit, read_json, write_json
from mio.config import to_dict
from mio.data.packing import Draw, best_fit, cuts, in_turns, mixture, pieces
from mio.data.store import Column, Store, mapped

Long = Literal["drop", "split"]


@dataclass(frozen=True)
class Slot:
    """A kind of data: how many packs of every turn hold it, and the share of their tokens that each "task" or
    "task/source" has. `long`: what becomes of samples that fit no pack or not the model's window. "drop" leaves them
    out; "split" cuts them, never inside a picture or an utterance, and carries the rest into other packs, as documents
    may be, but neither pairs nor conversations; what has no such place is left out. Both are counted."""

    count: int
    shares: dict[str, float]
    long: Long = "drop"


@dataclass(frozen=True)
class Mix:
    """What packs of `tokens` are made of, for a model whose window is `longest`."""

    slots: Mapping[str, Slot]
    tokens: int
    seed: int = 0
    longest: int | None = None

    @property
    def most(self) -> int:
        """Tokens of the longest sample that stays whole."""
        return min(self.tokens, self.longest or self.tokens)

    @property
    def turn(self) -> dict[str, int]:
        """Packs of every kind in a turn (MIO's per-device batch of 16: 12 pairs, 2 texts, ...)."""
        return {name: slot.count for name, slot in self.slots.items() if slot.count}


@dataclass(frozen=True)
class Plan:
    """numbers (draws,) uint32 of samples, or from len(store) on of rows of `extra`; offsets (packs + 1,); extra (n, 3):
    a sample, and where its piece begins and ends. `left_out`, `split`: long samples by "task/source"."""

    numbers: Column
    offsets: NDArray[np.int64]
    extra: NDArray[np.int64]
    left_out: dict[str, int]
    split: dict[str, int]

    @staticmethod
    def open(folder: Path) -> Plan:
        config = read_json(folder / "config.json")
        numbers, extra = Column(folder / "numbers.bin", np.uint32), mapped(folder / "extra.npy")
        return Plan(numbers, mapped(folder / "offsets.npy"), extra, config["left_out"], config["split"])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, pack: int) -> NDArray[np.int64]:
        """Numbers of what a pack holds."""
        return self.numbers[int(self.offsets[pack]) : int(self.offsets[pack + 1])].astype(np.int64)

    def samples(self, numbers: NDArray[np.int64], store: Store) -> NDArray[np.int64]:
        """The sample of every number."""
        over = numbers >= len(store)
        out = numbers.copy()
        out[over] = self.extra[numbers[over] - len(store), 0]
        return out

    def spans(self, numbers: NDArray[np.int64], store: Store) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in the store every number's tokens begin and end."""
        samples = self.samples(numbers, store)
        starts, stops = store.offsets[samples], store.offsets[samples + 1]
        over = numbers >= len(store)
        stops[over] = starts[over] + self.extra[numbers[over] - len(store), 2]
        starts[over] += self.extra[numbers[over] - len(store), 1]
        return starts, stops


def write_plan(folder: Path, store: Store, mix: Mix, kinds: NDArray[np.int64], packs: int) -> None:
    """Plan `packs` packs, unless the folder holds this very plan already. A longer plan begins as a shorter one.

    `kinds` (vocabulary,): kind of every id, 0 for text and control ids."""
    key = hashlib.sha256(json.dumps([to_dict(mix), packs, store.digest], sort_keys=True).encode()).hexdigest()[:16]
    if (folder / "config.json").is_file() and read_json(folder / "config.json")["key"] == key:
        return
    long = _Long.of(store, mix, kinds)

    def write(staging: Path) -> None:
        offsets = array("q", [0])
        with (staging / "numbers.bin").open("wb") as file:
            for pack in islice(_packs(store, mix, long), packs):
                file.write(np.array([draw.number for draw in pack], np.uint32).tobytes())
                offsets.append(offsets[-1] + len(pack))
        np.save(staging / "offsets.npy", np.array(offsets, np.int64))
        np.save(staging / "extra.npy", long.extra)
        write_json(staging / "config.json", {"key": key, "left_out": long.count(False), "split": long.count(True)})

    commit(folder, write)


def _packs(store: Store, mix: Mix, long: _Long) -> Iterator[list[Draw]]:
    lengths = np.concatenate([store.lengths, long.extra[:, 2] - long.extra[:, 1]])
    tasks = store.tasks()

    def stream(slot: Slot) -> Iterator[list[Draw]]:
        gone = [n for n, rows in long.split.items() if slot.long == "drop" or not rows]
        groups = {name: numbers[~np.isin(numbers, gone)] for name, numbers in tasks.items()}
        drawn = mixture(groups, store.lengths, slot.shares, mix.seed)
        return best_fit(pieces(drawn, long.split), lengths, mix.tokens)

    return in_turns({name: stream(mix.slots[name]) for name in mix.turn}, mix.turn)


@dataclass(frozen=True)
class _Long:
    """Samples that are too long: the numbers of their pieces, none where they are left out; and those pieces."""

    split: dict[int, range]
    extra: NDArray[np.int64]  # (pieces, 3): sample, start, stop
    labels: dict[int, str]  # "task/source" of each

    @staticmethod
    def of(store: Store, mix: Mix, kinds: NDArray[np.int64]) -> _Long:
        split, extra, labels = dict[int, range](), list[tuple[int, int, int]](), dict[int, str]()
        slots = [mix.slots[name] for name in mix.turn]
        used = _samples(store, slots)
        cut = set(_samples(store, [slot for slot in slots if slot.long == "split"]).tolist())
        for sample in used[store.lengths[used] > mix.most].tolist():
            coded = kinds[store[sample].ids] != 0
            inside = coded | np.concatenate([[False], coded[:-1]])  # an end token belongs to its span
            stretches = cuts(inside, mix.most) if sample in cut else []
            begin = len(store) + len(extra)
            split[sample] = range(begin, begin + len(stretches))
            extra += [(sample, start, stop) for start, stop in stretches]
            labels[sample] = "/".join(store.index.names[store.index.labels[sample]])
        return _Long(split, np.array(extra, np.int64).reshape(-1, 3), labels)

    def count(self, kept: bool) -> dict[str, int]:
        return dict(Counter(self.labels[n] for n, rows in self.split.items() if bool(rows) == kept))


def _samples(store: Store, slots: Sequence[Slot]) -> NDArray[np.int64]:
    """Numbers of the samples that slots name."""
    tasks = store.tasks()
    named = [tasks[name] for slot in slots for name, share in slot.shares.items() if share and name in tasks]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *named]))
