"""Training speed on one GPU: our step beside stock Llama on the same packs, and the share of the chip's peak reached.

    PYTHONPATH=src python benchmarks/gpu/train.py [--steps 8] [--packs 4] [--compile] [--toy]

First it checks that gradients are those of a dense mask; then sides take turns, and a table is printed. Lengths follow
MIO's mixture, packed to 2,800 tokens. Needs torch alone; `transformers` adds peers. `--toy`: a small model on any
device, to see that the script runs. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from mio.data.loader import collate
from mio.layers import Batch, dense_attention, segment_attention
from mio.models import backbone as backbone_module
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train import head
from mio.train.objectives import next_token_loss

PACK = 2800
KINDS = ((0.50, 50, 80), (0.29, 200, 800), (0.13, 300, 1500), (0.08, 750, 2800))  # share of samples, lengths
LARGE = BackboneConfig(76294, 16, 2048, 16, 4, 128, 5632, positions=PACK, tied=True)  # about 0.9 billion parameters
TOY = BackboneConfig(512, 2, 64, 4, 2, 16, 96, positions=PACK, tied=True)
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40": 181e12, "4090": 165e12}  # dense bf16, as sold
CLIP = 1.0

Loss = Callable[[nn.Module, Batch], Tensor]  # mean over a pack's targets


@dataclass(frozen=True)
class Side:
    name: str
    make: Callable[[BackboneConfig], nn.Module]
    loss: Loss


def packs(c: BackboneConfig, count: int, device: torch.device) -> list[Batch]:
    """Drawn samples, each into the first pack with room for it."""
    rng, full = np.random.default_rng(0), list[list[int]]()
    while sum(map(sum, full)) < 0.97 * count * PACK or len(full) > count:
        full = full[:count]
        _, low, high = KINDS[rng.choice(len(KINDS), p=[share for share, _, _ in KINDS])]
        length = int(rng.integers(low, high + 1))
        home = next((pack for pack in full if sum(pack) + length <= PACK), None)
        if home is None:
            full.append(home := [])
        home.append(length)
    return [moved(batch_of(c, pack, rng), device) for pack in full]


def batch_of(c: BackboneConfig, lengths: list[int], rng: np.random.Generator) -> Batch:
    samples = [TokenSequence(rng.integers(0, c.vocabulary, n), np.ones(n, bool)) for n in lengths]
    return collate(samples, np.zeros(c.vocabulary, np.int64))


def moved(batch: Batch, device: torch.device) -> Batch:
    fields = {name: getattr(batch, name).to(device) for name in ("ids", "positions", "where", "targets", "kinds")}
    return replace(batch, **fields)


def our_loss(model: nn.Module, batch: Batch) -> Tensor:
    found = next_token_loss(model, batch, ("text",))  # type: ignore[arg-type]
    return found["loss"] / found["weight"]


def stock(c: BackboneConfig, attention: str) -> nn.Module:
    transformers = import_module("transformers")
    config = transformers.LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.width,
        intermediate_size=c.hidden,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        max_position_embeddings=c.positions,
        tie_word_embeddings=c.tied,
        use_cache=False,
        attn_implementation=attention,
    )
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


def stock_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Packs told apart by positions that begin again, as Trainer's flattening collator and TRL's packing do."""
    labels = torch.where(batch.positions == 0, -100, batch.ids)[None]
    loss: Tensor = model(batch.ids[None], position_ids=batch.positions[None], labels=labels, use_cache=False).loss
    return loss


def compiled(c: BackboneConfig) -> nn.Module:
    model = Backbone(c)
    for layer in model.model.layers:
        layer.mlp = torch.compile(layer.mlp, dynamic=True)
    return model


def sides(with_compiled: bool) -> list[Side]:
    found = [Side("ours", Backbone, our_loss)]
    if with_compiled:
        found.append(Side("ours, MLPs compiled", compiled, our_loss))
    if find_spec("transformers"):
        kinds = ["sdpa", *(["flash_attention_2"] if find_spec("flash_attn") else [])]
        found += [Side(f"stock Llama, {kind}", partial(stock, attention=kind), stock_loss) for kind in kinds]
    return found


def step(model: nn.Module, learning: torch.optim.Optimizer, batches: list[Batch], loss: Loss) -> float:
    """One optimizer step over all packs in bf16; seconds."""
    device = batches[0].ids.device
    wait(device)
    begun = time.perf_counter()
    learning.zero_grad(set_to_none=True)
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(model, batch) / len(batches)
        value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    learning.step()
    wait(device)
    return time.perf_counter() - begun


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def check(device: torch.device) -> float:
    """The largest difference of a gradient to the dense mask's, over that gradient's largest entry, in fp32."""
    torch.manual_seed(0)
    model = Backbone(TOY).to(device)
    batch = moved(batch_of(TOY, [50, 64, 64, 700], np.random.default_rng(1)), device)
    found = []
    for attention in (segment_attention, dense_attention):
        backbone_module.segment_attention = attention
        model.zero_grad(set_to_none=True)
        our_loss(model, batch).backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    backbone_module.segment_attention = segment_attention
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))
    assert worst < 1e-3, f"gradients differ from a dense mask's by {worst:.1e}"
    return worst


def operations(c: BackboneConfig, weights: int, batches: list[Batch]) -> float:
    """Of one step: 6 for every weight and token; attention inside samples, of which causality asks half."""
    tokens = sum(len(b.ids) for b in batches)
    squares = sum(n * n for b in batches for n in b.segments.lengths)
    return 6.0 * weights * tokens + 6.0 * c.layers * c.heads * c.head_dim * squares


def measure(side: Side, c: BackboneConfig, batches: list[Batch], steps: int) -> dict[str, float | str]:
    """The first two steps are not counted."""
    torch.manual_seed(0)
    device = batches[0].ids.device
    model = side.make(c).to(device).train()
    learning = torch.optim.AdamW(model.parameters(), 3e-4, fused=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median([step(model, learning, batches, side.loss) for _ in range(steps + 2)][2:])
    weights = sum(p.numel() for p in model.parameters())
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    rate = operations(c, weights, batches) / seconds
    tokens = sum(len(b.ids) for b in batches)
    return {"side": side.name, "tokens_per_s": round(tokens / seconds), "tflops": rate / 1e12, "gigabytes": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--packs", type=int, default=4, help="of a step")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    peak = next((rate for chip, rate in PEAKS.items() if chip in name), None)
    c = TOY if arguments.toy else LARGE
    if device.type == "cuda":
        head.LOGITS = 1 << 27  # chunks of the head that fill the chip
    print(f"{name}, torch {torch.__version__}; gradients differ from a dense mask's by {check(device):.1e}")
    batches = packs(c, arguments.packs, device)
    rows = []
    for side in sides(arguments.compile):
        rows.append(measure(side, c, batches, arguments.steps))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    print("| side | tokens/s | TFLOP/s | of peak | GB | ours is |\n| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        share = f"{row['tflops'] * 1e12 / peak:.0%}" if peak else "-"
        speed = f"{row['tokens_per_s']} | {row['tflops']:.4g} | {share}"
        times = rows[0]["tokens_per_s"] / row["tokens_per_s"]
        print(f"| {row['side']} | {speed} | {row['gigabytes']:.1f} | x{times:.2f} |")
    print(json.dumps({"device": name, "rows": rows}))


if __name__ == "__main__":
    main()
