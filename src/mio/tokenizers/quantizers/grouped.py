"""The width is cut into groups, each with a quantizer of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mio.tokenizers.quantizers.codebook import VectorModule
from mio.tokenizers.quantizers.residual import RVQConfig
from mio.tokenizers.quantizers.result import Quantized
from mio.tokenizers.quantizers.vector import EMAVQConfig, GumbelConfig, VQConfig
from mio.types import MioError

Single = VQConfig | EMAVQConfig | GumbelConfig


def fold(digits: Tensor, radices: tuple[int, ...]) -> Tensor:
    """Digits (..., n), each below its radix, the first one counting least -> one number (...)."""
    places = [math.prod(radices[:i]) for i in range(len(radices))]
    return (digits * torch.tensor(places, device=digits.device)).sum(-1)


def unfold(numbers: Tensor, radices: tuple[int, ...]) -> Tensor:
    """The inverse of `fold`: (...) -> (..., n)."""
    places = [math.prod(radices[:i]) for i in range(len(radices))]
    digits = numbers[..., None] // torch.tensor(places, device=numbers.device)
    return digits % torch.tensor(radices, device=numbers.device)


@dataclass(frozen=True)
class GroupedConfig:
    """`groups` quantizers side by side, `each` of width D / groups: grouped VQ; with RVQConfig group-residual VQ."""

    each: Single | RVQConfig
    groups: int

    def build(self) -> GroupedVQ:
        return GroupedVQ(self.each, self.groups)


class GroupedVQ(VectorModule):
    """(..., D) -> codes (K, ...): the codebooks of the first group, then those of the second, ..."""

    stacked = True

    def __init__(self, each: Single | RVQConfig, groups: int) -> None:
        parts: list[VectorModule] = [each.build() for _ in range(groups)]
        super().__init__(each.dim * groups, tuple(size for part in parts for size in part.sizes))
        self.groups = nn.ModuleList(parts)

    def quantize(self, x: Tensor) -> Quantized:
        outs: list[Quantized] = [part(piece) for part, piece in zip(self.groups, self._cut(x), strict=True)]
        codes = torch.cat([out.codes.reshape(len(out.sizes), *x.shape[:-1]) for out in outs])
        losses = {name: torch.stack([out.losses[name] for out in outs]).mean() for name in outs[0].losses}
        return Quantized(torch.cat([out.quantized for out in outs], -1), codes, losses, self.sizes)

    def decode(self, codes: Tensor) -> Tensor:
        pieces = codes.tensor_split(len(self.groups))
        return torch.cat([self._read(part, c) for part, c in zip(self.groups, pieces, strict=True)], -1)

    def _cut(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.chunk(len(self.groups), -1)

    def _read(self, part: nn.Module, codes: Tensor) -> Tensor:
        assert isinstance(part, VectorModule)
        return part.decode(codes if part.stacked else codes[0])


@dataclass(frozen=True)
class ProductConfig:
    """One code in the Cartesian product of the groups' codebooks (Jegou et al., 2011): never written out as rows."""

    each: Single
    groups: int

    def build(self) -> ProductVQ:
        return ProductVQ(self.each, self.groups)


class ProductVQ(VectorModule):
    """(..., D) -> codes (...) below each.size ** groups."""

    def __init__(self, each: Single, groups: int) -> None:
        super().__init__(each.dim * groups, (each.size**groups,))
        if self.sizes[0] > 2**62:
            raise MioError(
                f"{groups} codebooks of {each.size} codes have a product that no int64 can number.",
                at="ProductConfig.groups",
                fix="Use GroupedConfig, which gives one code per group.",
            )
        self.radices = (each.size,) * groups
        self.grouped = GroupedVQ(each, groups)

    def quantize(self, x: Tensor) -> Quantized:
        out: Quantized = self.grouped(x)
        return Quantized(out.quantized, fold(out.codes.movedim(0, -1), self.radices), out.losses, self.sizes)

    def decode(self, codes: Tensor) -> Tensor:
        return self.grouped.decode(unfold(codes, self.radices).movedim(-1, 0))
