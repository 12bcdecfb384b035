"""What the image tokenizer needs to learn: SEED's two stages at small scale, with a pixel decoder.

Differences from SEED, stated: no pretrained ViT exists here, so it learns with the Q-Former; the image embedding's
teacher is stage 1 itself; and stage 2 trains everything, because 64-pixel drawings need the pixels back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mio.models.decoders import PixelDecoder
from mio.models.teachers import TextTower
from mio.tokenizers.seed import SeedNetwork, normalise
from mio.train.watch import Samples, Watch


@dataclass(frozen=True)
class Pictures:
    """pixels (N, S, S, 3) uint8; caption (N,): row of `captions` (U, T) padded with -1, or -1; share (N,) sums to 1."""

    pixels: NDArray[np.uint8]
    caption: NDArray[np.int64]
    captions: NDArray[np.int64]
    share: NDArray[np.float64]

    def draw(self, count: int, seed: int, step: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, step]).choice(len(self.pixels), count, p=self.share)


def _jitter(pixels: Tensor, seed: int, step: int) -> Tensor:
    """Shift every picture by up to 3 pixels, edges repeated: (B, S, S, 3)."""
    rng = np.random.default_rng([seed, step, 1])
    side = pixels.shape[1]
    shifts = torch.from_numpy(rng.integers(-3, 4, (2, len(pixels), 1)))
    rows, columns = ((torch.arange(side) + s).clamp(0, side - 1) for s in shifts)
    return pixels[torch.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]


class Aligner(nn.Module):
    """Stage 1: the last causal query and a caption meet in one space."""

    def __init__(self, network: SeedNetwork, vocabulary: int) -> None:
        super().__init__()
        dim = network.config.embedding
        self.network = network
        self.image_proj = nn.Linear(network.config.width, dim)
        self.text = TextTower(vocabulary, dim)
        self.temp = nn.Parameter(torch.tensor(0.07))

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised pixels -> unit vectors (B, embedding)."""
        return F.normalize(self.image_proj(self.network.causal_embeddings(pixels)[:, -1]).float(), dim=-1)


def contrast(images: Tensor, texts: Tensor, target: Tensor, temp: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of images (B, D) over candidate texts (U, D), unit vectors, and the share that is right."""
    logits = images @ texts.T / temp.clamp(min=0.01)
    right = (logits.argmax(1) == target).float().mean()
    return F.cross_entropy(logits, target, label_smoothing=0.1), right


@dataclass
class _ImageObjective:
    pictures: Pictures
    size: int
    seed: int
    negatives: int = 1500

    def batch(self, step: int) -> dict[str, Tensor]:
        rows = self.pictures.draw(self.size, self.seed, step)
        pixels = _jitter(torch.from_numpy(self.pictures.pixels[rows]), self.seed, step)
        caption = self.pictures.caption[rows]
        return {"pixels": pixels, "rows": torch.from_numpy(rows), **self._candidates(caption, step)}

    def _candidates(self, caption: NDArray[np.int64], step: int) -> dict[str, Tensor]:
        """The batch's own captions, each once, and random others: texts (U, T), target row per captioned picture."""
        all_captions = self.pictures.captions
        others = np.random.default_rng([self.seed, step, 2]).choice(
            len(all_captions), min(self.negatives, len(all_captions)), replace=False
        )
        own = caption[caption >= 0]
        chosen = np.unique(np.concatenate([own, others]))
        return {
            "texts": torch.from_numpy(all_captions[chosen]),
            "target": torch.from_numpy(np.searchsorted(chosen, own)),
            "captioned": torch.from_numpy(caption >= 0),
        }


@dataclass
class AlignObjective(_ImageObjective):
    """SEED stage 1: image-text contrast on the last causal query."""

    module: Aligner = None  # type: ignore[assignment]

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        images = self.module.embed(normalise(batch["pixels"]))[batch["captioned"]]
        loss, right = contrast(images, self.module.text(batch["texts"]), batch["target"], self.module.temp)
        return {"loss": loss, "right": right}


class ImageTrainer(nn.Module):
    """Stage 2: the tokenizer, the decoder conditioned on what its codes decode to, and stage 1's text tower."""

    def __init__(self, network: SeedNetwork, decoder: PixelDecoder, text: TextTower) -> None:
        super().__init__()
        self.network, self.decoder, self.text = network, decoder, text


@dataclass
class QuantizeObjective(_ImageObjective):
    """SEED stage 2: VQ, reconstructed causal embeddings (cosine), the teacher's image embedding, names, and pixels.

    `teacher` (N, D): stage 1's embedding of every picture, frozen.
    """

    module: ImageTrainer = None  # type: ignore[assignment]
    teacher: Tensor = None  # type: ignore[assignment]
    samples: Samples | None = None
    watch: Watch = field(default_factory=Watch)

    def show(self, folder: Path, step: int) -> None:
        if self.samples:
            self.samples.show(folder, step)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network = self.module.network
        causal = network.causal_embeddings(normalise(batch["pixels"]))
        q = network.quantized(causal)
        decoded = network.reverse(q.quantized)
        rebuilt = network.reconstruct_causal(q.quantized)
        causal_loss = 1 - F.cosine_similarity(rebuilt.float(), causal.detach().float(), dim=-1).mean()
        embedding = F.normalize(decoded.embedding.float(), dim=-1)
        embed_loss = 1 - (embedding * self.teacher[batch["rows"]]).sum(-1).mean()
        texts = self.module.text(batch["texts"])
        names, right = contrast(embedding[batch["captioned"]], texts, batch["target"], torch.tensor(0.07))
        pixel_loss, l1 = self._pixels(decoded.latents, decoded.embedding, batch["pixels"])
        loss = q.loss + 0.2 * embed_loss + 0.5 * causal_loss + 0.2 * names + 4 * pixel_loss
        parts = {"vq": q.loss, "embed": embed_loss, "causal": causal_loss, "names": names, "right": right, "l1": l1}
        return {"loss": loss, **parts, **self.watch.add(q)}

    def _pixels(self, latents: Tensor, embedding: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Squared plus absolute error, and the absolute error alone."""
        target = pixels.permute(0, 3, 1, 2).float() / 255
        error = self.module.decoder(latents, embedding).float() - target
        l1 = error.abs().mean()
        return l1 + 4 * error.pow(2).mean(), l1


@torch.inference_mode()
def embed_all(aligner: Aligner, pixels: NDArray[np.uint8], batch: int = 128) -> Tensor:
    """Stage 1's unit embedding of every picture: (N, D)."""
    parts = [pixels[i : i + batch] for i in range(0, len(pixels), batch)]
    return torch.cat([aligner.embed(normalise(torch.from_numpy(p))) for p in parts]).clone()
