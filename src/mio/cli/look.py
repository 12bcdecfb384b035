"""`mio inspect`: what a folder or a file of ours is, in a few numbers."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mio.checkpoint import WEIGHTS, read_json, verify
from mio.cli import released
from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.inputs import parse_object, read_lines
from mio.cli.runs import find_recipe, recipes, stages_done
from mio.config import from_dict, suggest
from mio.media import read
from mio.pipeline import ModelConfig
from mio.pretrained.hub import is_id, locate
from mio.pretrained.inventory import is_released
from mio.recipe.curves_page import write_curves
from mio.types import Audio, DataError, Image, MissingError

Facts = dict[str, Any]


def inspect(args: Arguments, console: Console) -> int:
    console.fields(facts(args.path, args.revision))
    return 0


def facts(path: Path, revision: str | None = None) -> Facts:
    """Raises: MissingError where nothing is. DataError for a file or folder that is none of ours."""
    if path.is_dir():
        return _of_folder(path)
    if path.suffix in (".yaml", ".yml") or (not path.exists() and str(path) in recipes()):
        return _of_recipe(str(path))
    if not path.exists() and is_id(path):
        return released.facts(locate(path, revision=revision, offline=True))
    if not path.exists():
        raise MissingError("There is no such file, folder or recipe.", at=str(path), fix=suggest(str(path), recipes()))
    return _of_media(path)


def _of_folder(folder: Path) -> Facts:
    if (folder / "recipe.json").is_file():
        return _of_run(folder)
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "backbone" in config:
        return _of_model(folder)
    if "samples" in config and (folder / "ids.bin").is_file():
        return _of_store(folder, config)
    if is_released(folder):
        return released.facts(folder)
    what = "This folder is no model, run or token store."
    raise DataError(what, at=str(folder), fix="Give one that mio has written.")


def _of_model(folder: Path) -> Facts:
    config = from_dict(ModelConfig, read_json(folder / "config.json"))
    weights = {_part(path.parent, folder): _weights(path) for path in sorted(folder.rglob(WEIGHTS))}
    return {
        "kind": "model",
        "name": config.name,
        "modalities": ["text", *(row.name for row in config.rows)],
        "parameters": sum(count for count, _ in weights.values()),
        "parts": {part: count for part, (count, _) in weights.items()},
        "dtypes": {part: dtype for part, (_, dtype) in weights.items()},
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "codes": {r.name: f"{r.codebooks} x {r.codebook_size}" for r in config.rows if r.size},
        "positions": config.backbone.positions,
        "fingerprint": config.fingerprint,
        "ids": config.backbone.vocabulary,
        "intact": _intact(folder),
    }


def _part(inner: Path, folder: Path) -> str:
    return "backbone" if inner == folder else inner.relative_to(folder).as_posix()


def _weights(path: Path) -> tuple[int, str]:
    """Number of parameters and their types, from the header alone."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (not a dict)
            types = Counter[str]()
            for piece in slices:
                types[piece.get_dtype()] += prod(piece.get_shape())
    except SafetensorError as error:
        raise DataError(f"{path.name} is damaged or not safetensors.", at=str(path)) from error
    return types.total(), "+".join(name for name, _ in types.most_common())


def _intact(folder: Path) -> str:
    """What the manifest says of the files."""
    try:
        verify(folder)
    except (DataError, MissingError) as error:
        return f"no: {error}"
    return "yes"


def _of_run(folder: Path) -> Facts:
    recipe = read_json(folder / "recipe.json")
    metrics: dict[str, Any] = {}
    path = folder / "metrics.jsonl"
    for at, line in read_lines(str(path)) if path.is_file() else ():
        with suppress(DataError):  # the line that a training writes just now
            found = parse_object(line, at)
            metrics[str(found.pop("stage", ""))] = found
    run = {"kind": "run", "recipe": recipe.get("name", ""), "stages": stages_done(folder)}
    drawn = write_curves(folder)
    return run | ({"curves": str(drawn)} if drawn else {}) | {"last metrics": metrics}


def _of_store(folder: Path, config: Facts) -> Facts:
    tasks = Counter(str(parse_object(line, at)["task"]) for at, line in read_lines(str(folder / "samples.jsonl")))
    tokens = (folder / "ids.bin").stat().st_size // 4
    return {
        "kind": "token store",
        "samples": config["samples"],
        "tokens": tokens,
        "tasks": dict(tasks.most_common()),
        "fingerprint": config["fingerprint"],
        "intact": _intact(folder),
    }


def _of_recipe(name: str) -> Facts:
    recipe = find_recipe(name)
    return {
        "kind": "recipe",
        "name": recipe.name,
        "modalities": ["text", *(row.name for row in recipe.rows)],
        "stages": {stage.name: f"{stage.fit.steps} steps of {stage.tokens} ids" for stage in recipe.stages},
        "layers": recipe.backbone.layers,
        "width": recipe.backbone.width,
        "positions": recipe.backbone.positions,
    }


def _of_media(path: Path) -> Facts:
    media, common = read(path), {"bytes": path.stat().st_size}
    if isinstance(media, Image):
        height, width = media.pixels.shape[:2]
        return {"kind": "image", "width": width, "height": height} | common
    if isinstance(media, Audio):
        return {"kind": "speech", "seconds": round(media.seconds, 3), "rate": media.rate} | common
    frames, height, width = media.frames.shape[:3]
    times = {"seconds": round(frames / media.fps, 3), "frames": frames, "fps": round(media.fps, 3)}
    return {"kind": "video", "width": width, "height": height} | times | common
