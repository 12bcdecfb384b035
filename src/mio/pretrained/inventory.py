"""Which files a released model has and lacks, and their sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mio.checkpoint import CONFIG, read_json
from mio.pretrained import memory
from mio.pretrained.llama import read_config
from mio.pretrained.weights import INDEXES, SINGLES, weight_map
from mio.types import MioError, MissingError

UNCLIP = "stable-diffusion-2-1-unclip"


@dataclass(frozen=True)
class Need:
    """A file (or folder) of a released model. `bytes`: 0 where its size is not known. `what`: what it holds."""

    path: str
    bytes: int
    what: str

    def __str__(self) -> str:
        return f"{self.path} ({readable(self.bytes) if self.bytes else self.what})"


SHARDS = 6
SHARD = f"1 of {SHARDS} weight files, 24.6 GB together"
LAYOUT: Mapping[str, tuple[Need, ...]] = {  # what is read of MIO-7B-Base and -Instruct; sizes as they are listed
    "language": (
        Need("config.json", 0, "shape of the language model, 2 kB"),
        Need("tokenizer.model", 0, "text tokenizer, 1 MB"),
        Need("tokenizer_config.json", 0, "ids of every code, 2 MB"),
    ),
    "weights": (
        Need(INDEXES[1], 0, "which weight is in which file, 24 kB"),
        *(Need(f"pytorch_model-{n:05}-of-{SHARDS:05}.bin", 0, SHARD) for n in range(1, SHARDS + 1)),
    ),
    "image": (
        Need("seed-tokenizer-2/seed_quantizer.pt", 1_230_000_000, "image tokenizer"),
        Need("seed-tokenizer-2/eva_vit_g.pth", 0, "its vision transformer in fp16, 2 GB"),
    ),
    "pixels": (  # without image_encoder: it is given embeddings
        Need(f"{UNCLIP}/model_index.json", 0, "list of the image decoder's parts"),
        Need(f"{UNCLIP}/unet", 3_500_000_000, "its denoiser, in fp32"),
        Need(f"{UNCLIP}/text_encoder", 1_400_000_000, "its text encoder, in fp32"),
        Need(f"{UNCLIP}/vae", 335_000_000, "its autoencoder, in fp32"),
        *(Need(f"{UNCLIP}/{part}", 0, "settings") for part in ("image_normalizer", "image_noising_scheduler")),
        *(Need(f"{UNCLIP}/{part}", 0, "settings") for part in ("scheduler", "tokenizer")),
    ),
    "speech": (
        Need("SpeechTokenizer/SpeechTokenizer.pt", 481_906_997, "speech tokenizer"),
        Need("SpeechTokenizer/config.json", 0, "its shape"),
    ),
}


@dataclass(frozen=True)
class Inventory:
    """What a folder has of the released layout, with the sizes found, and what it lacks."""

    folder: Path
    there: tuple[Need, ...]
    missing: tuple[Need, ...]

    def demand(self) -> None:
        """Raises: MissingError that names every missing file and its size."""
        if self.missing:
            many = "File is" if len(self.missing) == 1 else f"{len(self.missing)} files are"
            what = f"{many} missing: {', '.join(map(str, self.missing))}."
            fix = "Download the rest, for example: hf download m-a-p/MIO-7B-Instruct --local-dir DIR"
            raise MissingError(what, at=str(self.folder), fix=fix)


def is_released(folder: Path) -> bool:
    """Whether a folder is a Hugging Face model, or the remains of one."""
    return "model_type" in _config(folder) or _has_media(folder) or any((folder / i).is_file() for i in INDEXES)


def inventory(folder: Path) -> Inventory:
    """What is there of a released model; a folder without any trace of media is held to be a language model only."""
    speaks = "image_bos_id" in _config(folder) or _has_media(folder)
    return needs(folder, tuple(LAYOUT) if speaks else ("language", "weights"))


def _config(folder: Path) -> Any:
    return read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}


def _has_media(folder: Path) -> bool:
    """Whether one of the folders is there in which the released media tokenizers lie."""
    paths = {Path(need.path).parts[0] for part in ("image", "pixels", "speech") for need in LAYOUT[part]}
    return any((folder / path).is_dir() for path in paths)


def demand_language(folder: Path) -> None:
    """Raises: MissingError where the language model is not whole; it names all that is missing, media's files too."""
    if needs(folder, ("language", "weights")).missing:
        inventory(folder).demand()


def needs(folder: Path, wanted: Iterable[str] = tuple(LAYOUT)) -> Inventory:
    """Which files of the `wanted` parts, names in `LAYOUT`, are in a folder."""
    listed = [need for part in wanted for need in _listed(folder, part)]
    there = [replace(need, bytes=size(folder / need.path)) for need in listed if (folder / need.path).exists()]
    return Inventory(folder, tuple(there), tuple(need for need in listed if not (folder / need.path).exists()))


def _listed(folder: Path, part: str) -> Sequence[Need]:
    if part == "weights":
        return _weights(folder)
    if part == "language" and (folder / "tokenizer.json").is_file():
        return LAYOUT[part][0], Need("tokenizer.json", 0, "text tokenizer")
    return LAYOUT[part]


def _weights(folder: Path) -> Sequence[Need]:
    """What the folder's own index names, else its one file, else the released files."""
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if (folder / index).is_file():
            return _shards(folder, index)
        if (folder / single).is_file():
            return (Need(single, 0, "weights"),)
    return LAYOUT["weights"]


def _shards(folder: Path, index: str) -> list[Need]:
    """An index and its files, with the bytes of their tensors where config.json and the index together tell these."""
    files = weight_map(folder / index)
    held = Counter[str]()
    for name, count in _counts(folder).items():
        held[files.get(name, "")] += count
    del held[""]
    width = round(_total(folder / index) / max(held.total(), 1))  # bytes of a number
    what = f"1 of {len(set(files.values()))} weight files"
    shards = (Need(name, width * held[name], what) for name in sorted(set(files.values())))
    return [Need(index, 0, "which weight is in which file"), *shards]


def _counts(folder: Path) -> dict[str, int]:
    """Numbers in each tensor; none where config.json does not tell."""
    try:
        return memory.counts(read_config(folder))
    except MioError:
        return {}


def _total(index: Path) -> int:
    """Bytes of all tensors; 0 where an index does not tell."""
    told = (read_json(index).get("metadata") or {}).get("total_size")
    return told if type(told) is int else 0


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def readable(count: int) -> str:
    """1230000000 -> "1.23 GB"."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML between the first two `---` lines of a model card; empty where there is none."""
    if not card.is_file():
        return {}
    match = re.match(r"---\n(.*?)\n---(\n|$)", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
