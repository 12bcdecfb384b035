"""Where a released model's files are: a local folder, or the Hugging Face hub through its own library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from errno import ENOSPC
from pathlib import Path
from typing import Any

import yaml

from mio.checkpoint import read_json
from mio.pretrained.weights import INDEXES, SINGLES
from mio.types import DataError, MissingError

UNCLIP = "stable-diffusion-2-1-unclip"
PATTERNS = (  # `*` of the hub's patterns crosses folders, so the first line reaches every part's settings
    *("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"),
    *("model*.safetensors", "pytorch_model*.bin"),
    *("seed-tokenizer-2/*.pt", "seed-tokenizer-2/*.pth", "SpeechTokenizer/*"),
    *(f"{UNCLIP}/*/*.safetensors", f"{UNCLIP}/*/*.bin"),
)
LEFT_OUT = ("*.fp16.*", f"{UNCLIP}/image_encoder/*")  # second copies; and what embeddings make needless


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
LAYOUT: Mapping[str, tuple[Need, ...]] = {  # MIO-7B-Base and -Instruct; sizes as their listings give them
    "language": (
        Need("config.json", 0, "shape of the language model"),
        Need("tokenizer.model", 0, "text tokenizer"),
        Need("tokenizer_config.json", 0, "ids of every code"),
        Need("special_tokens_map.json", 0, "names of the special tokens"),
        Need(INDEXES[1], 0, "which weight is in which file"),
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


def locate(
    source: str | Path, *, revision: str | None = None, offline: bool = False, patterns: Sequence[str] = PATTERNS
) -> Path:
    """The folder of a model: a local one as it is, an id such as m-a-p/MIO-7B-Instruct from the hub.

    Token, cache, resuming and checksums are the hub library's own (HF_TOKEN, HF_HOME, HF_HUB_OFFLINE).
    `offline`: take what is on this machine already, and never ask the network. Progress goes to stderr.

    Raises:
        MissingError: no such folder or id, no access to it, no network, or no `huggingface_hub`.
    """
    if Path(source).is_dir():
        return Path(source)
    if not is_id(source):
        fix = "Give a model folder, or an id such as m-a-p/MIO-7B-Instruct."
        raise MissingError("There is no such folder.", at=str(source), fix=fix)
    return _snapshot(str(source), revision, offline, patterns)


def is_id(source: str | Path) -> bool:
    """Whether a name could be an owner/name of the hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(source)) is not None


def _snapshot(name: str, revision: str | None, offline: bool, patterns: Sequence[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        fix = "Install it: pip install 'mio[hf]'"
        raise MissingError(f"There is no folder {name}, and no huggingface_hub to get it.", at=name, fix=fix) from error
    allow, ignore = list(patterns), list(LEFT_OUT)
    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=allow, ignore_patterns=ignore, local_files_only=offline
        )
    except Exception as error:  # HTTP's, the cache's and the name's errors have no base in common
        if isinstance(error, OSError) and error.errno == ENOSPC:
            raise
        raise _unavailable(name, revision, error) from error
    return Path(found)


def _unavailable(name: str, revision: str | None, error: Exception) -> MissingError:
    """The hub library's error, in our form."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return MissingError(f"{name} asks for consent first.", at=name, fix="Accept its terms, then: hf auth login")
    if isinstance(error, errors.RepositoryNotFoundError):
        what = f"There is no folder {name} here, and no model of that id that you may read."
        return MissingError(what, at=name, fix="Check the name; for a private model: hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        return MissingError(f"{name} has no revision {revision!r}.", at=name, fix="Give a branch, a tag or a commit.")
    absent = isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled)
    reason = "is not on this machine as a whole." if absent else f"cannot be had: {_first_line(error)}"
    what = f"There is no folder {name} here, and the model of that id {reason}"
    fix = f"Go online, or bring it here: hf download {name} --local-dir DIR; then give DIR."
    return MissingError(what, at=name, fix=fix)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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


def needs(folder: Path, wanted: Iterable[str] = tuple(LAYOUT)) -> Inventory:
    """Which files of the `wanted` parts ("language", "image", "pixels", "speech") are in a folder."""
    listed = [need for part in wanted for need in _listed(folder, part)]
    there = [replace(need, bytes=size(folder / need.path)) for need in listed if (folder / need.path).exists()]
    return Inventory(folder, tuple(there), tuple(need for need in listed if not (folder / need.path).exists()))


def _listed(folder: Path, part: str) -> list[Need]:
    if part != "language":
        return list(LAYOUT[part])
    texts = [need for need in LAYOUT[part] if not need.path.startswith("pytorch_model")]
    if (folder / "tokenizer.json").is_file():
        texts = [Need("config.json", 0, "shape of the language model"), Need("tokenizer.json", 0, "text tokenizer")]
    return texts + _weights(folder)


def _weights(folder: Path) -> list[Need]:
    """What the folder's own index names, else its one file, else the released files."""
    for index, single in zip(INDEXES, SINGLES, strict=True):
        if (folder / index).is_file():
            names = sorted(set(_weight_map(folder / index).values()))
            what = f"1 of {len(names)} weight files"
            return [Need(index, 0, "which weight is in which file"), *(Need(name, 0, what) for name in names)]
        if (folder / single).is_file():
            return [Need(single, 0, "weights")]
    return [need for need in LAYOUT["language"] if need.path.startswith("pytorch_model")]


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index)
    names = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not all(isinstance(v, str) and Path(v).name == v for v in names.values()):
        raise DataError(f"{index.name} has no weight_map of file names.", at=str(index), fix="Download it again.")
    return names


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
