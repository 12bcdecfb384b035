"""Codebooks that are learned: k-means start, revival of dead codes, the same on every process. And what all share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mio.tokenizers.quantizers.result import Quantized
from mio.types import DataError, MioError


def total(x: Tensor) -> Tensor:
    """Sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def share(rows: Tensor) -> Tensor:
    """The same rows (n, ...) on every process: row i is the one of process i modulo their number."""
    if not dist.is_initialized():
        return rows
    mine = torch.arange(len(rows), device=rows.device) % dist.get_world_size() == dist.get_rank()
    return total(rows * mine.view(-1, *[1] * (rows.dim() - 1)))


def draw(x: Tensor, count: int) -> Tensor:
    """`count` of the vectors (N, D) of all processes, with replacement -> (count, D)."""
    return share(x[torch.randint(len(x), (count,))])


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook row by squared L2, in fp32: (..., D), (K, D) -> (...)."""
    flat, rows = x.detach().reshape(-1, x.shape[-1]).float(), codebook.detach().float()
    with torch.autocast(x.device.type, enabled=False):  # bf16 has 8 bits: near rows would tie
        distance = rows.pow(2).sum(1) - 2 * flat @ rows.T  # |x|^2 is the same for every row
    return distance.argmin(1).view(x.shape[:-1])


def cluster(x: Tensor, codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Number (size,) and sum (size, D) of the vectors (N, D) of every code, over all processes."""
    sums = torch.zeros(size, x.shape[1], device=x.device).index_add_(0, codes, x)
    return total(torch.bincount(codes, minlength=size).float()), total(sums)


def k_means(x: Tensor, size: int, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """(N, D) of every process -> rows (size, D), counts (size,), equal on all."""
    rows = share(x[torch.randperm(len(x))[:size]] if len(x) >= size else x[torch.randint(len(x), (size,))])
    counts = torch.zeros(size)
    for _ in range(iterations):
        counts, sums = cluster(x, nearest(x, rows), size)
        rows = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], rows)
    return rows, counts


def straight_through(z: Tensor, q: Tensor) -> Tensor:
    """The value of q with the gradient of z."""
    return z + (q - z).detach()


def rotate(z: Tensor, q: Tensor) -> Tensor:
    """The value of q as a rotated and scaled z (..., D), so that gradients turn with it (Fifty et al., 2024)."""
    length = z.detach().norm(dim=-1, keepdim=True).clamp(min=1e-6)
    e, to = z.detach() / length, F.normalize(q.detach(), dim=-1)
    half = F.normalize(e + to, dim=-1)
    turned = z - 2 * half * (half * z).sum(-1, keepdim=True) + 2 * to * (e * z).sum(-1, keepdim=True)
    turned = turned * q.detach().norm(dim=-1, keepdim=True) / length
    return straight_through(turned, q)  # at opposite or zero vectors no rotation is defined; elsewhere a rounding error


class VectorModule(nn.Module, ABC):
    """A quantizer of vectors (..., dim). `stacked`: codes have the codebooks as first axis."""

    stacked = False

    def __init__(self, dim: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.sizes = dim, sizes

    def forward(self, x: Tensor) -> Quantized:
        """Checked before any state changes; fp32 whatever autocast says."""
        self._check(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.quantize(x.float())

    @abstractmethod
    def quantize(self, x: Tensor) -> Quantized: ...

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor: ...

    def _check(self, x: Tensor) -> None:
        name = type(self).__name__
        if x.shape[-1] != self.dim or not x.numel():
            raise MioError(f"{name} quantizes vectors of {self.dim} numbers, got shape {tuple(x.shape)}.", at=name)
        broken = (~x.detach().isfinite()).any(-1).sum()
        if bad := int(total(broken) if self.training else broken):  # all processes raise, or none
            raise DataError(
                f"{bad} vectors given to {name} hold NaN or infinity.",
                at=name,
                fix="No codebook was changed. Skip this batch, or lower the learning rate of the encoder.",
            )


class LearnedCodebook(VectorModule):
    """One codebook that is a parameter.

    While training, codes unused for about four times `patience` steps are moved onto vectors of the current batch.
    """

    seen: Tensor

    def __init__(self, size: int, dim: int, patience: float = 15.0) -> None:
        super().__init__(dim, (size,))
        self.embedding = nn.Embedding(size, dim)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)
        self.patience = patience
        self.register_buffer("seen", torch.zeros(size), persistent=False)

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set the rows to the k-means of vectors (..., D)."""
        rows, counts = k_means(x.reshape(-1, self.dim).float(), len(self.seen))
        self.embedding.weight.copy_(rows)
        self.seen.copy_((counts > 0).float())

    @torch.no_grad()
    def revive(self, z: Tensor) -> None:
        """Move codes long unused onto vectors of (..., D)."""
        z = z.detach().reshape(-1, self.dim)
        dead = (self.seen < 0.02).nonzero()[:, 0]
        limit = int(total(torch.tensor(len(z), device=z.device))) // 8
        order = share(torch.randperm(len(dead), device=dead.device)[None])[0]
        dead = dead[order[: max(1, limit)]]
        if len(dead):
            self.embedding.weight[dead] = draw(z, len(dead))
            self.seen[dead] = 1.0

    @torch.no_grad()
    def mark(self, codes: Tensor) -> None:
        """Remember which codes were used."""
        used = total(torch.zeros_like(self.seen).scatter_(0, codes.reshape(-1), 1.0))
        self.seen.mul_(1 - 1 / self.patience)
        self.seen[used > 0] = 1.0

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
        """(..., D) -> rows (..., D), codes (...)."""
        learn = x.detach().reshape(-1, x.shape[-1]).float()
        if self.training and not self.inited:
            self._start(learn)
        codes = nearest(x, self.embed)
        if self.training:
            self._update(learn, codes.reshape(-1))
        return F.embedding(codes, self.embed), codes

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        rows, counts = k_means(x, len(self.embed))
        self.embed.copy_(rows)
        self.cluster_size.copy_(counts)
        self.embed_avg.copy_(rows * counts[:, None])
        self.inited.fill_(1)

    @torch.no_grad()
    def _update(self, x: Tensor, codes: Tensor, eps: float = 1e-5) -> None:
        dead = self.cluster_size < self.dead_below
        fresh = draw(x, int(dead.sum()))
        self.embed[dead] = fresh
        self.embed_avg[dead] = fresh * self.dead_below  # so that the step below keeps the new row where it was put
        self.cluster_size[dead] = self.dead_below
        counts, sums = cluster(x, codes, len(self.embed))
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.embed_avg.lerp_(sums, 1 - self.decay)
        size = self.cluster_size.sum()
        smooth = (self.cluster_size + eps) / (size + len(self.embed) * eps) * size
        self.embed.copy_(self.embed_avg / smooth[:, None])
