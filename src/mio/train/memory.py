"""A step that does not fit into memory is done again in smaller batches: the same samples, the same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch

from mio.types import ResourceError


@runtime_checkable
class Halving(Protocol):
    """An objective whose batches can be cut. Its losses must be sums over targets, with their weight beside them."""

    def halves(self, batch: Any) -> tuple[Any, ...]:
        """Two batches of the same samples, or the batch alone where it holds only one."""
        ...


class TooLarge(Exception):
    """A batch did not fit into memory, and smaller ones can be made of it."""


def out_of_memory(error: BaseException) -> bool:
    """torch raises an error of its own for accelerators; for a CPU's memory one without a type, known by its words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def pieces(objective: object, batch: Any, cuts: int) -> Iterator[Any]:
    """A batch, cut in half `cuts` times over as far as its samples allow."""
    halves = objective.halves(batch) if cuts and isinstance(objective, Halving) else (batch,)
    if len(halves) == 1:
        yield batch
        return
    for half in halves:
        yield from pieces(objective, half, cuts - 1)


def give_up(objective: object, batch: Any, error: BaseException) -> None:
    """Raises: TooLarge: where the batch can be cut. ResourceError: where it cannot."""
    if isinstance(objective, Halving) and len(objective.halves(batch)) > 1:
        raise TooLarge from error
    fix = "Make batches smaller (a stage's `tokens`, with more `fit.parts`), or the model; `mio plan` says what fits."
    raise ResourceError("Memory ran out in a step that cannot be cut further.", fix=fix) from error
