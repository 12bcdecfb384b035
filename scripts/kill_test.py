"""Kill a small training at random moments, also inside its saves, resume it, and compare it with an unbroken one.

python scripts/kill_test.py 200
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from mio.checkpoint import read_json
from mio.tokenizers.quantizers import VectorQuantizer
from mio.train.loop import Fit, fit
from mio.train.optim import Optim

STEPS, SAVE_EVERY = 30, 2


class Net(nn.Module):
    """Dropout, a codebook that revives codes, and matrices for Muon: everything whose state a resume could lose."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 64), nn.Dropout(0.3), nn.Linear(64, 1)
        self.quantize = VectorQuantizer(32, 64)


@dataclass
class Regression:
    module: Net

    def batch(self, number: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(number).normal(size=(8, 4)).astype(np.float32))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        q = self.module.quantize(self.module.drop(self.module.first(batch)))
        return {"loss": (self.module.last(q.quantized) - batch.sum(1, keepdim=True)).pow(2).mean() + q.loss}


def train(folder: Path) -> None:
    torch.manual_seed(3)
    c = Fit(STEPS, Optim(1e-2, muon=True), save_every=SAVE_EVERY, log_every=STEPS)
    fit(Regression(Net()), c, folder, "kill test", folder / "metrics.jsonl")


def start(folder: Path) -> int:
    """A process that trains, begun as a copy of this one: importing anew would take longer than training."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        train(folder)
        os._exit(0)
    finally:
        os._exit(1)


def ended(child: int) -> int:
    """Wait; 0, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(folder: Path, seconds: float) -> tuple[bool, bool]:
    """Train for so long, then SIGKILL: whether it was still at work, and (surely) inside a save."""
    before, child = in_save(folder), start(folder)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    hit = ended(child) == -signal.SIGKILL
    return hit, hit and in_save(folder) and not before


def in_save(folder: Path) -> bool:
    """Whether a save was half written."""
    return any((folder / "state").glob(".*"))


def end_of(folder: Path) -> object:
    """SHA-256 of weights, optimizer and facts after the last step."""
    return read_json(folder / "state" / f"{STEPS:08d}" / "manifest.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    kills = saves = 0
    with TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        train(whole)  # here, so that what torch imports when it is first used is there for the others
        begun = time.perf_counter()
        assert ended(start(Path(name) / "timed")) == 0
        seconds = time.perf_counter() - begun
        while kills < arguments.kills:
            folder = Path(name) / f"after {kills}"
            for _ in range(min(int(rng.integers(1, 4)), arguments.kills - kills)):  # up to three in one training
                hit, inside = killed(folder, float(rng.uniform(0, seconds)))
                kills, saves = kills + hit, saves + inside
            if ended(start(folder)) != 0 or end_of(folder) != end_of(whole):
                raise SystemExit(f"The training of kill {kills} ended elsewhere; --seed {arguments.seed} repeats it.")
    print(f"survived {kills} of {kills} kills, {saves} of them inside a save")


if __name__ == "__main__":
    main()
