"""A folder of config.json + safetensors + manifest of SHA-256, committed by one rename. Never a pickle, never code."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mio.types import DataError, MissingError, ResourceError

MANIFEST = "manifest.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def commit(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, add the manifest, then put it in place of `folder` by renaming.

    Readers see the old folder or the new one, never half of either.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    staging, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    staging.mkdir()
    try:
        write(staging)
        files = [p for p in sorted(staging.rglob("*")) if p.is_file()]
        manifest = {p.relative_to(staging).as_posix(): sha256(p) for p in files}
        write_json(staging / MANIFEST, manifest)
        for path in (*files, staging / MANIFEST):
            _flush(path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else "its tensors could not be written"
        fix = "Free some space; the previous checkpoint is untouched."
        raise ResourceError(f"Could not write {folder}: {reason}.", at=str(folder), fix=fix) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if folder.exists():
        os.replace(folder, old)
    os.replace(staging, folder)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the system put a file on the disk before it is named in a manifest."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def recover(folder: Path) -> None:
    """Finish a `commit` that was killed between its two renames."""
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)


def verify(folder: Path) -> None:
    """Raise `DataError` when a file of the manifest is missing or its SHA-256 differs."""
    manifest = read_json(folder / MANIFEST)
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            state = "damaged" if path.is_file() else "missing"
            raise DataError(f"{name} is {state}.", at=str(folder), fix="Restore the folder from its source.")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits over a configuration and the bytes of its tensors, in name order."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def require(found: str, own: str, what: str, fix: str) -> None:
    """Refuse an artefact whose fingerprint is not this model's: its codes and ids would mean something else.

    Raises:
        DataError: naming both fingerprints.
    """
    if found != own:
        raise DataError(
            f"{what} was made with tokenizers and vocabulary {found}; here they are {own}.", at=what, fix=fix
        )


def read_json(path: Path) -> Any:
    if not path.is_file():
        raise MissingError(f"No {path.name} in {path.parent}.", at=str(path), fix="Point to a folder written by mio.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path.name} is not valid JSON.", at=str(path)) from error


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def save_module(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors into an existing folder (inside `commit`)."""
    write_json(folder / CONFIG, config)
    save_file({k: v.detach().contiguous() for k, v in state.items()}, folder / WEIGHTS)


def compact(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights rounded to bf16 for a finished part; quantizer tables stay fp32, since codes hang on their distances."""
    return {k: v.bfloat16() if v.is_floating_point() and "quantize" not in k else v for k, v in state.items()}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file.

    Raises:
        MissingError: no such file. DataError: not a safetensors file, or cut short.
    """
    if not path.is_file():
        raise MissingError(f"No {path.name} in {path.parent}.", at=str(path))
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise DataError(f"{path.name} is damaged or not safetensors.", at=str(path)) from error


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], at: str = "") -> None:
    """Strict `load_state_dict` (any float dtype into the module's own) whose error names the first faults."""
    expected = module.state_dict()
    faults = [f"{k} missing" for k in expected.keys() - tensors.keys()]
    faults += [f"{k} not expected" for k in tensors.keys() - expected.keys()]
    both = expected.keys() & tensors.keys()
    faults += [
        f"{k} is {tuple(tensors[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in both
        if tensors[k].shape != expected[k].shape
    ]
    if faults:
        raise DataError(f"Weights do not fit: {'; '.join(sorted(faults)[:5])} ({len(faults)} faults).", at=at)
    module.load_state_dict(dict(tensors))
