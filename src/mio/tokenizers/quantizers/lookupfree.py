"""Codebooks that are a grid: nothing to learn, nothing to look up. Finite scalars, bits, and bits on a sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mio.tokenizers.quantizers.codebook import VectorModule, straight_through, total
from mio.tokenizers.quantizers.grouped import fold, unfold
from mio.tokenizers.quantizers.result import Quantized
from mio.types import MioError


@dataclass(frozen=True)
class FSQConfig:
    """Every number of a vector is rounded to one of `levels[i]` values (Mentzer et al., 2024)."""

    levels: tuple[int, ...]

    def build(self) -> FSQ:
        return FSQ(self.levels)


class FSQ(VectorModule):
    """(..., len(levels)) -> quantized in [-1, 1], codes (...) below the product of the levels. No loss."""

    levels: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        size = int(torch.tensor(levels).prod())
        super().__init__(len(levels), (size,))
        if min(levels) < 2:
            raise MioError(f"A scalar needs two levels or more, got {levels}.", at="FSQConfig.levels")
        self.radices = levels
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def quantize(self, x: Tensor) -> Quantized:
        half = (self.levels - 1) * (1 + 1e-3) / 2  # a little more, so that tanh reaches the outer levels
        offset = (self.levels % 2 == 0) * 0.5
        bounded = (x + (offset / half).atanh()).tanh() * half - offset
        digits = bounded.round()
        codes = fold((digits + self.levels // 2).long(), self.radices)
        return Quantized(straight_through(bounded, digits) / (self.levels // 2), codes, {}, self.sizes)

    def decode(self, codes: Tensor) -> Tensor:
        half = self.levels // 2
        return (unfold(codes, self.radices) - half) / half


@dataclass(frozen=True)
class LFQConfig:
    """A vector's signs are its code (MAGVIT-2; Yu et al., 2024). Without entropy loss: MaskBit's bits.

    The entropy loss wants every vector sure of its code and all codes in use; `diversity` weighs the second wish.
    `group`: bits whose joint entropy is exact, entropies of groups being added (0: all, which costs 2 ** bits).
    """

    bits: int
    entropy: float = 0.1
    diversity: float = 1.0
    commitment: float = 0.25
    temperature: float = 0.01
    group: int = 0

    def build(self) -> BinaryQuantizer:
        return BinaryQuantizer(self, 1.0, False)


@dataclass(frozen=True)
class BSQConfig:
    """Signs of a vector on the unit sphere (Zhao et al., 2024), entropies by groups; fields as in `LFQConfig`."""

    bits: int
    entropy: float = 0.1
    diversity: float = 1.0
    commitment: float = 0.0
    temperature: float = 0.01
    group: int = 0

    def build(self) -> BinaryQuantizer:
        return BinaryQuantizer(self, self.bits**-0.5, True)


class BinaryQuantizer(VectorModule):
    """(..., bits) -> quantized of +-scale, codes (...) with the first number as highest bit."""

    corners: Tensor

    def __init__(self, c: LFQConfig | BSQConfig, scale: float, sphere: bool) -> None:
        super().__init__(c.bits, (2**c.bits,))
        self.config, self.scale, self.sphere = c, scale, sphere
        group = c.group or c.bits
        if c.bits % group or group > 18 or c.bits > 62:
            raise MioError(
                f"{c.bits} bits cannot be taken in groups of {group}.",
                at="group",
                fix="Choose a divisor of at most 18; BSQ's authors take 9.",
            )
        self.register_buffer("corners", self._signs(torch.arange(2**group), group), persistent=False)

    def quantize(self, x: Tensor) -> Quantized:
        x = F.normalize(x, dim=-1) if self.sphere else x
        bits = x > 0
        codes = fold(bits.flip(-1).long(), (2,) * self.dim)
        q = torch.where(bits, self.scale, -self.scale)
        losses = {"entropy": self.config.entropy * self._entropy_loss(x), "commitment": F.mse_loss(x, q)}
        losses["commitment"] = self.config.commitment * losses["commitment"]
        return Quantized(straight_through(x, q), codes, losses, self.sizes)

    def decode(self, codes: Tensor) -> Tensor:
        return self._signs(codes, self.dim)

    def _signs(self, codes: Tensor, bits: int) -> Tensor:
        return (unfold(codes, (2,) * bits).flip(-1) * 2 - 1) * self.scale

    def _entropy_loss(self, x: Tensor) -> Tensor:
        """Mean entropy of p(code | vector), minus that of the mean over all vectors; in nats."""
        groups = x.reshape(-1, self.dim // self.corners.shape[1], self.corners.shape[1])
        log_p = (2 * groups @ self.corners.T / self.config.temperature).log_softmax(-1)  # (N, G, codes of a group)
        sure = -(log_p.exp() * log_p).sum((1, 2)).mean()
        mean = _mean_of_all(log_p.exp().mean(0))
        spread = -(mean * mean.clamp(min=1e-12).log()).sum()
        return sure - self.config.diversity * spread


def _mean_of_all(x: Tensor) -> Tensor:
    """Mean over processes, with the gradient of this one's: whoever averages gradients gets that of the mean."""
    if not dist.is_initialized():
        return x
    return straight_through(x, total(x.detach().clone()) / dist.get_world_size())
