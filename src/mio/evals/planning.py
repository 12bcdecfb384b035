"""How a task is put to a model, and all that the answers then depend on."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mio.config import to_dict
from mio.evals.benchmarks.items import Item, Reader
from mio.pipeline import Model
from mio.sequence import fill
from mio.types import Document, Message, MioError, Text, Turns


@dataclass(frozen=True)
class Task:
    """How a benchmark is put to a model.

    `prompt` is a user's turn, and `base` what a base model continues ("": it is not asked); a task without `prompt` is
    continued by every model. `likelihood`: the options' letters are compared, and nothing is written.
    """

    name: str
    folder: str  # of the benchmark, below that of all data
    about: str
    read: Reader
    prompt: str
    base: str
    metrics: tuple[str, ...]
    out: str = "text"
    tokens: int = 60
    mode: str = "std"
    likelihood: bool = False


@dataclass(frozen=True)
class Settings:
    """What a user chooses. `limit`: only the first items; 0: all of them."""

    profile: str = ""
    seed: int = 0
    limit: int = 0
    batch: int = 8


@dataclass(frozen=True)
class Plan:
    """All that an answer depends on; answers of two plans never share a folder."""

    task: str
    model: str
    weights: str
    vocabulary: str
    prompt: str
    prompt_hash: str
    template_hash: str
    profile: str
    seed: int
    items: int
    asked: int

    @property
    def whole(self) -> bool:
        return self.asked == self.items


def is_base(model: Model) -> bool:
    """Whether the model ends documents, not turns."""
    return bool(model.config.stop) and model.config.stop == model.processor.vocab.specials.eos


def continues(task: Task, model: Model) -> bool:
    """Whether the model continues a document rather than answers a turn."""
    return is_base(model) or not task.prompt


def plan(task: Task, model: Model, items: Sequence[Item], settings: Settings) -> Plan:
    """Raises: MioError where a base model is given a task that only talking models are asked."""
    prompt = task.base if continues(task, model) else task.prompt
    if not prompt:
        raise MioError(f"Task {task.name!r} has no prompt for base models.", fix="Give an instruct model.")
    asked = min(settings.limit or len(items), len(items))
    template = json.dumps(to_dict(model.processor.template), sort_keys=True)
    profile = settings.profile or model.config.profile or "the model's own"
    vocabulary, weights = model.processor.vocab.fingerprint(), digest_of(model)
    return Plan(
        task.name, model.config.name, weights, vocabulary, prompt, _hash(prompt), _hash(template), profile,
        settings.seed, len(items), asked,
    )  # fmt: skip


def content(task: Task, model: Model, item: Item) -> Turns | Document:
    """An item as the model is asked: a user's turn, or for a base model the beginning of a document."""
    if not continues(task, model):
        return Turns((Message("user", fill(task.prompt, *item.slots)),))
    parts = fill(task.base, *item.slots)
    return Document(parts, frozenset(n for n, part in enumerate(parts) if not isinstance(part, Text)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of(model: Model) -> str:
    """16 hex digits over the first weights of every tensor: tells models apart without reading all of them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.flatten()[:256].double().tolist()}".encode())
    return digest.hexdigest()[:16]


def commit() -> str:
    """Of this code: the commit of its checkout, with + where files differ from it; else the package's version."""
    here = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*here, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*here, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return f"mio {version('mio')}"
    return head.stdout.strip() + ("+" if changed else "")
