"""One epoch over the same samples: our step, a dense mask, a stock model sample by sample, the same on packs told apart
by their positions (as TRL packs), and Hugging Face's Trainer, padded and grouped by length.

    python benchmarks/train.py [--models 11 31] [--samples 24] [--rounds 1] [--threads 2] [--bf16]

Same weights, samples, optimizer and clipping on every side; lengths follow MIO's mixture (benchmarks/packing.py).
Speed counts real tokens. The share is that of the machine's rate for one large linear layer forward and backward,
measured before and after. Needs `transformers` and `accelerate`; writes nothing but a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from generate import twin
from packing import KINDS, PACK
from torch import Tensor, nn

from mio.data.loader import collate
from mio.layers import Batch, dense_attention, fast_bf16, segment_attention
from mio.models import backbone as backbone_module
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim, adamw

MODELS = {
    "11": BackboneConfig(16384, 6, 320, 5, 5, 64, 864, 10_000.0, 1e-5, PACK, tied=True),
    "31": BackboneConfig(16384, 7, 512, 8, 8, 64, 1376, 10_000.0, 1e-5, PACK, tied=True),
}
PADDED_BATCH = 8  # samples of a Trainer's step
CLIP = 1.0


@dataclass(frozen=True)
class Bench:
    c: BackboneConfig
    samples: list[TokenSequence]
    bf16: bool

    @property
    def tokens(self) -> int:
        return sum(map(len, self.samples))

    @property
    def operations(self) -> float:
        """Of one epoch: 6 for every weight and token, and attention inside samples, of which causality asks half."""
        weights = sum(p.numel() for p in Backbone(self.c).parameters())
        attention = sum(len(s) ** 2 for s in self.samples) * 6 * self.c.heads * self.c.head_dim * self.c.layers
        return 6.0 * weights * self.tokens + attention

    def packs(self) -> list[Batch]:
        """First fit, longest first: every sample once."""
        packs: list[list[TokenSequence]] = []
        for sample in sorted(self.samples, key=len, reverse=True):
            home = next((p for p in packs if sum(map(len, p)) + len(sample) <= PACK), None)
            if home is None:
                packs.append(home := [])
            home.append(sample)
        return [collate(pack, np.zeros(self.c.vocabulary, np.int64)) for pack in packs]


Epoch = Callable[[Bench], float]  # seconds


def draw(c: BackboneConfig, count: int, bf16: bool) -> Bench:
    """The mixture's lengths at the middles of even parts of their distribution, so that few samples carry it whole."""
    shares = [(low, high, round(share * count)) for share, low, high in KINDS]
    middles = [low + (high - low) * (np.arange(n) + 0.5) / n for low, high, n in shares if n]
    lengths = np.concatenate(middles).astype(int)
    rng = np.random.default_rng(0)
    return Bench(c, [TokenSequence(rng.integers(0, c.vocabulary, n), np.ones(n, bool)) for n in lengths], bf16)


def own(bench: Bench, dense: bool = False) -> float:
    torch.manual_seed(0)
    model = Backbone(bench.c)
    learning, packs = adamw(model, Optim()), bench.packs()
    backbone_module.segment_attention = dense_attention if dense else segment_attention
    begun = time.perf_counter()
    for batch in packs:
        step(model, learning, batch, bench.bf16)
    return time.perf_counter() - begun


