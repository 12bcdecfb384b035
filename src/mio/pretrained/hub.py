"""Where a model is: a local folder, or the Hugging Face hub through its own library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from errno import ENOSPC
from pathlib import Path

from mio.pretrained.inventory import UNCLIP
from mio.types import MissingError

PATTERNS = (  # `*` of the hub's patterns crosses folders, so the first line reaches every part's settings
    *("*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"),
    *("model*.safetensors", "pytorch_model*.bin"),
    *("seed-tokenizer-2/*.pt", "seed-tokenizer-2/*.pth", "SpeechTokenizer/*"),
    *(f"{UNCLIP}/*/*.safetensors", f"{UNCLIP}/*/*.bin"),
)
LEFT_OUT = ("*.fp16.*", f"{UNCLIP}/image_encoder/*")  # second copies; and what embeddings make needless


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
