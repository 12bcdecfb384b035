"""Text <-> ids: what any text tokenizer of ours can do, and byte-level BPE.

Text can produce text ids only: there are no special tokens to find in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mio.types import DataError, MissingError


class TextCodec(Protocol):
    """Any str <-> ids 0..size-1, none of them a control token's."""

    @property
    def size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """The inverse, for ids of any part of a text, too."""
        ...

    def spelled(self) -> Sequence[bytes]:
        """What each id adds to a text; nothing for what is no text."""
        ...

    def to_json(self) -> str:
        """The same tokenizer as a description of the `tokenizers` library."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever the ids of any text could change."""
        ...


class TextTokenizer:
    """Any str <-> ids 0..size-1, and back to the very same str (lone surrogates become U+FFFD).

    Built from a `tokenizer.json` with every added token removed, so that no text, however hostile, reaches an id
    outside the base vocabulary. Flags such as `split_special_tokens` protect only tokens marked special.
    """

    def __init__(self, description: str) -> None:
        data = json.loads(description)
        data["added_tokens"], data["post_processor"] = [], None
        data["truncation"] = data["padding"] = None
        self._json = json.dumps(data, ensure_ascii=False, sort_keys=True)
        self._tokenizer = Tokenizer.from_str(self._json)
        self.size: int = self._tokenizer.get_vocab_size()

    @staticmethod
    def load(path: Path) -> TextTokenizer:
        if not path.is_file():
            raise MissingError(f"No {path.name} in {path.parent}.", at=str(path))
        try:
            return TextTokenizer(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception for any fault in the file
            raise DataError(f"{path.name} is not a tokenizer description.", at=str(path)) from error

    @staticmethod
    def train(texts: Iterable[str], size: int) -> TextTokenizer:
        """Learn a byte-level BPE of at most `size` entries; digits are split one by one, as in Yi."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        )
        return TextTokenizer(tokenizer.to_str())

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(whole(text), add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        out: str = self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)
        return out

    def spelled(self) -> Sequence[bytes]:
        """Its pieces are written in the letters that stand for bytes, or (Llama 2) as text and <0x0A>."""
        pieces = [self._tokenizer.id_to_token(id) or "" for id in range(self.size)]
        if '"ByteLevel"' in json.dumps(json.loads(self._json)["decoder"]):
            return [bytes(BYTES[letter] for letter in piece) for piece in pieces]
        return [_plain(piece) for piece in pieces]

    def to_json(self) -> str:
        return self._json

    def fingerprint(self) -> str:
        """The description itself."""
        return self._json


def _letters() -> dict[str, int]:
    """The letter of each byte in byte-level BPE (GPT-2): itself if it can be seen, or else the next from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTES = _letters()


def _plain(piece: str) -> bytes:
    if re.fullmatch("<0x[0-9A-F]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()


def whole(text: str) -> str:
    """Text with U+FFFD for every lone surrogate, which no encoding can write."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
