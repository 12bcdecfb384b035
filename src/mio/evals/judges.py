"""Classifiers of real media, trained apart from tokenizers and model, that say what a generated medium shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mio.models.teachers import LogMel
from mio.train.loop import Fit, fit
from mio.train.optim import Optim


class Convolutions(nn.Module):
    """A small residual network: (B, C, H, W) of any size -> (B, classes)."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 4 * width, 6 * width)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        self.same = nn.ModuleList(nn.Conv2d(b, b, 3, 1, 1) for b in sizes[1:])
        self.norms = nn.ModuleList(nn.GroupNorm(8, b) for b in sizes[1:])
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for down, same, norm in zip(self.down, self.same, self.norms, strict=True):
            x = F.relu(norm(down(x)))
            x = x + F.relu(same(x))
        out: Tensor = self.head(F.dropout(x.mean((2, 3)), 0.2, self.training))
        return out


def blur(x: Tensor, steps: int) -> Tensor:
    """A 3 x 3 box filter `steps` times."""
    for _ in range(steps):
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return x


@dataclass
class JudgeObjective:
    """Cross-entropy over real media with shifts, blur and noise, so that soft pictures and dull sounds still count."""

    module: nn.Module
    inputs: Tensor  # (N, C, H, W)
    labels: Tensor
    size: int = 96
    fill: float = 0.0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([7, step])
        rows = torch.from_numpy(rng.integers(0, len(self.inputs), self.size))
        shift = tuple(int(s) for s in rng.integers(-4, 5, 2))
        x = torch.roll(self.inputs[rows].float(), shift, (2, 3))
        x = blur(x, int(rng.integers(0, 3)))
        noise = torch.from_numpy(rng.normal(0, 0.05, x.shape).astype(np.float32))
        return x + noise * x.std(), self.labels[rows]

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        scores = self.module(batch[0]).float()
        right = (scores.argmax(1) == batch[1]).float().mean()
        return {"loss": F.cross_entropy(scores, batch[1], label_smoothing=0.05), "right": right}


@dataclass(frozen=True)
class Judge:
    """A trained classifier with the names of its classes."""

    network: Convolutions
    names: tuple[str, ...]

    @torch.inference_mode()
    def scores(self, inputs: Tensor, batch: int = 128) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return torch.cat([self.network(inputs[i : i + batch].float()) for i in range(0, len(inputs), batch)])

    def says(self, inputs: Tensor) -> list[str]:
        return [self.names[int(i)] for i in self.scores(inputs).argmax(1)]

    def among(self, inputs: Tensor, truths: Sequence[str], others: int, seed: int = 0) -> list[bool]:
        """Whether the true name scores highest among itself and `others` names drawn at random."""
        rng = np.random.default_rng(seed)
        out = []
        for row, truth in zip(self.scores(inputs), truths, strict=True):
            right = self.names.index(truth)
            pool = np.setdiff1d(np.arange(len(self.names)), [right])
            rivals = rng.choice(pool, min(others, len(pool)), replace=False)
            out.append(bool(row[right] > row[torch.from_numpy(rivals)].max()))
        return out


def train_judge(inputs: Tensor, labels: Sequence[str], steps: int, folder: Path, name: str) -> Judge:
    """Fit a classifier; resumes like every training."""
    names = tuple(sorted(set(labels)))
    row = {n: i for i, n in enumerate(names)}
    torch.manual_seed(0)
    network = Convolutions(inputs.shape[1], len(names))
    objective = JudgeObjective(network, inputs, torch.tensor([row[label] for label in labels]))
    fit(
        objective,
        Fit(steps, Optim(2e-3, weight_decay=0.05), save_every=500),
        folder,
        name,
        folder.parent / "metrics.jsonl",
    )
    return Judge(network.eval(), names)


def as_pictures(pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
    """(H, W, 3) pictures of one size -> (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_sounds(waves: Sequence[NDArray[np.float32]], seconds: float = 1.0, rate: int = 16000) -> Tensor:
    """Waves at 16 kHz -> (N, 1, bands, T) log mel, cut or padded to `seconds`, the level evened out."""
    length = int(seconds * rate)
    evened = [w / max(float(np.abs(w).max()), 1e-3) * 0.7 for w in waves]
    fixed = [np.pad(w[:length], (0, max(0, length - len(w)))) for w in evened]
    mel = LogMel(fft=512, hop=160, bands=40)(torch.from_numpy(np.stack(fixed).astype(np.float32)))
    return ((mel + 5) / 3)[:, None]


def as_clips(clips: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Clips of equally many (F, H, W, 3) frames -> (N, 3F, H, W) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).flatten(1, 2)
    return stacked.float() / 127.5 - 1
