"""train/optim.py: Muon steps as its reference does; bf16 is used where the machine multiplies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mio.layers import fast_bf16
from mio.train.loop import Fit, fit
from mio.train.optim import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_muon_steps_as_torchs_does(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    mine, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    ours = Muon([mine], 0.02, 0.95, 0.1)
    reference = torch.optim.Muon([theirs], 0.02, 0.1, 0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        mine.grad = torch.randn(shape)
        theirs.grad = mine.grad.clone()
        ours.step()
        reference.step()
    assert (mine - theirs).norm() < 0.02 * (mine - start).norm()  # the reference rounds its products to bf16


@pytest.mark.parametrize("native", [True, False])
def test_orthogonal_brings_singular_values_near_one(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mio.train.optim.fast_bf16", lambda device: native)
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(12, 30)).float())
    assert values.min() > 0.6 and values.max() < 1.3


@dataclass
class Probe:
    """Notes whether its products are autocast to bf16."""

    module: nn.Module = field(default_factory=lambda: nn.Linear(2, 1))
    dtypes: list[torch.dtype] = field(default_factory=list)

    def batch(self, number: int) -> Tensor:
        return torch.ones(1, 2)

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        out = self.module(batch)
        self.dtypes.append(out.dtype)
        return {"loss": out.float().sum()}


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_training_multiplies_bf16_only_where_the_machine_does(
    native: bool, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mio.train.loop.fast_bf16", lambda device: native)
    probe = Probe()
    fit(probe, Fit(1, bf16=True), tmp_path / "x", "probe", tmp_path / "x.jsonl")
    assert probe.dtypes == [dtype]


@pytest.mark.parametrize(("name", "fast"), [("avx512_bf16", True), ("amx_bf16", True), ("avx2", False)])
def test_a_cpu_is_fast_in_bf16_with_its_instructions(name: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True, name: True})
    assert fast_bf16(torch.device("cpu")) is fast
