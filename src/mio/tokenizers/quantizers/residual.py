"""Residual quantization: every level quantizes what the levels before left over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.tokenizers.quantizers.codebook import EuclideanCodebook, VectorModule, nearest, straight_through
from mio.tokenizers.quantizers.result import Quantized


@dataclass(frozen=True)
class RVQConfig:
    """Moving-average codebooks of EnCodec and SpeechTokenizer; `dead_below` as in `EMAVQConfig`."""

    levels: int
    size: int
    dim: int
    decay: float = 0.99
    dead_below: float = 2.0

    def build(self) -> ResidualVQ:
        return ResidualVQ(self.levels, self.size, self.dim, self.decay, self.dead_below)


class _Level(nn.Module):
    def __init__(self, size: int, dim: int, decay: float, dead_below: float) -> None:
        super().__init__()
        self._codebook = EuclideanCodebook(size, dim, decay, dead_below)  # underscore: the released checkpoint's name


class _Levels(nn.Module):
    def __init__(self, levels: int, size: int, dim: int, decay: float, dead_below: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Level(size, dim, decay, dead_below) for _ in range(levels))


@dataclass(frozen=True)
class ResidualQuantized(Quantized):
    """codes (K, B, T); first: quantized output of level 0 alone (B, T, D), which the distillation uses."""

    first: Tensor


class ResidualVQ(VectorModule):
    """K codebooks, each quantizing what the ones before left over.

    `dead_below` is a number of vectors per batch and code: with few vectors per code it must be small, or every code
    is taken for dead and replaced at every step.
    """

    stacked = True

    def __init__(self, levels: int, size: int, dim: int, decay: float = 0.99, dead_below: float = 2.0) -> None:
        super().__init__(dim, (size,) * levels)
        self.vq = _Levels(levels, size, dim, decay, dead_below)

    def codebooks(self) -> list[EuclideanCodebook]:
        return [level._codebook for level in self.vq.layers]  # type: ignore[misc]

    def quantize(self, x: Tensor) -> ResidualQuantized:
        """(B, T, D) -> quantized (B, T, D), codes (K, B, T); the commitment loss is averaged over levels."""
        residual, parts, codes, losses = x, [], [], []
        for codebook in self.codebooks():
            rows, level_codes = codebook(residual)
            losses.append((residual - rows.detach()).pow(2).mean())
            rows = straight_through(residual, rows)
            residual = residual - rows.detach()
            parts.append(rows)
            codes.append(level_codes)
        total = straight_through(x, torch.stack(parts).sum(0))  # the parts' gradients would add up to `levels` times
        commitment = {"commitment": torch.stack(losses).mean()}
        return ResidualQuantized(total, torch.stack(codes), commitment, self.sizes, parts[0])

    def encode(self, x: Tensor, levels: int | None = None, start: int = 0) -> Tensor:
        """(B, T, D) -> codes (levels - start, B, T). With start > 0 the earlier levels are not subtracted (3.4)."""
        residual, codes = x, []
        for codebook in self.codebooks()[start:levels]:
            codes.append(nearest(residual, codebook.embed))
            residual = residual - F.embedding(codes[-1], codebook.embed)
        return torch.stack(codes)

    def decode(self, codes: Tensor, start: int = 0) -> Tensor:
        """Sum of the rows of codes (K', B, T), read from level `start` on -> (B, T, D)."""
        books = self.codebooks()[start : start + len(codes)]
        return torch.stack([F.embedding(c, b.embed) for c, b in zip(codes, books, strict=True)]).sum(0)
