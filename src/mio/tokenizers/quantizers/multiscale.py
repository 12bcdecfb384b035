"""Next-scale maps: a picture's features as a pyramid of code maps, coarse to fine (VAR; Tian et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.tokenizers.quantizers.codebook import LearnedCodebook, nearest, straight_through
from mio.tokenizers.quantizers.result import Quantized
from mio.types import MioError


@dataclass(frozen=True)
class MultiScaleConfig:
    """One codebook for maps of `scales` (side lengths, the last that of the features).

    `smooth`: share of a 3 x 3 convolution in what a scale adds, which mends what scaling up spoils; 0.5 in VAR.
    """

    size: int
    dim: int
    scales: tuple[int, ...] = (1, 2, 4)
    smooth: float = 0.5
    commitment: float = 0.25
    patience: float = 15.0

    def build(self) -> MultiScaleVQ:
        return MultiScaleVQ(self)


class MultiScaleVQ(LearnedCodebook):
    """(B, S, S, D) -> codes (B, sum of s * s), scale after scale; each scale quantizes what the coarser left over."""

    def __init__(self, c: MultiScaleConfig) -> None:
        super().__init__(c.size, c.dim, c.patience)
        self.scales, self.smooth, self.commitment = c.scales, c.smooth, c.commitment
        self.mend = nn.ModuleList(nn.Conv2d(c.dim, c.dim, 3, padding=1) for _ in c.scales)

    def quantize(self, x: Tensor) -> Quantized:
        if x.dim() != 4 or x.shape[1] != self.scales[-1] or x.shape[2] != self.scales[-1]:
            side, shape = self.scales[-1], tuple(x.shape)
            raise MioError(
                f"Features must be (B, {side}, {side}, {self.dim}), got {shape}.", at="MultiScaleConfig.scales"
            )
        z = x.movedim(-1, 1)  # (B, D, S, S)
        sums, small, codes = self._descend(z.detach())
        pulls = [F.mse_loss(s, z.detach()) for s in sums], [F.mse_loss(s.detach(), z) for s in sums]
        codebook, commitment = (torch.stack(pull).mean() for pull in pulls)
        if self.training:
            self.mark(torch.cat(codes, 1))
            self.revive(torch.cat(small, 1))  # last: the rows above must be those that were used
        losses = {"commitment": self.commitment * commitment, "codebook": codebook}
        return Quantized(straight_through(x, sums[-1].movedim(1, -1)), torch.cat(codes, 1), losses, self.sizes)

    def _descend(self, rest: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """(B, D, S, S) -> per scale: sum up to it (B, D, S, S); vectors (B, s * s, D) and codes (B, s * s)."""
        sums: list[Tensor] = []
        small, codes = [], []
        for level, side in enumerate(self.scales):
            small.append(F.interpolate(rest, size=(side, side), mode="area").flatten(2).mT)
            codes.append(nearest(small[-1], self.embedding.weight))
            added = self._paint(level, codes[-1])
            sums.append(sums[-1] + added if sums else added)
            rest = rest - added.detach()
        return sums, small, codes

    def _paint(self, level: int, codes: Tensor) -> Tensor:
        """Codes of one scale (B, s * s) -> what they add (B, D, S, S)."""
        side, full = self.scales[level], self.scales[-1]
        rows = self.embedding(codes).mT.unflatten(2, (side, side))
        rows = rows if side == full else F.interpolate(rows, size=(full, full), mode="bicubic")
        return torch.lerp(rows, self.mend[level](rows), self.smooth)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, n) of the first scales, or of all -> (B, S, S, D)."""
        ends = torch.tensor([side * side for side in self.scales]).cumsum(0).tolist()
        if codes.shape[1] not in ends:
            raise MioError(f"{codes.shape[1]} codes are no whole number of scales: those end at {ends}.", at="codes")
        given = ends[: ends.index(codes.shape[1])]
        maps = codes.tensor_split(given, dim=1)
        return torch.stack([self._paint(level, c) for level, c in enumerate(maps)]).sum(0).movedim(1, -1)
