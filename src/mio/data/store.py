"""Pre-tokenized samples on disk: flat integer arrays and an index, tied to what made them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.checkpoint import commit, read_json, require, write_json
from mio.sequence import TokenSequence
from mio.types import DataError

Label = tuple[str, str]  # task, source
Places = NDArray[np.int64]  # where stretches begin, or end
TRAINED = 31  # the bit of a stored id that says whether it is trained


@dataclass(frozen=True)
class Record:
    """A rendered sample: its ids and loss mask, and where it came from."""

    sequence: TokenSequence
    id: str
    task: str
    source: str = ""
    license: str = ""

    def about(self) -> dict[str, str]:
        """What is kept beside the ids; equal sequences have equal hashes."""
        digest = hashlib.blake2b(self.sequence.ids.tobytes(), digest_size=8)
        digest.update(self.sequence.loss.tobytes())
        names = {"id": self.id, "task": self.task, "source": self.source, "license": self.license}
        return names | {"hash": digest.hexdigest()}


def write_store(
    folder: Path, records: Iterable[Record], fingerprint: str, beside: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write all records, or nothing. `beside`: other things to keep with them, as JSON by file name."""

    def write(staging: Path) -> None:
        lengths: list[int] = []
        with (
            (staging / "ids.bin").open("wb") as ids,
            (staging / "samples.jsonl").open("w", encoding="utf-8") as samples,
        ):
            for record in records:
                trained = record.sequence.loss.astype(np.uint32) << TRAINED
                ids.write((record.sequence.ids.astype(np.uint32) | trained).tobytes())
                lengths.append(len(record.sequence))
                samples.write(json.dumps(record.about(), ensure_ascii=False) + "\n")
        for name, value in beside.items():
            write_json(staging / name, value)
        _finish(staging, np.array(lengths, np.int64), fingerprint)

    commit(folder, write)


