"""One codebook, one code per vector: nearest by gradient or by moving average, or sampled with Gumbel noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.tokenizers.quantizers.codebook import (
    EuclideanCodebook,
    LearnedCodebook,
    VectorModule,
    nearest,
    rotate,
    straight_through,
)
from mio.tokenizers.quantizers.result import Quantized


@dataclass(frozen=True)
class VQConfig:
    """Codebook learned by gradient (van den Oord et al., 2017). The defaults weigh as vqgan's legacy order: see SEED-2.

    `rotation`: gradients turn with the vector (Fifty et al., 2024) where they pass straight through otherwise.
    """

    size: int
    dim: int
    patience: float = 15.0
    commitment: float = 1.0
    codebook: float = 0.25
    rotation: bool = False

    def build(self) -> VectorQuantizer:
        pulls = (self.commitment, self.codebook)
        return VectorQuantizer(self.size, self.dim, self.patience, pulls, self.rotation)


class VectorQuantizer(LearnedCodebook):
    """Codebook learned by gradient. pulls: weights of mean((z - sg[q])^2) and of mean((q - sg[z])^2)."""

    def __init__(
        self,
        size: int,
        dim: int,
        patience: float = 15.0,
        pulls: tuple[float, float] = (1.0, 0.25),
        rotation: bool = False,
    ) -> None:
        super().__init__(size, dim, patience)
        self.pulls = pulls
        self.passes = rotate if rotation else straight_through

    def quantize(self, z: Tensor) -> Quantized:
        """(..., D) -> quantized (..., D), codes (...)."""
        if self.training:
            self.revive(z)
        codes = nearest(z, self.embedding.weight)
        q = self.embedding(codes)
        commitment, codebook = self.pulls
        losses = {
            "commitment": commitment * F.mse_loss(z, q.detach()),
            "codebook": codebook * F.mse_loss(q, z.detach()),
        }
        if self.training:
            self.mark(codes)
        return Quantized(self.passes(z, q), codes, losses, self.sizes)


@dataclass(frozen=True)
class EMAVQConfig:
    """Codebook of moving averages (van den Oord et al., 2017, appendix A.1), k-means start.

    `dead_below`: a code with fewer vectors per batch (moving average) is put onto a vector of the batch.
    """

    size: int
    dim: int
    decay: float = 0.99
    dead_below: float = 2.0
    commitment: float = 1.0
    rotation: bool = False

    def build(self) -> EMAVectorQuantizer:
        return EMAVectorQuantizer(self)


class EMAVectorQuantizer(VectorModule):
    """(..., D) -> quantized (..., D), codes (...)."""

    def __init__(self, c: EMAVQConfig) -> None:
        super().__init__(c.dim, (c.size,))
        self.codebook = EuclideanCodebook(c.size, c.dim, c.decay, c.dead_below)
        self.commitment = c.commitment
        self.passes = rotate if c.rotation else straight_through

    def quantize(self, z: Tensor) -> Quantized:
        rows, codes = self.codebook(z)
        losses = {"commitment": self.commitment * F.mse_loss(z, rows)}
        return Quantized(self.passes(z, rows), codes, losses, self.sizes)

    def decode(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook.embed)


@dataclass(frozen=True)
class GumbelConfig:
    """Codes sampled by distance while training, nearest ones otherwise (Jang et al., 2017; Baevski et al., 2020).

    `uniform` weighs the divergence of a vector's distribution over codes from the uniform one, as in DALL-E.
    """

    size: int
    dim: int
    temperature: float = 1.0
    uniform: float = 5e-4
    patience: float = 15.0

    def build(self) -> GumbelQuantizer:
        return GumbelQuantizer(self)


class GumbelQuantizer(LearnedCodebook):
    """logits = -|z - row|^2. `temperature` may be annealed by whoever trains. (..., D) -> as VectorQuantizer."""

    def __init__(self, c: GumbelConfig) -> None:
        super().__init__(c.size, c.dim, c.patience)
        self.temperature, self.uniform = c.temperature, c.uniform

    def quantize(self, z: Tensor) -> Quantized:
        if self.training:
            self.revive(z)
        rows = self.embedding.weight
        logits = 2 * z @ rows.T - rows.pow(2).sum(1) - z.pow(2).sum(-1, keepdim=True)  # (..., K)
        noisy = logits - torch.empty_like(logits).exponential_().log() if self.training else logits
        codes = noisy.argmax(-1)
        if self.training:
            self.mark(codes)
        soft = (noisy / self.temperature).softmax(-1) @ rows
        return Quantized(straight_through(soft, rows[codes]), codes, self._losses(logits), self.sizes)

    def _losses(self, logits: Tensor) -> dict[str, Tensor]:
        log_p = logits.log_softmax(-1)
        divergence = (log_p.exp() * log_p).sum(-1).mean() + torch.tensor(float(logits.shape[-1])).log()
        return {"uniform": self.uniform * divergence}
