"""The engine on one GPU: first whether it writes the ids that it writes on the processor, then how fast, beside
transformers' `generate()` on the same weights, and where a step's time goes. Prints tables; a few minutes.

    python benchmarks/gpu/generate.py                              # 1.3B parameters in bf16
    python benchmarks/gpu/generate.py --layers 2 --width 64 --tokens 8 --rounds 1 --device cpu    # a rehearsal

Columns as in benchmarks/generate.py, of which this is the same with other cases. Needs transformers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from generate import PROMPT, Case, compare, ours, random_model, read_bytes, read_rate, timed, twin

from mio.decoding.sampling import GREEDY, BeamSearch, Sampling, choose
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.steps import Cache, Steps

CASES = (*(Case(f"batch {n}", n, GREEDY) for n in (1, 8, 64)), Case("beam 5", 1, BeamSearch()))
WAYS = {"greedy": GREEDY, "sampled": Sampling(top_p=0.9), "beams": BeamSearch()}


def check(device: str) -> None:
    """Ids of a small model in fp32, on the processor and on the device."""
    config = BackboneConfig(512, 2, 64, 4, 2, 16, 96, 10_000.0, positions=256, tied=True)
    on_cpu, there = random_model(config, torch.float32), random_model(config, torch.float32).to(device)
    for name, way in WAYS.items():
        mine, other = (ours(model, Case(name, 8, way), 32) for model in (on_cpu, there))
        same = sum(a == b for a, b in zip(mine, other, strict=True))
        print(f"{name}: {same} of {len(mine)} answers have the ids of the processor", flush=True)


@torch.inference_mode()
def where_it_goes(model: Backbone, batch: int, steps: int) -> None:
    """Milliseconds of the model and of the choices of a step, both to their end on the device."""
    device, config = model.lm_head.weight.device, model.config
    extend, held = Steps(model), Cache(config, batch, 256, model.lm_head.weight)
    ids, words = torch.zeros(batch, 1, dtype=torch.long, device=device), torch.arange(config.vocabulary, device=device)

    def run(step: int) -> Tensor:
        logits = model.logits(extend.extend(ids, torch.full_like(ids, PROMPT + step), held)[:, -1])
        logits[0, 0].item()
        return logits

    found = [timed(partial(run, step)) for step in range(steps + 3)][3:]
    logits, generator = found[-1][1], torch.Generator().manual_seed(0)
    chosen = [timed(lambda: [choose(row, words, GREEDY, generator) for row in logits])[0] for _ in range(steps)]
    model_ms, choice_ms = (1000 * statistics.median(taken) for taken in ([s for s, _ in found], chosen))
    print(f"| {batch} | {model_ms:.2f} | {choice_ms:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    parser.set_defaults(cases=CASES, read_rate=cache(partial(read_rate, device=arguments.device)))
    arguments = parser.parse_args()
    check(arguments.device)
    width, heads = arguments.width, max(arguments.width // 128, 2)
    head = width // heads
    config = BackboneConfig(76_294, arguments.layers, width, heads, heads // 2, head, 43 * width // 16, positions=512)
    with torch.device(arguments.device):
        model = random_model(config, torch.bfloat16)
    size, rate = sum(p.numel() for p in model.parameters()) / 1e6, arguments.read_rate(read_bytes(model)) / 1e9
    print(f"\n{size:.0f}M parameters on {arguments.device}, {rate:.0f} GB/s read, medians of {arguments.rounds}\n")
    compare({"bfloat16": model}, twin(model, torch.bfloat16), arguments)
    print("\n| answers | model, ms a step | choice, ms a step |\n|---|---|---|")
    for batch in (1, 8, 64):
        where_it_goes(model, batch, 20)


if __name__ == "__main__":
    main()
