"""Vectors in, codes and quantized vectors out. Knows nothing of what the vectors stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """quantized: as the input, with a straight-through gradient; codes: int64; loss: scalar."""

    quantized: Tensor
    codes: Tensor
    loss: Tensor


@dataclass(frozen=True)
class Health:
    """How well a codebook is used: share of codes seen at all, and perplexity of their distribution."""

    usage: float
    perplexity: float
    dead: int


def health(codes: NDArray[np.int64], size: int) -> Health:
    """Codebook health over any array of codes from one codebook of `size`."""
    counts = np.bincount(codes.ravel(), minlength=size)
    share = counts[counts > 0] / max(counts.sum(), 1)
    dead = int((counts == 0).sum())
    return Health(1 - dead / size, float(np.exp(-(share * np.log(share)).sum())), dead)


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook row by squared L2, in fp32: (..., D), (K, D) -> (...)."""
    flat, rows = x.detach().reshape(-1, x.shape[-1]).float(), codebook.detach().float()
    distance = rows.pow(2).sum(1) - 2 * flat @ rows.T  # |x|^2 is the same for every row
    return distance.argmin(1).view(x.shape[:-1])


class VectorQuantizer(nn.Module):
    """Codebook learned by gradient, as in SEED-2 (vqgan's legacy order): mean((sg[q]-z)^2) + 0.25 mean((q-sg[z])^2).

    While training, codes unused for about four times `patience` steps are moved onto vectors of the current batch.
    """

    seen: Tensor

    def __init__(self, size: int, dim: int, patience: float = 15.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, dim)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)
        self.patience = patience
        self.register_buffer("seen", torch.zeros(size), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        """(..., D) -> quantized (..., D), codes (...)."""
        z = z.float()
        if self.training:
            self._revive(z.detach().reshape(-1, z.shape[-1]))
        codes = nearest(z, self.embedding.weight)
        q = self.embedding(codes)
        loss = F.mse_loss(z, q.detach()) + 0.25 * F.mse_loss(q, z.detach())
        if self.training:
            self.seen.mul_(1 - 1 / self.patience)
            self.seen.scatter_(0, codes.reshape(-1), 1.0)
        return Quantized(z + (q - z).detach(), codes, loss)

    @torch.no_grad()
    def _revive(self, z: Tensor) -> None:
        dead = (self.seen < 0.02).nonzero()[:, 0]
        dead = dead[torch.randperm(len(dead))[: max(1, len(z) // 8)]]
        if len(dead):
            self.embedding.weight[dead] = z[torch.randint(len(z), (len(dead),))]
            self.seen[dead] = 1.0

    def decode(self, codes: Tensor) -> Tensor:
        out: Tensor = self.embedding(codes)
        return out


class EuclideanCodebook(nn.Module):
    """EMA codebook of EnCodec and SpeechTokenizer (core_vq.py): k-means start, dead codes replaced from the batch."""

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.99, dead_below: float = 2.0) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.register_buffer("embed", torch.empty(size, dim).uniform_(-1, 1) * (3 / dim) ** 0.5)
        self.register_buffer("embed_avg", self.embed.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> rows (B, T, D), codes (B, T)."""
        learn = x.detach().reshape(-1, x.shape[-1]).float()
        if self.training and not self.inited:
            self._start(learn)
        codes = nearest(x, self.embed)
        if self.training:
            self._update(learn, codes.reshape(-1))
        return F.embedding(codes, self.embed), codes

    @torch.no_grad()
    def _start(self, x: Tensor, iterations: int = 50) -> None:
        size = len(self.embed)
        rows = x[torch.randperm(len(x))[:size]] if len(x) >= size else x[torch.randint(len(x), (size,))]
        for _ in range(iterations):
            codes = nearest(x, rows)
            counts = torch.bincount(codes, minlength=size).float()
            sums = torch.zeros_like(rows).index_add_(0, codes, x)
            rows = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], rows)
        self.embed.copy_(rows)
        self.cluster_size.copy_(counts)
        self.embed_avg.copy_(rows * counts[:, None])
        self.inited.fill_(1)

    @torch.no_grad()
    def _update(self, x: Tensor, codes: Tensor, eps: float = 1e-5) -> None:
        dead = self.cluster_size < self.dead_below
        fresh = x[torch.randint(len(x), (int(dead.sum()),))]
        self.embed[dead] = fresh
        self.embed_avg[dead] = fresh * self.dead_below  # so that the step below keeps the new row where it was put
        self.cluster_size[dead] = self.dead_below
        size = len(self.embed)
        counts = torch.bincount(codes, minlength=size).float()
        sums = torch.zeros_like(self.embed).index_add_(0, codes, x)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smooth = (self.cluster_size + eps) / (total + size * eps) * total
        self.embed.copy_(self.embed_avg / smooth[:, None])


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


class ResidualVQ(nn.Module):
    """K codebooks, each quantizing what the ones before left over.

    `dead_below` is a number of vectors per batch and code: with few vectors per code it must be small, or every code
    is taken for dead and replaced at every step.
    """

    def __init__(self, levels: int, size: int, dim: int, decay: float = 0.99, dead_below: float = 2.0) -> None:
        super().__init__()
        self.vq = _Levels(levels, size, dim, decay, dead_below)

    def codebooks(self) -> list[EuclideanCodebook]:
        return [level._codebook for level in self.vq.layers]  # type: ignore[misc]

    def forward(self, x: Tensor) -> ResidualQuantized:
        """(B, T, D) -> quantized (B, T, D), codes (K, B, T); the commitment loss is averaged over levels."""
        residual, parts, codes, losses = x, [], [], []
        for codebook in self.codebooks():
            rows, level_codes = codebook(residual)
            losses.append((residual - rows.detach()).pow(2).mean())
            rows = residual + (rows - residual).detach()
            residual = residual - rows.detach()
            parts.append(rows)
            codes.append(level_codes)
        total = torch.stack(parts).sum(0)
        total = x + (total - x).detach()  # every part passes the gradient: their sum would multiply it by the levels
        return ResidualQuantized(total, torch.stack(codes), torch.stack(losses).mean(), parts[0])

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
