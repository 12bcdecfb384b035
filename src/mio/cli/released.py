"""Folders of Hugging Face's form: what they hold and lack, and whether this machine can run them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mio.checkpoint import CONFIG, read_json
from mio.models.backbone import BackboneConfig
from mio.pretrained import memory
from mio.pretrained.hub import locate
from mio.pretrained.inventory import front_matter, inventory, readable, size
from mio.pretrained.llama import read_config

MIO_7B = "m-a-p/MIO-7B"  # -Base and -Instruct
OVERHEAD = 2**30  # bytes beside weights and cache: Python, torch, a layer's activations


def facts(folder: Path) -> dict[str, Any]:
    """What `mio inspect` says of it.

    Raises:
        MissingError: there is no config.json; names all else that is missing, too. DataError: a config.json of a model
        that is not ours to run.
    """
    held = inventory(folder)
    if not (folder / CONFIG).is_file():
        held.demand()
    config = read_config(folder)
    return {
        "kind": "released model",
        "name": folder.name,
        "architecture": ", ".join(read_json(folder / CONFIG).get("architectures") or ["not said"]),
        "licence": str(front_matter(folder / "README.md").get("license", "not said")),
        "parameters": memory.parameters(config),
        "ids": config.vocabulary,
        "positions": config.positions,
        "parts": _parts(folder),
        "bytes": size(folder),
        "memory for weights": {dtype: memory.weights(config, dtype) for dtype in memory.DTYPES},
        "memory for 1,000 tokens": {dtype: memory.cache(config, dtype) for dtype in memory.DTYPES},
        "missing": [str(need) for need in held.missing] or "nothing",
    }


def _parts(folder: Path) -> dict[str, int]:
    """Bytes of the language model, which lies in the folder itself, and of every folder in it."""
    own = {"language model": sum(p.stat().st_size for p in folder.iterdir() if p.is_file())}
    return own | {p.name: size(p) for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def state(source: Path, revision: str | None = None) -> tuple[str, str]:
    """What of a model is here, and what to do about the rest ("" if nothing).

    Raises:
        MissingError: it is not on this machine at all.
    """
    folder = locate(source, revision=revision, offline=True)
    held = inventory(folder)
    found = f"{folder}: {readable(size(folder))}"
    if not held.missing:
        return f"{found}, every file of its layout is there", ""
    free = shutil.disk_usage(folder).free
    fix = f"Download what is missing; {readable(free)} are free there: {', '.join(map(str, held.missing))}"
    return f"{found}, {len(held.missing)} files missing", fix


def shape(source: Path, revision: str | None = None) -> BackboneConfig | None:
    """The shape of a model: the folder's, or the one that is known of MIO-7B before it is downloaded; else None."""
    if source.is_dir() or not str(source).startswith(MIO_7B):
        folder = locate(source, revision=revision, offline=True)
        return read_config(folder) if (folder / CONFIG).is_file() else None
    return BackboneConfig()


def room(config: BackboneConfig, ram: int, gpu: int) -> tuple[str, str]:
    """The widest dtype in which a model runs in free RAM or GPU memory ("" if in none), and the sums, for people."""
    needed = {dtype: memory.total(config, dtype) + OVERHEAD for dtype in memory.DTYPES}
    best = next((dtype for dtype in memory.DTYPES if needed[dtype] <= max(ram, gpu)), "")
    sums = ", ".join(f"{dtype} {readable(count)}" for dtype, count in needed.items())
    where = f"{readable(ram)} of memory free" + (f", {readable(gpu)} on the GPU" if gpu else "")
    return best, f"{memory.parameters(config):,} parameters: {sums}; {where}"
