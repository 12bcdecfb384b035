"""What every quantizer returns, and how well its codes are used. Knows tensors, not how they were quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mio.types import DataError


@dataclass(frozen=True)
class Health:
    """How well a codebook is used: share of codes seen at all, and perplexity of their distribution."""

    usage: float
    perplexity: float
    dead: int


def health(codes: NDArray[np.int64], size: int) -> Health:
    """Codebook health over any array of codes from one codebook of `size`."""
    counts = np.unique(codes, return_counts=True)[1]  # not bincount: a lookup-free codebook may have 2**36 codes
    share = counts / max(counts.sum(), 1)
    dead = size - len(counts)
    return Health(1 - dead / size, float(np.exp(-(share * np.log(share)).sum())), dead)


@dataclass(frozen=True)
class Quantized:
    """quantized: as the input, fp32, differentiable; codes: int64, (...) of one codebook or (K, ...) of K.

    losses: weighted scalars by name, which `loss` adds up; sizes: of every codebook.
    """

    quantized: Tensor
    codes: Tensor
    losses: dict[str, Tensor]
    sizes: tuple[int, ...]

    @property
    def loss(self) -> Tensor:
        return sum(self.losses.values(), self.quantized.new_zeros(()))

    @property
    def health(self) -> tuple[Health, ...]:
        """Of every codebook, over the vectors of this batch and process."""
        rows = self.codes.detach().cpu().numpy().reshape(len(self.sizes), -1)
        return tuple(health(row, size) for row, size in zip(rows, self.sizes, strict=True))


def diagnose(x: Tensor, out: Quantized) -> tuple[str, ...]:
    """What is wrong with the vectors (..., D) or the codes they got, in words; empty if nothing is."""
    flat = x.detach().reshape(-1, x.shape[-1])
    found = []
    if len(flat) == 1:
        found.append("batch of one: a single vector says nothing about a codebook")
    elif bool((flat == flat[0]).all()):
        found.append(f"constant data: all {len(flat)} vectors are equal")
    for level, (size, state) in enumerate(zip(out.sizes, out.health, strict=True)):
        if size > len(flat):
            found.append(f"codebook {level} larger than the data: {size} codes for {len(flat)} vectors")
        elif state.usage < 0.1 or state.perplexity < 1.5:
            used = size - state.dead
            found.append(f"codebook {level} collapsed: {used} of {size} codes used, perplexity {state.perplexity:.1f}")
    return tuple(found)


def idempotence(codes: NDArray[np.int64], again: NDArray[np.int64]) -> float:
    """Share of equal codes in c and encode(decode(c)), for one tokenizer's spans of equal shape."""
    if codes.shape != again.shape or not codes.size:
        raise DataError(
            f"Codes of shape {codes.shape} cannot be compared with {again.shape}.",
            fix="Encode what was decoded from the same codes, and cut both to the shorter length.",
        )
    return float((codes == again).mean())
