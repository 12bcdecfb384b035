"""Training speed with attention inside samples against a dense block-diagonal mask: same model, same packs, one run.

    python benchmarks/packing.py [--steps 5] [--threads 2]

Lengths follow MIO's mixture: image-text 50-80, text 200-800, interleaved 300-1,500, speech 750-2,800 tokens, packed
to 2,816 by best fit. Steps of the two kinds alternate, so that a busy machine slows both. Prints a table and JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from mio.data.loader import collate
from mio.data.packing import Draw, best_fit, fill
from mio.layers import Batch, dense_attention, segment_attention
from mio.models import backbone as backbone_module
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train.optim import Optim, adamw

PACK = 2816
KINDS = ((0.50, 50, 80), (0.29, 200, 800), (0.13, 300, 1500), (0.08, 750, 2800))  # share of samples, lengths
MODEL = BackboneConfig(16384, 6, 320, 5, 5, 64, 864, 10_000.0, 1e-5, PACK, tied=True)


def packs(count: int, seed: int = 0) -> tuple[list[Batch], float]:
    """Batches of one pack each, and the share of their room that is filled."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(len(KINDS), 4000, p=[k[0] for k in KINDS])
    lengths = np.array([int(rng.integers(KINDS[k][1], KINDS[k][2] + 1)) for k in kinds])
    draws = (Draw(sample, "all", 0) for sample in rng.permutation(len(lengths)).tolist())
    plan = list(islice(best_fit(draws, lengths, PACK), count))
    of = np.zeros(MODEL.vocabulary, np.int64)
    batches = [collate([_sample(int(lengths[draw.number]), rng) for draw in pack], of) for pack in plan]
    return batches, fill(plan, lengths, PACK)


def _sample(length: int, rng: np.random.Generator) -> TokenSequence:
    return TokenSequence(rng.integers(0, MODEL.vocabulary, length), np.ones(length, bool))


def hidden(model: Backbone, batch: Batch, dense: bool) -> torch.Tensor:
    backbone_module.segment_attention = dense_attention if dense else segment_attention
    return model(batch.ids, batch.positions, batch.segments)


def step(model: Backbone, optimizer: torch.optim.Optimizer, batch: Batch, dense: bool, bf16: bool) -> float:
    """One optimizer step; returns real tokens per second."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model.logits(hidden(model, batch, dense)[batch.where])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch.targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return len(batch.ids) / (time.perf_counter() - start)


def runs(steps: int, bf16: bool) -> Iterator[dict[str, object]]:
    torch.manual_seed(0)
    model = Backbone(MODEL)
    optimizer = adamw(model, Optim())
    batches, _ = packs(steps + 1)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    for number, batch in enumerate(batches):
        for dense in (False, True):
            speed = step(model, optimizer, batch, dense, bf16)
            if number:  # the first warms up
                speeds[dense].append(speed)
    medians = {d: statistics.median(s) for d, s in speeds.items()}
    gain = statistics.median(own / dense for own, dense in zip(speeds[False], speeds[True], strict=True))
    for dense, name in ((False, "per sample"), (True, "dense mask")):
        low, high = min(speeds[dense]), max(speeds[dense])
        yield {
            "dtype": "bf16" if bf16 else "fp32",
            "attention": name,
            "tokens_per_s": round(medians[dense]),
            "range": [round(low), round(high)],
            "ratio": 1.0 if dense else round(gain, 2),  # median over packs, each timed both ways
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    parameters = sum(p.numel() for p in Backbone(MODEL).parameters())
    print(f"{parameters / 1e6:.1f} M parameters, packs of {PACK} filled {packs(20)[1]:.1%}")
    print(f"{arguments.threads} threads, torch {torch.__version__}, {platform.processor() or platform.machine()}\n")
    rows = [row for bf16 in (True, False) for row in runs(arguments.steps, bf16)]
    for row in rows:
        print(
            f"{row['dtype']:5} {row['attention']:11} {row['tokens_per_s']:>6} tokens/s {row['range']}  x{row['ratio']}"
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
