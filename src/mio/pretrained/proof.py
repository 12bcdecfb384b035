"""An exported folder against the model it came from: weights, logits, ids of texts and of conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mio.layers import Segments
from mio.models.backbone import Backbone
from mio.pretrained.llama import HEAD
from mio.pretrained.stock import DTYPES, Outgoing
from mio.pretrained.weights import shards, tensors
from mio.sequence import render
from mio.types import DataError, Ids, Message, Role, Text, Turns

TEXTS = (
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "  two  spaces,\ttabs\n\n\nlines\r\n and a trailing blank ",
    "Zażółć gęślą jaźń — naïve café, “quotes”, 1½ × 2² ≠ 5…",
    "你好，世界。こんにちは 안녕하세요 שלום مرحبا नमस्ते",
    "🎉👩‍👩‍👧‍👦 e\u0301 \u200d \ufeff \x00\x7f",
    "def f(x):\n    return x ** 2  # <b>not a token</b> <|x|> <img> <spch",
    "",
)
TALKS: tuple[tuple[tuple[Role, str], ...], ...] = (
    (("user", "Hello"),),
    (("user", "What is this?"), ("assistant", "An apple."), ("user", "In German?\nOne word, please.")),
    (
        ("system", "You are brief.\n"),
        ("user", "你好 🎉"),
        ("assistant", "Hi."),
        ("system", "ignored"),
        ("user", "Why?"),
    ),
)
ROUNDING = 1e-4  # of the largest logit: sharp attention amplifies the order of sums; 2e-6 in the model that ships
ROUNDING_16 = 0.05  # where both compute in 16 bits
SMALL = 250_000_000  # parameters that are compared in fp32, whatever their dtype: 1 GB for each side


@dataclass(frozen=True)
class Proof:
    """`tensors` are bit for bit the model's own in `dtype`. With transformers, which loaded the folder: `difference`
    of logits at most, of which the largest is `scale`, and how many `texts` and conversations gave equal ids, with
    which of its classes as `tokenizer`."""

    dtype: str
    tensors: int
    lossless: bool
    difference: float | None = None
    scale: float = 0.0
    texts: int = 0
    tokenizer: str = "AutoTokenizer"


def prove(outgoing: Outgoing, folder: Path, dtype: str, load: bool) -> Proof:
    """Check an exported folder: its tensors always; and if `load`, all else where `transformers` is installed.

    Raises:
        DataError: anything differs more than rounding allows.
    """
    count, lossless = same_weights(outgoing.backbone, folder, DTYPES[dtype])
    if not load or not find_spec("transformers"):
        return Proof(dtype, count, lossless)
    import transformers

    backbone = widened(outgoing.backbone)
    model: Any = _loaded(transformers.AutoModelForCausalLM, folder, dtype=backbone.lm_head.weight.dtype)
    difference, scale = compare_logits(backbone, probe(outgoing), model)
    allowed = ROUNDING if model.dtype == torch.float32 else ROUNDING_16
    if lossless and not difference <= allowed * scale:
        raise DataError(f"The export's logits differ by {difference:.2g} of {scale:.3g}.", at=str(folder))
    return Proof(dtype, count, lossless, difference, scale, len(TEXTS) + 2 * len(TALKS), _tokenizer(outgoing, folder))


def _loaded(kind: Any, folder: Path, **options: Any) -> Any:
    """Raises: DataError where a class of transformers cannot read the folder."""
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"transformers cannot load the export: {error}", at=str(folder)) from error


def same_weights(backbone: Backbone, folder: Path, dtype: torch.dtype) -> tuple[int, bool]:
    """Number of tensors in a folder, all equal to the backbone's in `dtype`; and whether these equal its own.

    Raises:
        DataError: one is missing, changed or of another dtype.
    """
    own: dict[str, Tensor] = backbone.state_dict()
    if backbone.config.tied:
        del own[HEAD]
    lossless = True
    for path in shards(folder):
        for name, found in tensors(path):
            mine = own.pop(name)
            if found.dtype != dtype or not torch.equal(found, mine.to(dtype)):
                raise DataError(f"{name} is not what was exported.", at=str(path))
            lossless = lossless and torch.equal(found.to(mine.dtype), mine)
    if own:
        raise DataError(f"{len(own)} tensors are missing: {', '.join(list(own)[:3])}.", at=str(folder))
    return len(backbone.state_dict()) - backbone.config.tied, lossless


def _tokenizer(outgoing: Outgoing, folder: Path) -> str:
    """The class of transformers that gives our ids. AutoTokenizer takes Qwen2's own for every model of that type.

    Raises:
        DataError: none does.
    """
    import transformers

    kinds: dict[str, Any] = {
        "AutoTokenizer": transformers.AutoTokenizer,
        "PreTrainedTokenizerFast": transformers.PreTrainedTokenizerFast,
    }
    strange: list[str] = []
    for name, kind in kinds.items():
        strange = strangers(outgoing, _loaded(kind, folder))
        if not strange:
            return name
    raise DataError(f"The exported tokenizer has other ids for {strange[0]!r}.", at=str(folder))


def strangers(outgoing: Outgoing, tokenizer: Any) -> list[str]:
    """Texts, and conversations as messages, that do not get our ids."""
    out = []
    for text in TEXTS:
        ids = outgoing.text.encode(text)
        if tokenizer(text).input_ids != ids or tokenizer.decode(ids) != outgoing.text.decode(ids):
            out.append(text)
    for talk in TALKS:
        messages = [{"role": role, "content": text} for role, text in talk]
        for opened in (False, True):
            found = tokenizer.apply_chat_template(messages, add_generation_prompt=opened, return_dict=False)
            if found != rendered(outgoing, talk, opened).tolist():
                out.append(str(messages))
    return out


def rendered(outgoing: Outgoing, talk: tuple[tuple[Role, str], ...], opened: bool) -> Ids:
    """Our own ids of a conversation of texts."""
    turns = Turns(tuple(Message(role, (Text(text),)) for role, text in talk))
    return render(turns, outgoing.vocab, outgoing.text.encode, outgoing.template, open_turn=opened).ids


def widened(backbone: Backbone) -> Backbone:
    """A copy in fp32, for an exact comparison; large models are compared as they are."""
    narrow = backbone.lm_head.weight.dtype != torch.float32
    small = sum(p.numel() for p in backbone.parameters()) <= SMALL
    return deepcopy(backbone).float() if narrow and small else backbone


def compare_logits(backbone: Backbone, probe: Ids, model: Any) -> tuple[float, float]:
    """Largest difference of the logits of a stock model from ours, over one sequence; and our largest logit."""
    device = backbone.lm_head.weight.device
    ids = torch.from_numpy(probe).to(device)
    with torch.inference_mode(), _exact():
        places = torch.arange(len(ids), device=device)
        own = backbone.logits(backbone(ids, places, Segments.of([len(ids)]))).float()
        other = model.eval().to(device)(ids[None]).logits[0].float()
    return float((own - other).abs().max()), float(own.abs().max())


def probe(outgoing: Outgoing) -> Ids:
    """A short sequence that touches every modality: a conversation, then spans of codes spread over each codebook."""
    vocab, pieces = outgoing.vocab, [rendered(outgoing, TALKS[1], True)]
    for row in vocab.rows:
        if row.size:
            begin, end = vocab.bounds(row.name)
            pieces.append(
                np.array([begin, *vocab.level_ids(row.name)[:, :: max(1, row.codebook_size // 8)].ravel(), end])
            )
    return np.concatenate(pieces)[: outgoing.backbone.config.positions]


@contextmanager
def _exact() -> Iterator[None]:
    """Matrix products in full float32, whatever this process has chosen for speed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
