"""A base model's text tokenizer and the names of its other rows, for a vocabulary that grows out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mio.checkpoint import read_json
from mio.pretrained.inventory import needs
from mio.pretrained.llama import read_config
from mio.tokenizers.sentencepiece import SentencePieceTokenizer
from mio.tokenizers.sentencepiece_file import CONTROL, UNKNOWN
from mio.tokenizers.text import TextTokenizer
from mio.types import DataError, MioError, MissingError

STOCK, PIECES = "tokenizer.json", "tokenizer.model"
PROBES = ("A fox, 12 foxes.\n\tIs it?", " naïve  café 你好", "🦊 ")


def read_text(folder: Path) -> tuple[TextTokenizer, dict[int, str]]:
    """The text tokenizer of a Hugging Face folder, and the tokens of the model's rows that no text reaches, by id.

    Raises:
        MissingError: no tokenizer, or weights are absent. DataError: it has more ids than the model. MioError: texts do
        not come back from it as they were.
    """
    needs(folder, ["weights"]).demand()  # before anything is trained
    rows = read_config(folder).vocabulary
    text, added = _read(folder)
    if max([text.size - 1, *added]) >= rows:
        raise DataError(f"Its tokenizer has ids beyond the model's {rows}.", at=str(folder))
    if not _faithful(text):
        what = "Texts do not come back from this base model's tokenizer as they were, so no recipe can take it over."
        raise MioError(what, at=str(folder), fix="Choose a base with byte-level or byte-fallback BPE.")
    within = {id: token for id, token in added.items() if id < text.size and text.encode(token) != [id]}
    return text, within | {id: added.get(id, f"<unused {id}>") for id in range(text.size, rows)}


def _read(folder: Path) -> tuple[TextTokenizer, dict[int, str]]:
    """The tokenizer and the tokens that are no text to it, by id."""
    if (folder / STOCK).is_file():
        found = read_json(folder / STOCK)
        added = {int(token["id"]): str(token["content"]) for token in found.get("added_tokens") or ()}
        return TextTokenizer(json.dumps(_without_prefix(found))), added
    if (folder / PIECES).is_file():
        model = SentencePieceTokenizer.load(folder / PIECES)
        added = {id: piece.text for id, piece in enumerate(model.pieces) if piece.kind in (CONTROL, UNKNOWN)}
        return TextTokenizer(model.to_json()), added
    what = f"There is neither {STOCK} nor {PIECES}, and a base model's text ids are its own tokenizer's."
    raise MissingError(what, at=str(folder), fix="Download the base model with its tokenizer.")


def _without_prefix(part: Any) -> Any:
    """A tokenizer.json without the space that Llama 2's put before every text and take away again when they decode:
    a text may begin anywhere in a sequence here."""
    if isinstance(part, list):
        return [_without_prefix(p) for p in part if not (isinstance(p, dict) and p.get("type") in ("Prepend", "Strip"))]
    if isinstance(part, dict) and part.get("type") == "Metaspace":
        return part | {"prepend_scheme": "never"}
    return {key: _without_prefix(value) for key, value in part.items()} if isinstance(part, dict) else part


def _faithful(text: TextTokenizer) -> bool:
    """Whether texts come back, also when they are encoded apart and decoded in one, as in a sequence."""
    apart = [text.encode(probe) for probe in PROBES]
    return text.decode([id for ids in apart for id in ids]) == "".join(PROBES) == "".join(map(text.decode, apart))
