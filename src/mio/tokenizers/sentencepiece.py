"""A sentencepiece `tokenizer.model`, such as Yi's. Text cannot produce control ids, even those of the model itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mio.tokenizers.sentencepiece_file import (
    BYTE,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    Piece,
    obstacles,
    pieces,
    reserve,
)
from mio.tokenizers.text import whole
from mio.types import DataError, MissingError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

CONTROLS = ("<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>")  # of Yi


class SentencePieceTokenizer:
    """Any str <-> ids 0..size-1, and back to the very same str where the model normalises nothing, as Yi's.

    `reserved` pieces become control pieces, which no text can match; for a text without their names, ids are the
    library's own. Only the character that stands for a space in pieces is spelled in bytes: it would come back as one.

    Raises:
        MissingError: sentencepiece is not installed.
        DataError: no such model, or one without the 256 byte pieces, in which some texts have no ids.
    """

    def __init__(self, model: bytes, reserved: Collection[str] = CONTROLS) -> None:
        try:
            self._model = reserve(model, reserved)
            self.pieces = pieces(self._model)
        except (ValueError, LookupError) as error:
            raise DataError("This is no sentencepiece model, or a damaged one.") from error
        self._processor = _processor(self._model)
        self._data = [piece.data for piece in self.pieces]
        self._bytes = {piece.data[0]: id for id, piece in enumerate(self.pieces) if piece.kind == BYTE}
        if len(self._bytes) < 256:
            raise DataError("This sentencepiece model has no byte fallback: some texts have no ids in it.")

    @staticmethod
    def load(path: Path, reserved: Collection[str] = CONTROLS) -> SentencePieceTokenizer:
        if not path.is_file():
            raise MissingError(f"No {path.name} in {path.parent}.", at=str(path))
        try:
            return SentencePieceTokenizer(path.read_bytes(), reserved)
        except DataError as error:
            error.at = str(path)
            raise

    @property
    def size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        space = [self._bytes[byte] for byte in SPACE.encode()]
        first, *rest = whole(text).split(SPACE)
        ids: list[int] = self._processor.encode(first)
        for part in rest:
            ids += space + self._processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Spaces at either end stay; bytes that make no character become U+FFFD."""
        return b"".join(self._data[id] for id in ids).decode(errors="replace")

    def spelled(self) -> Sequence[bytes]:
        return self._data

    def fingerprint(self) -> str:
        return hashlib.sha256(self._model).hexdigest()

    def to_json(self) -> str:
        """As transformers converts such models. A text with the character for a space has other ids there.

        Raises:
            DataError: the library cannot do what the model asks for.
        """
        if reasons := "; ".join(obstacles(self._model)):
            raise DataError(f"This sentencepiece model has no equal among stock tokenizers: {reasons}.")
        added = [_added(id, p) for id, p in enumerate(self.pieces) if p.kind == USER_DEFINED]
        description = {"version": "1.0", "added_tokens": added, "normalizer": _replace(" ", SPACE)}
        back = [_replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
        description |= {"decoder": {"type": "Sequence", "decoders": back}, "model": _bpe(self.pieces)}
        return json.dumps(description, ensure_ascii=False)


def _processor(model: bytes) -> SentencePieceProcessor:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        fix = 'Install it: pip install "mio[hf]"'
        raise MissingError("The text tokenizer of this model needs sentencepiece.", fix=fix) from error
    try:
        return SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise DataError("This is no sentencepiece model, or a damaged one.") from error


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _added(id: int, piece: Piece) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": id, "content": piece.text} | flags


def _bpe(table: Sequence[Piece]) -> dict[str, Any]:
    unknown = next(piece.text for piece in table if piece.kind == UNKNOWN)
    model = {"type": "BPE", "unk_token": unknown, "fuse_unk": True, "byte_fallback": True}
    return model | {"vocab": {piece.text: id for id, piece in enumerate(table)}, "merges": list(_merges(table))}


def _merges(table: Sequence[Piece]) -> Iterator[tuple[str, str]]:
    """Every way to make a piece of two, best pieces first. Of one piece's, the longest left part first."""
    normal = {piece.text for piece in table if piece.kind == NORMAL}
    for piece in sorted((p for p in table if p.kind == NORMAL), key=lambda p: -p.score):
        cuts = ((piece.text[:at], piece.text[at:]) for at in range(len(piece.text) - 1, 0, -1))
        yield from ((left, right) for left, right in cuts if left in normal and right in normal)
