"""train/loop.py, parallel.py: a step is the same however its samples are dealt out to parts and ranks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close
from toys import state, toy

from mio.checkpoint import load_tensors, read_json
from mio.train.loop import Fit, fit
from mio.train.optim import Optim
from mio.train.parallel import rank, run_ranks

LENGTHS = (300, 10, 40, 11, 150, 12, 10, 90)  # targets of each sample: 30 times apart


class Towers(nn.Module):
    """A layer for all, one for each kind of sample, and one that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 5) for _ in range(2))
        self.idle = nn.Linear(2, 2)


@dataclass
class Dealt:
    """Eight samples of unlike length, as many a batch as make one step; the long ones are of kind 0, with harder
    targets. `weigh`: return the sum over targets and their number; else the mean."""

    module: Towers
    parts: int
    weigh: bool

    def batch(self, number: int) -> list[int]:
        size = len(LENGTHS) // self.parts
        return list(range(number % self.parts * size, (number % self.parts + 1) * size))

    def losses(self, batch: list[int]) -> dict[str, Tensor]:
        total = torch.stack([self._sum(sample) for sample in batch]).sum()
        count = torch.tensor(float(sum(LENGTHS[sample] for sample in batch)))
        return {"loss": total, "weight": count} if self.weigh else {"loss": total / count}

    def _sum(self, sample: int) -> Tensor:
        rng, kind = np.random.default_rng(sample), int(LENGTHS[sample] < 100)
        x = torch.from_numpy(rng.normal(kind, 1, (LENGTHS[sample], 4)).astype(np.float32))
        targets = torch.from_numpy(rng.integers(0, 5 - 3 * kind, LENGTHS[sample]))
        return F.cross_entropy(self.module.heads[kind](self.module.shared(x).tanh()), targets, reduction="sum")


def gradients(folder: Path, parts: int, weigh: bool = True) -> dict[str, Tensor]:
    """Of one step."""
    torch.manual_seed(5)
    objective = Dealt(Towers(), parts, weigh)
    c = Fit(1, Optim(clip=1e9), log_every=1, bf16=False, parts=parts)
    fit(objective, c, folder, "dealt", folder / "metrics.jsonl")
    return {n: p.grad.clone() for n, p in objective.module.named_parameters() if p.grad is not None}


def logged(folder: Path) -> float:
    """Loss of the one step."""
    return float(json.loads((folder / "metrics.jsonl").read_text())["loss"])


@dataclass
class Plain:
    """Regression without buffers or chance: what ranks share is the gradient, and nothing else may differ."""

    module: nn.Linear

    def batch(self, number: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(number).normal(size=(5, 4)).astype(np.float32))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.module(batch) - batch.sum(1, keepdim=True)).pow(2).mean()}


def train_parts(folder: Path) -> None:
    torch.manual_seed(3)
    c = Fit(6, Optim(1e-2), save_every=2, log_every=2, bf16=False, parts=2)
    fit(Plain(nn.Linear(4, 1)), c, folder, "plain", folder / "metrics.jsonl")


def spoil_one_rank(folder: Path) -> None:
    c = Fit(3, Optim(1e-2), save_every=3, log_every=3, bf16=False, parts=2)
    fit(toy(nan=(3,)), c, folder, "toy", folder / "metrics.jsonl")  # batch 3: part 1 of step 1, the second rank's


def work(folder: Path) -> None:
    """All that two ranks do here, in one start of processes."""
    train_parts(folder / "plain")
    spoil_one_rank(folder / "spoiled")
    for parts in (2, 4, 8):
        grads = gradients(folder / str(parts), parts)
        if rank() == 1:
            save_file(grads, folder / f"{parts}.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left."""
    folder = tmp_path_factory.mktemp("two")
    run_ranks(work, (folder,), 2, 1)
    return folder


def test_two_ranks_train_what_one_trains_with_two_parts_a_step(two: Path, tmp_path: Path) -> None:
    train_parts(tmp_path)
    weights = [load_tensors(state(folder) / "module.safetensors") for folder in (tmp_path, two / "plain")]
    assert_close(weights[1], weights[0], rtol=1e-6, atol=1e-7)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (tmp_path, two / "plain")]
    assert len(lines[0]) == len(lines[1]) == 3  # only the first rank writes


def test_ranks_agree_to_skip_a_step_that_one_of_them_spoiled(two: Path) -> None:
    facts = read_json(state(two / "spoiled") / "step.json")
    assert (facts["step"], facts["good"], facts["bad"]) == (3, 2, 0)
    assert json.loads((two / "spoiled" / "metrics.jsonl").read_text())["skipped"] == 1


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_gradients_do_not_depend_on_how_samples_are_dealt_out(two: Path, tmp_path: Path, parts: int) -> None:
    """Also where a rank or a part has no sample of a kind, and a tower no gradient there."""
    whole = gradients(tmp_path / "whole", 1)
    dealt = gradients(tmp_path / "dealt", parts)
    assert_close(dealt, whole, rtol=0, atol=1e-6)
    assert_close(load_tensors(two / f"{parts}.safetensors"), whole, rtol=0, atol=1e-6)
    loss = pytest.approx(logged(tmp_path / "whole"), rel=1e-4)
    assert logged(tmp_path / "dealt") == loss
    assert logged(two / str(parts)) == loss
    assert max(float(g.abs().max()) for g in whole.values()) > 0.1
    assert not any(name.startswith("idle") for name in dealt)


def test_a_mean_of_means_would_depend_on_it(tmp_path: Path) -> None:
    """So the test above can fail."""
    whole = gradients(tmp_path / "whole", 1, weigh=False)
    dealt = gradients(tmp_path / "dealt", 4, weigh=False)
    assert max(float((dealt[n] - whole[n]).abs().max()) for n in whole) > 1e-2
