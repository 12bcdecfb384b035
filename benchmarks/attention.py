"""Attention of short sequences on a CPU: two batched products (`layers.attend`) against torch's fused kernel.

    python benchmarks/attention.py [--threads 2]

Forward and backward in bf16, the two taking turns, medians of 9, milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.layers import attend

SHAPES = ((64, 4, 65, 40), (64, 4, 32, 40), (48, 4, 64, 64), (16, 4, 128, 64), (4, 4, 512, 64))  # B, H, T, Dh


def milliseconds(attention: Callable[..., Tensor], shape: tuple[int, ...]) -> float:
    inputs = [torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    start = time.perf_counter()
    attention(*inputs).sum().backward()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    sides = {"products": partial(attend, causal=True), "fused": partial(F.scaled_dot_product_attention, is_causal=True)}
    for shape in SHAPES:
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(9):
            for name, side in sides.items():
                times[name].append(milliseconds(side, shape))
        own, fused = (statistics.median(times[name]) for name in sides)
        print(f"{shape!s:18} products {own:6.1f} ms  fused {fused:6.1f} ms  x{fused / own:.1f}")


if __name__ == "__main__":
    main()
