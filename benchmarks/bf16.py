"""Whether bf16 pays on this CPU: one linear layer forward and backward, and one step of Muon, against fp32.

    python benchmarks/bf16.py [--threads 2] [--runs 5]

The two sides take turns; medians, in milliseconds, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from mio.layers import fast_bf16
from mio.train.optim import Muon

TOKENS, WIDTH, HIDDEN = 1536, 256, 640  # of the shipped model: a pack, and its MLP


def product(dtype: torch.dtype) -> Callable[[], None]:
    layer = nn.Linear(WIDTH, HIDDEN, bias=False, dtype=dtype)
    x = torch.randn(TOKENS, WIDTH, dtype=dtype, requires_grad=True)
    return lambda: layer(x).sum().backward()


def step(optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Callable[[], None]:
    matrix = nn.Parameter(torch.randn(HIDDEN, WIDTH))
    matrix.grad = torch.randn_like(matrix)
    learning = optimizer([matrix])

    def run() -> None:
        learning.step()

    return run


def milliseconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("medium")
    print(f"{torch.backends.cpu.get_cpu_capability()}, bf16 native: {fast_bf16(torch.device('cpu'))}")
    sides = {
        "layer": (product(torch.float32), product(torch.bfloat16)),
        "Muon": (
            step(lambda p: Muon(p, 1e-3, 0.95, 0.0)),
            step(lambda p: torch.optim.Muon(p, adjust_lr_fn="match_rms_adamw")),
        ),
    }
    for name, pair in sides.items():
        times = [[milliseconds(run) for run in pair] for _ in range(arguments.runs + 1)][1:]
        mine, bf16 = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:6} fp32 or ours {mine:8.1f} ms  bf16 or torch's {bf16:8.1f} ms  x{bf16 / mine:.2f}")


if __name__ == "__main__":
    main()
