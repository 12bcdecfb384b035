"""What the speech tokenizer needs to learn: a teacher for its content level, then SpeechTokenizer's losses (3.5)
without discriminators: waveform, multi-scale mel, commitment and semantic distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mio.models.teachers import LogMel, SpeechTeacher
from mio.tokenizers.speech import SpeechNetwork
from mio.train.watch import Samples, Watch

SYMBOLS = "\0abcdefghijklmnopqrstuvwxyzäöüß '0123456789"  # symbol 0: CTC's blank


def spell(text: str) -> list[int]:
    """Lower-cased text as symbols; what has no symbol is left out."""
    return [i for i in (SYMBOLS.find(c) for c in text.lower()) if i > 0]


@dataclass(frozen=True)
class Clips:
    """waves: 1-D float32 arrays at one rate; texts: a transcript or None each; share: how often each is drawn."""

    waves: Sequence[NDArray[np.float32]]
    texts: Sequence[str | None]
    share: NDArray[np.float64]


@dataclass
class TeacherObjective:
    """Characters from log mel by CTC, on whole utterances, with bands and times masked out at random."""

    module: SpeechTeacher
    clips: Clips
    size: int
    seed: int
    longest: int = 6 * 16000
    usable: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        ok = [
            t is not None and len(spell(t)) > 0 and len(w) <= self.longest
            for w, t in zip(self.clips.waves, self.clips.texts, strict=True)
        ]
        self.usable = np.flatnonzero(ok)
        self.usable = self.usable[np.argsort([len(self.clips.waves[int(i)]) for i in self.usable], kind="stable")]

    def batch(self, step: int) -> dict[str, Tensor]:
        """Neighbours in length, so that little is padding."""
        rng = np.random.default_rng([self.seed, step])
        share = self.clips.share[self.usable]
        centre = rng.choice(len(self.usable), p=share / share.sum())
        low = int(np.clip(centre - 2 * self.size, 0, max(0, len(self.usable) - 4 * self.size)))
        rows = self.usable[
            low + rng.choice(min(4 * self.size, len(self.usable)), min(self.size, len(self.usable)), replace=False)
        ]
        waves = [self.clips.waves[int(r)] * rng.uniform(0.5, 1.2) for r in rows]
        texts = [spell(self.clips.texts[int(r)] or "") for r in rows]
        longest = max(map(len, waves))
        return {
            "samples": torch.from_numpy(np.stack([np.pad(w, (0, longest - len(w))) for w in waves]).astype(np.float32)),
            "frames": torch.tensor([-(-len(w) // 320) for w in waves]),
            "targets": torch.tensor([s for t in texts for s in t]),
            "lengths": torch.tensor([len(t) for t in texts]),
        }

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mel = self._mask(self.module.standard(batch["samples"]))
        scores = self.module(mel).transpose(0, 1)
        loss = F.ctc_loss(scores, batch["targets"], batch["frames"], batch["lengths"], zero_infinity=True)
        return {"loss": loss}

    def _mask(self, mel: Tensor) -> Tensor:
        count, bands, frames = mel.shape
        low = torch.randint(0, bands - 12, (count, 1))
        band = torch.arange(bands)
        hidden = (band >= low) & (band < low + torch.randint(0, 12, (count, 1)))
        start = torch.randint(0, frames, (count, 1))
        time = torch.arange(frames)
        gone = (time >= start) & (time < start + max(1, frames // 10))
        return mel.masked_fill(hidden[:, :, None], 0).masked_fill(gone[:, None], 0)


class SpeechTrainer(nn.Module):
    def __init__(self, network: SpeechNetwork) -> None:
        super().__init__()
        self.network = network


@dataclass
class SpeechObjective:
    """SpeechTokenizer without its discriminators; level 0 is distilled from `teacher`'s features."""

    module: SpeechTrainer
    teacher: SpeechTeacher
    clips: Clips
    size: int
    seed: int
    crop: int = 12800
    distill: float = 2.0
    samples: Samples | None = None
    watch: Watch = field(default_factory=Watch)
    mels: list[LogMel] = field(init=False)

    def __post_init__(self) -> None:
        sizes = ((1024, 80), (512, 64), (256, 40), (128, 20))
        self.mels = [LogMel(16000, fft, fft // 4, bands, floor=5e-4) for fft, bands in sizes]

    def show(self, folder: Path, step: int) -> None:
        if self.samples:
            self.samples.show(folder, step)

    def batch(self, step: int) -> Tensor:
        """Crops (size, crop), each filled with clips end to end: no padding, which would teach digital silence."""
        rng = np.random.default_rng([self.seed, step])
        return torch.from_numpy(np.stack([self._crop(rng) for _ in range(self.size)]))

    def _crop(self, rng: np.random.Generator) -> NDArray[np.float32]:
        out = np.empty(0, np.float32)
        while len(out) < self.crop:
            wave = self.clips.waves[rng.choice(len(self.clips.waves), p=self.clips.share)]
            start = int(rng.integers(0, max(1, len(wave) - self.crop + 1)))
            out = np.concatenate([out, wave[start : start + self.crop] * np.float32(rng.uniform(0.6, 1.2))])
        return out[: self.crop]

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.teacher.features(batch).float()
        out = self.module.network(batch)
        wave = F.l1_loss(out.samples.float(), batch)
        pairs = [(m(out.samples), m(batch)) for m in self.mels]
        mel = torch.stack([F.l1_loss(mine, real) for mine, real in pairs]) @ torch.tensor([1.0, 0.5, 0.5, 0.5])
        loud = torch.stack([spectral_convergence(mine.exp(), real.exp()) for mine, real in pairs]).mean()
        by_time = distill_over_time(out.semantic.float(), target)
        by_frame = 1 - F.cosine_similarity(out.semantic.float(), target, dim=-1).mean()
        loss = wave + mel + 2 * loud + out.quantized.loss + self.distill * (by_time + by_frame)
        level = out.samples.detach().square().mean().sqrt() / batch.square().mean().sqrt()
        parts = {
            "wave": wave,
            "mel": mel,
            "loud": loud,
            "commit": out.quantized.loss,
            "time": by_time,
            "frame": by_frame,
        }
        tokens = torch.tensor(float(target.shape[0] * target.shape[1]))
        return {"loss": loss, **parts, "level": level, **self.watch.add(out.quantized), "tokens": tokens}


def spectral_convergence(mine: Tensor, real: Tensor) -> Tensor:
    """|mine - real| / |real| of magnitudes (B, bands, T), meaned (Parallel WaveGAN, 2.2). The log alone lets loud
    vowels come out too quiet."""
    error, size = (x.flatten(1).norm(dim=1) for x in (mine - real, real))
    return (error / size.clamp(min=1e-3)).mean()


def distill_over_time(student: Tensor, teacher: Tensor) -> Tensor:
    """SpeechTokenizer's D-axis loss: mean over features of -log sigmoid(cosine over time). Both (B, T, D)."""
    return -F.logsigmoid(F.cosine_similarity(student, teacher, dim=1)).mean()
