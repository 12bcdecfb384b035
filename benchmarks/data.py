"""Reading a token store that lies in the page cache, beside WebDataset and `datasets`: tokens per second, and memory.

    python benchmarks/data.py [--samples 1000000] [--mean 60] [--packs 20000] [--peers 20000] [--trainer]

Fabricates a store of short samples (pairs of a picture and a caption), plans packs of 2,800 tokens, and reads them in
three ways: as the store gives them, as batches of tensors, and one sample after the other. `--peers`: how many of the
samples WebDataset (tars of .npy) and `datasets` (parquet, streamed) read one after the other, too. `--trainer`: also a
few steps of the shipped model's shape, to compare the loader with. Speeds are per second of this process's own time and
of the clock; take them on a quiet machine. Needs Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mio.checkpoint import commit, write_json
from mio.data.loader import Loader
from mio.data.plan import Mix, Plan, Slot, write_plan
from mio.data.store import Store
from mio.models.backbone import Backbone
from mio.recipes.tiny import BACKBONE
from mio.train.objectives import next_token_loss

MADE, WINDOW, VOCABULARY = "0123456789abcdef", 2800, 76294


def fabricate(folder: Path, samples: int, mean: int) -> None:
    """A store without anything known of its samples, written array by array."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(mean // 2, mean + mean // 2 + 1, samples)

    def write(staging: Path) -> None:
        with (staging / "ids.bin").open("wb") as ids:
            for some in np.array_split(lengths, max(1, samples // 100_000)):
                total = int(some.sum())
                ids.write((rng.integers(0, VOCABULARY, total, dtype=np.uint32) | 1 << 31).tobytes())
        np.save(staging / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
        np.save(staging / "labels.npy", np.zeros(samples, np.int32))
        np.save(staging / "lines.npy", np.zeros(samples + 1, np.int64))
        (staging / "samples.jsonl").touch()
        write_json(staging / "config.json", {"fingerprint": MADE, "samples": samples, "labels": [["pairs", "made"]]})

    commit(folder, write)


def resident() -> int:
    """Bytes in memory now, pages of mapped files among them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@dataclass(frozen=True)
class Pass:
    what: str
    tokens: int
    own: float  # seconds of this process
    clock: float
    growth: int  # bytes of memory, at most

    def row(self) -> dict[str, object]:
        return {
            "what": self.what,
            "tokens": self.tokens,
            "million tokens per own second": round(self.tokens / self.own / 1e6, 1),
            "million tokens per second": round(self.tokens / self.clock / 1e6, 1),
            "memory grew by MB": round(self.growth / 1e6, 1),
        }


def measure(what: str, reads: Iterator[int]) -> Pass:
    """Of tokens read at a time."""
    before, most, tokens = resident(), 0, 0
    own, clock = time.process_time(), time.perf_counter()
    for number, count in enumerate(reads):
        tokens += count
        if number % 2000 == 0:
            most = max(most, resident() - before)
    own, clock = time.process_time() - own, time.perf_counter() - clock
    return Pass(what, tokens, own, clock, max(most, resident() - before))


def passes(loader: Loader) -> Iterator[Pass]:
    store, plan = loader.store, loader.plan
    for start in range(0, len(store.ids), 2**16):  # into the page cache
        _ = store.ids[start : start + 2**16]
    yield measure("packs of the store", (len(store.spans(*plan.spans(plan[n], store))) for n in range(len(plan))))
    yield measure("batches of tensors", (len(loader.batch(n).ids) for n in range(len(plan))))
    yield measure("sample after sample", (len(store[n]) for n in range(len(store))))


SHARD = 5000  # samples of a peer's file


def write_tars(store: Store, folder: Path, count: int) -> list[str]:
    """Samples as WebDataset has them: a tar's member each."""
    for start in range(0, count, SHARD):
        with tarfile.open(folder / f"{start:09}.tar", "w") as tar:
            for number in range(start, min(start + SHARD, count)):
                buffer = io.BytesIO()
                np.save(buffer, store[number].ids.astype(np.uint32))
                member = tarfile.TarInfo(f"{number:09}.npy")
                member.size = buffer.tell()
                tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def write_parquet(store: Store, folder: Path, count: int) -> list[str]:
    import pyarrow
    from pyarrow.parquet import write_table

    for start in range(0, count, SHARD):
        ids = [store[n].ids.astype(np.uint32) for n in range(start, min(start + SHARD, count))]
        write_table(pyarrow.table({"ids": ids}), folder / f"{start:09}.parquet")
    return [str(path) for path in sorted(folder.glob("*.parquet"))]


def peers(store: Store, folder: Path, count: int) -> Iterator[Pass]:
    """The same samples in the same order, each as an array."""
    import datasets
    import webdataset

    tars, tables = write_tars(store, folder, count), write_parquet(store, folder, count)
    ours = (len(store[n]) for n in range(count))
    yield measure(f"mio, {count:,} samples", ours)
    tar = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode().to_tuple("npy")
    yield measure("WebDataset", (len(ids) for (ids,) in tar))
    stream = datasets.load_dataset("parquet", data_files=tables, split="train", streaming=True).with_format("numpy")
    yield measure("datasets, streamed", (len(row["ids"]) for row in stream))


def trained(loader: Loader, steps: int = 3) -> Pass:
    """Forward and backward of the shipped model's shape on the loader's batches."""
    torch.set_float32_matmul_precision("medium")
    model = Backbone(BACKBONE)
    rows = model.config.vocabulary

    def step(number: int) -> int:
        batch = loader.batch(number)
        batch.ids.remainder_(rows)
        batch.targets.remainder_(rows)
        next_token_loss(model, batch, ("text",), {})["loss"].backward()
        return len(batch.ids)

    step(0)  # warms up
    return measure("steps of training", map(step, range(1, steps + 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--mean", type=int, default=60)
    parser.add_argument("--packs", type=int, default=20_000)
    parser.add_argument("--peers", type=int, default=0)
    parser.add_argument("--trainer", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        fabricate(folder / "store", arguments.samples, arguments.mean)
        store, mix = Store.open(folder / "store", MADE), Mix({"pairs": Slot(1, {"pairs": 1.0})}, WINDOW)
        kinds = np.zeros(VOCABULARY, np.int64)
        begun = time.process_time()
        write_plan(folder / "plan", store, mix, kinds, arguments.packs)
        seconds, plan = time.process_time() - begun, Plan.open(folder / "plan")
        print(f"planned {len(plan.numbers):,} samples, {len(plan.numbers) / seconds:,.0f} per own second")
        fill = int(store.lengths[plan.numbers[:].astype(np.int64)].sum()) / (len(plan) * WINDOW)
        print(f"packs are {fill:.1%} full")
        loader = Loader(store, plan, kinds)
        rows = [found.row() for found in passes(loader)]
        rows += [found.row() for found in peers(store, folder, arguments.peers)] if arguments.peers else []
        rows += [trained(loader).row()] if arguments.trainer else []
    for row in rows:
        print(", ".join(f"{name}: {value}" for name, value in row.items()))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
