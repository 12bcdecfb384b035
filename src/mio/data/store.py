"""Pre-tokenized samples on disk: flat integer arrays and an index, memory-mapped, tied to what made them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.checkpoint import commit, read_json, require, write_json
from mio.sequence import TokenSequence


@dataclass(frozen=True)
class Record:
    """A rendered sample: its ids and loss mask, and where it came from."""

    sequence: TokenSequence
    id: str
    task: str
    source: str = ""
    license: str = ""


def write_store(folder: Path, records: Iterable[Record], fingerprint: str) -> None:
    """Write all records, or nothing."""

    def write(staging: Path) -> None:
        lengths: list[int] = []
        with (
            (staging / "ids.bin").open("wb") as ids,
            (staging / "loss.bin").open("wb") as loss,
            (staging / "samples.jsonl").open("w", encoding="utf-8") as samples,
        ):
            for record in records:
                ids.write(record.sequence.ids.astype(np.uint32).tobytes())
                loss.write(record.sequence.loss.astype(np.uint8).tobytes())
                lengths.append(len(record.sequence))
                line = {"id": record.id, "task": record.task, "source": record.source, "license": record.license}
                samples.write(json.dumps(line, ensure_ascii=False) + "\n")
        np.save(staging / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        write_json(staging / "config.json", {"fingerprint": fingerprint, "samples": len(lengths)})

    commit(folder, write)


@dataclass(frozen=True)
class Store:
    """ids (tokens,) uint32, loss (tokens,) uint8, offsets (samples + 1,), and a dictionary per sample."""

    ids: NDArray[np.uint32]
    loss: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    samples: list[dict[str, Any]]

    @staticmethod
    def open(folder: Path, fingerprint: str) -> Store:
        """Memory-map a store.

        Raises:
            DataError: it was written with another fingerprint. MissingError: there is none.
        """
        config = read_json(folder / "config.json")
        require(config["fingerprint"], fingerprint, str(folder), "Prepare it again: mio data prepare.")
        lines = (folder / "samples.jsonl").read_text(encoding="utf-8").split("\n")
        return Store(
            _mapped(folder / "ids.bin", np.uint32),
            _mapped(folder / "loss.bin", np.uint8),
            np.load(folder / "offsets.npy", allow_pickle=False),
            [json.loads(line) for line in lines if line],
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> TokenSequence:
        span = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        return TokenSequence(self.ids[span].astype(np.int64), self.loss[span].astype(bool))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def tasks(self) -> dict[str, NDArray[np.int64]]:
        """Numbers of the samples of every task, and of every "task/source"."""
        groups: dict[str, list[int]] = defaultdict(list)
        for number, sample in enumerate(self.samples):
            groups[sample["task"]].append(number)
            groups[f"{sample['task']}/{sample['source']}"].append(number)
        return {name: np.array(numbers) for name, numbers in groups.items()}


def _mapped(path: Path, kind: type[Any]) -> NDArray[Any]:
    """A file as an array; an empty one cannot be mapped."""
    return np.memmap(path, kind, "r") if path.stat().st_size else np.empty(0, kind)
