"""Tensors out of released files, one at a time: safetensors, or `.bin` and `.pt` through torch's restricted loader,
which rebuilds tensors and runs nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mio.checkpoint import read_json
from mio.types import DataError, MissingError

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
MAPPED = 1 << 27  # bytes read from a mapped file before it is mapped anew: pages once read count as our memory


def shards(folder: Path) -> list[Path]:
    """The files that hold a folder's weights; safetensors come first where both are there.

    Raises:
        MissingError: there are none, or the index names files that are not there; all of them are listed.
        DataError: the index is no index.
    """
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if (folder / index).is_file():
            paths = [folder / name for name in sorted(set(weight_map(folder / index).values()))]
            lacking = [p.name for p in paths if not p.is_file()]
            if lacking:
                fix = "Download the folder again; what is there is kept."
                raise MissingError(f"Weights are missing: {', '.join(lacking)}.", at=str(folder), fix=fix)
            return paths
        if (folder / single).is_file():
            return [folder / single]
    raise MissingError("No weights here.", at=str(folder), fix=f"Expected one of {', '.join((*INDEXES, *SINGLES))}.")


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file of an index; the files lie beside it.

    Raises:
        DataError: the index is no index, or points elsewhere.
    """
    found = read_json(index)
    files = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(n, str) for n in files.values()):
        raise DataError(f"{index.name} has no weight_map from tensors to files.", at=str(index))
    outside = sorted({name for name in files.values() if Path(name).name != name})
    if outside:
        raise DataError(f"{index.name} points outside its folder: {', '.join(outside)}.", at=str(index))
    return files


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one file; no weight is read.

    Raises:
        MissingError, DataError: as for `tensors`.
    """
    _demand(path)
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _torch_file(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise _damaged(path) from error


def tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of one file, memory-mapped: what is not touched is not read, and what a caller drops is freed.

    Raises:
        MissingError: no such file. DataError: cut short, damaged, or a pickle that asks for more than tensors.
    """
    _demand(path)
    yield from _safetensors(path) if path.suffix == ".safetensors" else _torch_tensors(path)


def _demand(path: Path) -> None:
    if not path.is_file():
        raise MissingError(f"No {path.name} in {path.parent}.", at=str(path))


def _damaged(path: Path) -> DataError:
    return DataError(f"{path.name} is damaged or cut short.", at=str(path), fix="Download it again.")


def _safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        for name in shapes(path):
            with safe_open(path, framework="pt") as file:  # opened for each: its mapping lives as long as it does
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise _damaged(path) from error


def _torch_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    found, touched, mapped = _torch_file(path), 0, _is_zip(path)
    for name in list(found):
        if mapped and touched > MAPPED:
            found, touched = _torch_file(path), 0
        touched += found[name].nbytes
        yield name, found[name]


def _torch_file(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        reason = f"{path.name} is no file of tensors: reading it would run code, or it is damaged."
        raise DataError(reason, at=str(path), fix="Get it from its publisher, or as safetensors.") from error
    except Exception as error:  # a damaged pickle is a broken program: it ends in any way
        raise _damaged(path) from error
    if isinstance(found, dict) and all(isinstance(k, str) and _dense(v) for k, v in found.items()):
        return found
    raise DataError(f"{path.name} is not a flat dictionary of tensors.", at=str(path))


def _is_zip(path: Path) -> bool:
    """Files older than torch 1.6 are no archives and cannot be mapped."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided
