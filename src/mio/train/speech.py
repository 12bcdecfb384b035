"""What the speech tokenizer needs to learn: a teacher for its content level, then SpeechTokenizer's losses (3.5)
without discriminators: waveform, multi-scale mel, commitment and semantic distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mio.models.teachers import LogMel, SpeechTeacher
from mio.tokenizers.speech import SpeechNetwork

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
    mels: list[LogMel] = field(init=False)

    def __post_init__(self) -> None:
        sizes = ((1024, 80), (512, 64), (256, 40), (128, 20))
        self.mels = [LogMel(16000, fft, fft // 4, bands) for fft, bands in sizes]

    def batch(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        rows = rng.choice(len(self.clips.waves), self.size, p=self.clips.share)
        waves = [self._crop(self.clips.waves[r], rng) for r in rows]
        samples = np.stack([np.pad(w, (0, self.crop - len(w))) for w in waves]).astype(np.float32)
        frames = np.array([-(-len(w) // 320) for w in waves])
        keep = np.arange(-(-self.crop // 320)) < frames[:, None]
        return {"samples": torch.from_numpy(samples), "keep": torch.from_numpy(keep)}

    def _crop(self, wave: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        start = int(rng.integers(0, max(1, len(wave) - self.crop + 1)))
        return wave[start : start + self.crop] * rng.uniform(0.6, 1.2)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        samples, keep = batch["samples"], batch["keep"]
        with torch.no_grad():
            target = self.teacher.features(samples).float()
        out = self.module.network(samples, keep)
        wave = F.l1_loss(out.samples.float(), samples)
        mel = torch.stack([F.l1_loss(m(out.samples), m(samples)) for m in self.mels]) @ torch.tensor(
            [1.0, 0.5, 0.5, 0.5]
        )
        by_time = distill_over_time(out.semantic.float(), target, keep)
        by_frame = 1 - F.cosine_similarity(out.semantic.float(), target, dim=-1)[keep].mean()
        loss = wave + mel + out.quantized.loss + self.distill * (by_time + by_frame)
        parts = {"wave": wave, "mel": mel, "commit": out.quantized.loss, "time": by_time, "frame": by_frame}
        return {"loss": loss, **parts, "tokens": keep.sum().float()}


def distill_over_time(student: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
    """SpeechTokenizer's D-axis loss: mean over features of -log sigmoid(cosine over time). (B, T, D), keep (B, T)."""
    there = keep[..., None].float()
    similarity = F.cosine_similarity(student * there, teacher * there, dim=1)
    return -F.logsigmoid(similarity).mean()