def join_stores(
    folder: Path, parts: Sequence[Path], fingerprint: str, beside: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """One store of all samples of several, in their order. `beside`: as in `write_store`."""

    def write(staging: Path) -> None:
        for name in ("ids.bin", "samples.jsonl"):
            with (staging / name).open("wb") as whole:
                for part in parts:
                    with (part / name).open("rb") as piece:
                        shutil.copyfileobj(piece, whole)
        for name, value in beside.items():
            write_json(staging / name, value)
        lengths = [np.diff(mapped(part / "offsets.npy")) for part in parts]
        _finish(staging, np.concatenate([np.zeros(0, np.int64), *lengths]), fingerprint)

    commit(folder, write)


def _finish(folder: Path, lengths: NDArray[np.int64], fingerprint: str) -> None:
    """Add the index to a folder that has the ids, the loss and the lines of its samples."""
    index = Index.of(folder / "samples.jsonl")
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(folder / "labels.npy", index.labels)
    np.save(folder / "lines.npy", index.lines)
    write_json(
        folder / "config.json", {"fingerprint": fingerprint, "samples": len(lengths), "labels": list(index.names)}
    )


@dataclass(frozen=True)
class Index:
    """Of samples.jsonl. labels: (samples,), each one's place in `names`; lines: (samples + 1,), where lines begin."""

    labels: NDArray[np.int32]
    lines: NDArray[np.int64]
    names: tuple[Label, ...]

    @staticmethod
    def of(path: Path) -> Index:
        names: dict[Label, int] = {}
        labels, lines = list[int](), [0]
        with path.open("rb") as file:
            for line in file:
                sample = json.loads(line)
                labels.append(names.setdefault((sample["task"], sample["source"]), len(names)))
                lines.append(lines[-1] + len(line))
        return Index(np.array(labels, np.int32), np.array(lines, np.int64), tuple(names))

    @staticmethod
    def open(folder: Path, config: Mapping[str, Any]) -> Index:
        if "labels" not in config:  # written before there was an index
            return Index.of(folder / "samples.jsonl")
        names = tuple((str(task), str(source)) for task, source in config["labels"])
        return Index(mapped(folder / "labels.npy"), mapped(folder / "lines.npy"), names)


class Column:
    """A file of numbers that is read where it is asked. Not mapped: pages of a map count as this process's memory, and
    a random pass over a large store maps all of it."""

    def __init__(self, path: Path, kind: type[Any]) -> None:
        self._file, self._kind = os.open(path, os.O_RDONLY), np.dtype(kind)
        weakref.finalize(self, os.close, self._file)
        self._length = os.fstat(self._file).st_size // self._kind.itemsize

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> NDArray[Any]:
        start, stop, _ = span.indices(self._length)
        return self.gather(np.array([start]), np.array([max(start, stop)]))

    def gather(self, starts: Places, stops: Places) -> NDArray[Any]:
        """Stretches laid end to end. Neighbours are read as one: a call to the system costs as much as copying 4 KB.

        Raises:
            DataError: the file ends before one does.
        """
        apart = starts[1:] != stops[:-1]
        ends = np.append(apart, True)[: len(stops)]
        firsts, lasts = starts[np.append(True, apart)[: len(starts)]], stops[ends]
        size = self._kind.itemsize
        counts, places = size * (lasts - firsts), size * firsts
        data = bytearray().join(map(os.pread, repeat(self._file), counts.tolist(), places.tolist()))
        if len(data) != counts.sum():
            raise DataError("The store is cut short.", fix="Make it again, or copy it again.")
        return np.frombuffer(data, self._kind)


@dataclass(frozen=True)
class Store:
    """ids (tokens,) uint32 with the loss mask as their highest bit, offsets (samples + 1,), and what is known of every
    sample. `loss` (tokens,) uint8: where a mask has a file of its own, as in older stores. `digest`: 16 hex digits over
    all that the store holds."""

    ids: Column
    loss: Column | None
    offsets: NDArray[np.int64]
    index: Index
    lines: Column
    digest: str

    @staticmethod
    def open(folder: Path, fingerprint: str) -> Store:
        """Open a store; nothing but its index comes into memory.

        Raises:
            DataError: it was written with another fingerprint. MissingError: there is none.
        """
        config = read_json(folder / "config.json")
        require(config["fingerprint"], fingerprint, str(folder), "Prepare it again: mio data prepare.")
        manifest = json.dumps(read_json(folder / "manifest.json"), sort_keys=True)
        return Store(
            Column(folder / "ids.bin", np.uint32),
            Column(folder / "loss.bin", np.uint8) if (folder / "loss.bin").is_file() else None,
            mapped(folder / "offsets.npy"),
            Index.open(folder, config),
            Column(folder / "samples.jsonl", np.uint8),
            hashlib.sha256(manifest.encode()).hexdigest()[:16],
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> TokenSequence:
        return self.spans(self.offsets[number : number + 1], self.offsets[number + 1 : number + 2])

    def spans(self, starts: Places, stops: Places) -> TokenSequence:
        """Stretches of the store's tokens, laid end to end."""
        ids = self.ids.gather(starts, stops)
        loss = self.loss.gather(starts, stops) if self.loss else ids >> TRAINED
        return TokenSequence((ids & (1 << TRAINED) - 1).astype(np.int64), loss.astype(np.bool_))

    def about(self, number: int) -> dict[str, Any]:
        """Id, task, source, licence and hash of a sample."""
        line = self.lines[int(self.index.lines[number]) : int(self.index.lines[number + 1])]
        return dict(json.loads(line.tobytes()))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def tasks(self) -> dict[str, NDArray[np.int64]]:
        """Numbers of the samples of every task, and of every "task/source"."""
        order = np.argsort(self.index.labels, kind="stable")
        bounds = np.searchsorted(self.index.labels[order], np.arange(len(self.index.names) + 1))
        groups: dict[str, list[NDArray[np.int64]]] = {}
        for label, (task, source) in enumerate(self.index.names):
            for name in (task, f"{task}/{source}"):
                groups.setdefault(name, []).append(order[bounds[label] : bounds[label + 1]])
        return {name: np.sort(np.concatenate(numbers)) for name, numbers in groups.items()}


def mapped(path: Path) -> NDArray[Any]:
    """An array that stays on disk; as a plain one, since numpy's own class for it is slow in small steps."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
