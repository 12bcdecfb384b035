"""Tensors of released files into a module that was built on the meta device, one at a time: no second copy is held."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mio.types import DataError, MissingError


@dataclass(frozen=True)
class Report:
    """Names found in released files: those the network took, and those it has no use for, in the order of the files."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]

    def __add__(self, other: Report) -> Report:
        return Report(self.loaded + other.loaded, self.ignored + other.ignored)


def need(folder: Path, files: Mapping[str, str], what: str) -> None:
    """Raise `MissingError` that lists every absent file of `files` (name -> size, for people)."""
    lacking = [f"{name} ({size})" for name, size in files.items() if not (folder / name).is_file()]
    if lacking:
        fix = f"Put the files of {what} there; what is there is kept."
        raise MissingError(f"{folder.name} lacks {', '.join(lacking)}.", at=str(folder), fix=fix)


def fill(
    module: nn.Module, found: Iterable[tuple[str, Tensor]], demanded: Collection[str], dtype: torch.dtype, at: str
) -> Report:
    """Give `module` the tensors that it demands, floats in `dtype`. Those that have it already stay mapped, not copied.

    Raises:
        DataError: a demanded name is missing or there twice, or a tensor has another shape or kind of number.
    """
    own = module.state_dict()
    loaded: dict[str, None] = {}
    ignored, faults = [], []
    for name, tensor in found:
        if name not in demanded:
            ignored.append(name)
            continue
        fault = "there twice" if name in loaded else _misfit(tensor, own[name])
        if fault:
            faults.append(f"{name} {fault}")
        else:
            _place(module, name, tensor.to(dtype) if tensor.is_floating_point() else tensor)
        loaded[name] = None
    refuse([*faults, *(f"{name} missing" for name in demanded if name not in loaded)], at)
    return Report(tuple(loaded), tuple(ignored))


def refuse(faults: list[str], at: str) -> None:
    """Raise `DataError` with the number of faults and the first five of them, if there are any."""
    if faults:
        reason = f"Weights do not fit: {'; '.join(sorted(faults)[:5])} ({len(faults)} faults)."
        raise DataError(
            reason, at=at, fix="Get the file from its publisher again, or correct the config.json beside it."
        )


def _misfit(tensor: Tensor, own: Tensor) -> str:
    if tensor.shape != own.shape:
        return f"is {tuple(tensor.shape)} instead of {tuple(own.shape)}"
    if tensor.is_floating_point() != own.is_floating_point():
        return f"is {tensor.dtype} instead of {own.dtype}"
    return ""


def _place(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of the module's own one, which is on another device."""
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
