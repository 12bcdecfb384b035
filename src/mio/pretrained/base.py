"""A base model's text tokenizer and the tokens of its rows, for a vocabulary that grows out of it."""

from __future__ import annotations

from pathlib import Path

from mio.checkpoint import read_json
from mio.pretrained.llama import read_config
from mio.tokenizers.sentencepiece import SentencePieceTokenizer
from mio.tokenizers.text import TextTokenizer
from mio.types import DataError, MioError, MissingError

STOCK, PIECES = "tokenizer.json", "tokenizer.model"
PROBES = ("A fox, 12 foxes.\n\tIs it?", "naïve  café 你好")


def read_text(folder: Path) -> tuple[TextTokenizer, list[str]]:
    """The text tokenizer of a Hugging Face folder, and the tokens of the model's rows beyond its text ids, by id.

    Raises:
        MissingError: no tokenizer. DataError: it has more ids than the model. MioError: texts do not come back from it.
    """
    if (folder / STOCK).is_file():
        text = TextTokenizer.load(folder / STOCK)
        added = {t["id"]: str(t["content"]) for t in read_json(folder / STOCK).get("added_tokens") or ()}
    elif (folder / PIECES).is_file():
        text, added = TextTokenizer(SentencePieceTokenizer.load(folder / PIECES).to_json()), {}
    else:
        what = f"There is neither {STOCK} nor {PIECES}, and a base model's text ids are its own tokenizer's."
        raise MissingError(what, at=str(folder), fix="Download the base model with its tokenizer.")
    rows = read_config(folder).vocabulary
    if max(text.size - 1, *added, 0) >= rows:
        raise DataError(f"Its tokenizer has ids beyond the model's {rows}.", at=str(folder))
    if any(text.decode(text.encode(probe)) != probe for probe in PROBES):
        what = "Texts do not come back from this base model's tokenizer as they were, so no recipe can take it over."
        raise MioError(what, at=str(folder), fix="Choose a base with a byte-level tokenizer, or train without --init.")
    return text, [added.get(id, f"<unused {id}>") for id in range(text.size, rows)]
