"""train/: twenty steps on fixed data, loss by loss; whatever changes them changes how models learn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mio.data.loader import collate
from mio.layers import Batch
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train.loop import Fit, fit
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim

V = 40
KINDS = (np.arange(V) >= 25).astype(np.int64)
CURVES = {  # by whether Muon trains; the same with plain cross-entropy and recorded norms
    False: (
        3.7876,
        3.6243,
        3.461,
        3.3998,
        3.1954,
        3.0284,
        3.0618,
        2.8736,
        2.6707,
        2.5825,
        2.5174,
        2.4242,
        2.2701,
        2.2432,
        2.1632,
        2.215,
        2.1529,
        2.091,
        2.1299,
        2.1423,
    ),
    True: (
        3.7876,
        3.6864,
        3.5198,
        3.4357,
        3.2978,
        3.1903,
        3.0459,
        2.9412,
        2.7914,
        2.7523,
        2.6397,
        2.5593,
        2.4583,
        2.4075,
        2.3729,
        2.4259,
        2.371,
        2.2931,
        2.307,
        2.3648,
    ),
}


@dataclass
class Walks:
    """Next id = last id + 1 or + 3: something to learn; samples of unlike length, one target in five left out."""

    module: Backbone

    def batch(self, number: int) -> Batch:
        rng = np.random.default_rng(number)
        return collate([self._walk(rng, length) for length in (3, 7, 7, 20, 40)], KINDS)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return next_token_loss(self.module, batch, ("text", "image"), {"image": 2.0})

    @staticmethod
    def _walk(rng: np.random.Generator, length: int) -> TokenSequence:
        ids = (rng.integers(V) + np.cumsum(rng.choice([1, 3], length))) % V
        return TokenSequence(ids, rng.random(length) < 0.8)


def curve(folder: Path, muon: bool) -> list[float]:
    """Loss of every step; weights are drawn by numpy, so that torch's generator may change."""
    model = Backbone(BackboneConfig(V, 2, 32, 4, 2, 8, 48, 10_000.0, positions=64, tied=True))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.05, parameter.shape)))
    c = Fit(20, Optim(1e-2, warmup=0.1, muon=muon), log_every=1, bf16=False, parts=2)
    fit(Walks(model), c, folder, "golden", folder / "metrics.jsonl")
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("muon", [False, True])
def test_twenty_losses_are_the_golden_ones(muon: bool, tmp_path: Path) -> None:
    losses = curve(tmp_path, muon)
    assert losses == pytest.approx(CURVES[muon], rel=2e-3)
    assert losses[-1] < 0.8 * losses[0]