def step(model: Backbone, learning: torch.optim.Optimizer, batch: Batch, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = next_token_loss(model, batch, ("text",))
    learning.zero_grad(set_to_none=True)
    (losses["loss"] / losses["weight"]).backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    learning.step()


def stock(bench: Bench, apart: bool) -> float:
    """A stock model in a plain loop, a step for every pack: its samples one by one, or (`apart`) the pack at once,
    told apart by positions that begin again, without a mask and a cache: the way of TRL's packing."""
    model = hugging_face(bench.c).train()
    learning, packs = adamw(model, Optim()), bench.packs()
    begun = time.perf_counter()
    for batch in packs:
        learning.zero_grad(set_to_none=True)
        parts = [slice(None)] if apart else spans(batch.segments.lengths)
        for part in parts:
            ids, positions = batch.ids[None, part], batch.positions[None, part]
            labels = torch.where(positions == 0, -100, ids)  # nothing predicts a first id
            with torch.autocast("cpu", torch.bfloat16, enabled=bench.bf16):
                loss = model(ids, position_ids=positions, labels=labels, use_cache=False).loss
            (loss * (labels != -100).sum() / len(batch.where)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        learning.step()
    return time.perf_counter() - begun


def spans(lengths: Sequence[int]) -> list[slice]:
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def trainer(bench: Bench, strategy: str) -> float:
    """transformers.Trainer with batches padded to their longest sample."""
    transformers = importlib.import_module("transformers")
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=PADDED_BATCH,
            num_train_epochs=1,
            train_sampling_strategy=strategy,
            max_grad_norm=CLIP,
            learning_rate=Optim().lr,
            weight_decay=Optim().weight_decay,
            use_cpu=True,
            bf16=bench.bf16,
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        data = [{"input_ids": torch.from_numpy(s.ids), "length": len(s)} for s in bench.samples]
        engine = transformers.Trainer(hugging_face(bench.c), arguments, data_collator=padded, train_dataset=data)
        engine.remove_callback(transformers.PrinterCallback)
        return float(engine.train().metrics["train_runtime"])


def hugging_face(c: BackboneConfig) -> nn.Module:
    """Stock Llama with the weights that our side starts from."""
    torch.manual_seed(0)
    model: nn.Module = twin(Backbone(c), torch.float32).train()
    model.config.use_cache = False  # type: ignore[union-attr]
    return model


def padded(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    ids = [s["input_ids"] for s in samples]
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    mask = pad([torch.ones_like(i) for i in ids])
    return {"input_ids": pad(ids), "attention_mask": mask, "labels": pad(ids, padding_value=-100)}


SIDES: dict[str, Epoch] = {
    "ours": own,
    "dense mask": partial(own, dense=True),
    "stock model, sample by sample": partial(stock, apart=False),
    "stock model, packs by position": partial(stock, apart=True),
    "Trainer, grouped by length": partial(trainer, strategy="group_by_length"),
    "Trainer, padded": partial(trainer, strategy="random"),
}


def gemm_rate(width: int, bf16: bool) -> float:
    """Operations a second of a linear layer forward and backward: best of five, the machine's limit."""
    x, w = torch.randn(PACK, width, requires_grad=True), torch.randn(4 * width, width, requires_grad=True)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = F.linear(x, w)
        torch.autograd.grad(out, (x, w), out.detach())
        seconds.append(time.perf_counter() - begun)
    return 6 * x.numel() * len(w) / min(seconds)


def compare(bench: Bench, rounds: int) -> list[dict[str, object]]:
    """Sides take turns; medians over rounds. A first epoch over the shortest samples warms every side up."""
    short = replace(bench, samples=sorted(bench.samples, key=len)[:PADDED_BATCH])
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    rates = [gemm_rate(bench.c.width, bench.bf16)]
    for side in SIDES.values():
        side(short)
    for _ in range(rounds):
        for name, side in SIDES.items():
            seconds[name].append(side(bench))
    rates.append(gemm_rate(bench.c.width, bench.bf16))
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    return [
        {
            "side": name,
            "tokens_per_s": round(bench.tokens / medians[name]),
            "share": round(bench.operations / medians[name] / max(rates), 2),
            "ours_over_it": round(medians[name] / medians["ours"], 2),
            "gemm_gflops": [round(rate / 1e9) for rate in rates],
        }
        for name in SIDES
    ]


def processor() -> str:
    """As Linux names it, else as Python does."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    bf16 = "has bf16 instructions" if fast_bf16(torch.device("cpu")) else "only emulates bf16"
    print(f"{processor()}, which {bf16}; torch {torch.__version__}, transformers {version('transformers')}")
    print(f"{arguments.threads} threads, {'bf16' if arguments.bf16 else 'fp32'}, {arguments.rounds} rounds")
    for name in arguments.models:
        bench = draw(MODELS[name], arguments.samples, arguments.bf16)
        print(f"\n{name} M parameters, {len(bench.samples)} samples, {bench.tokens} tokens, {len(bench.packs())} packs")
        print("| side | tokens/s | of GEMM | ours is |\n| --- | --- | --- | --- |")
        rows = compare(bench, arguments.rounds)
        for row in rows:
            print(f"| {row['side']} | {row['tokens_per_s']} | {row['share']:.0%} | x{row['ours_over_it']} |")
        print(json.dumps({"model": name, "rows": rows}))


if __name__ == "__main__":
    main()
