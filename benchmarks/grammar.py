"""What the grammar costs in a step of 64 answers over MIO's 76,294 ids, beside the step itself: the model's layers and
logits, and the choice of an id.

    python benchmarks/grammar.py
    python benchmarks/grammar.py --layers 2 --width 64 --steps 3

The grammar's part is `allowed()` and `take()` of every answer; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import any_order
from mio.decoding.sampling import Sampling, choose
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.steps import Cache, Steps

ANSWERS, IDS, TEXT, STOP, SEEN = 64, 76_294, 64_000, 7, 256
IMAGE = SpanRule("image", 64_000, 64_001, np.arange(64_002, 72_194)[None], steps=32)
SPEECH = SpanRule("speech", 72_194, 72_195, np.arange(72_196, 76_292).reshape(4, 1024))
OPENING = {"text": (5,), "image": (IMAGE.begin,), "speech": (SPEECH.begin,)}
SAMPLING = Sampling(top_p=0.7)


def grammars(kind: str) -> list[Grammar]:
    """Answers in the middle of text or of a span."""
    limits = Limits(10_000, any_order({"image": (0, 99), "speech": (0, 99)}), 1000)
    found = [Grammar([IMAGE, SPEECH], np.arange(8, TEXT), STOP, limits) for _ in range(ANSWERS)]
    for grammar in found:
        for id in OPENING[kind]:
            grammar.take(id)
    return found


def grammar_seconds(kind: str, steps: int) -> float:
    """Of one step of all answers, ids drawn at random."""
    answers, rng, taken = grammars(kind), np.random.default_rng(0), []
    for _ in range(steps):
        spent = 0.0
        for answer in answers:
            start = time.perf_counter()
            allowed = answer.allowed()
            spent += time.perf_counter() - start
            id = int(allowed[rng.integers(min(len(allowed), 1000))])
            start = time.perf_counter()
            answer.take(id)
            spent += time.perf_counter() - start
        taken.append(spent)
    return statistics.median(taken)


def choice_seconds(kind: str, steps: int) -> float:
    allowed, generator = torch.from_numpy(grammars(kind)[0].allowed()), torch.Generator().manual_seed(0)
    logits, taken = torch.randn(ANSWERS, IDS), []
    for _ in range(steps):
        start = time.perf_counter()
        for row in logits:
            choose(row, allowed, SAMPLING, generator)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@torch.inference_mode()
def model_seconds(config: BackboneConfig, steps: int) -> float:
    model = Backbone(config).eval()
    extend, cache = Steps(model), Cache(config, ANSWERS, config.positions, model.lm_head.weight)
    ids, taken = torch.zeros(ANSWERS, 1, dtype=torch.long), []
    for step in range(steps):
        start = time.perf_counter()
        model.logits(extend.extend(ids, torch.full_like(ids, SEEN + step), cache)[:, -1])
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    layers, width = arguments.layers, arguments.width
    config = BackboneConfig(IDS, layers, width, 8, 2, width // 8, 43 * width // 16, 10_000.0, positions=512, tied=True)
    step = model_seconds(config, arguments.steps)
    print(f"A step of {ANSWERS} answers, {layers} layers of {width}: {step * 1000:.1f} ms\n")
    print("| ids of | grammar, ms | of the step | choice, ms |\n|---|---|---|---|")
    for kind in OPENING:
        spent, chosen = grammar_seconds(kind, arguments.steps), choice_seconds(kind, arguments.steps)
        print(f"| {kind} | {spent * 1000:.3f} | {spent / step:.2%} | {chosen * 1000:.1f} |")


if __name__ == "__main__":
    main()
