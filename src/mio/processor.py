"""Tokenizers + vocabulary + template: messages with media <-> sequences of ids."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from mio.media import Limits, read
from mio.sequence import ChatTemplate, Parsed, TokenSequence, parse, render
from mio.tokenizers.text import TextCodec
from mio.types import (
    Audio,
    Codes,
    DataError,
    Document,
    Encoded,
    Ids,
    Image,
    Media,
    MediaBytes,
    MediaFile,
    Message,
    MissingError,
    Part,
    Text,
    Tokenizer,
    Turns,
    Video,
)
from mio.vocab import Vocabulary

MODALITY_OF: dict[type, str] = {Image: "image", Audio: "speech", Video: "video"}
READERS: dict[str, Callable[[Path | bytes, Limits], Any]] = {}  # of rows whose files `media.read` does not know


@lru_cache(maxsize=64)
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def open_media(file: MediaFile | MediaBytes, limits: Limits | None = None) -> Media:
    """Read a media file, a member of a zip archive, or bytes that are one.

    Raises:
        DataError, MissingError: naming the file (and member).
    """
    limits, reader = limits or Limits(), READERS.get(file.modality, read)
    if isinstance(file, MediaFile) and not file.member:
        return reader(file.path, limits)
    data = file.data if isinstance(file, MediaBytes) else _member(file, limits)
    try:
        return reader(data, limits)
    except DataError as error:
        error.at = file.name if isinstance(file, MediaBytes) else f"{file.path}:{file.member}"
        raise


def _member(file: MediaFile, limits: Limits) -> bytes:
    try:
        archive = _archive(file.path)
        if (size := archive.getinfo(file.member).file_size) > limits.bytes:
            what = f"Member {file.member!r} would unpack to {size:,} bytes; at most {limits.bytes:,} are read."
            raise DataError(what, at=str(file.path))
        return archive.read(file.member)
    except KeyError as error:
        raise DataError(f"No member {file.member!r}.", at=str(file.path)) from error
    except (OSError, zipfile.BadZipFile) as error:
        raise MissingError(f"Cannot read the archive {file.path.name}.", at=str(file.path)) from error


@dataclass(frozen=True)
class Processor:
    vocab: Vocabulary
    text: TextCodec
    tokenizers: Mapping[str, Tokenizer]
    template: ChatTemplate = field(default_factory=ChatTemplate)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over vocabulary, text tokenizer and every media tokenizer; artefacts carry it."""
        parts = [self.vocab.fingerprint(), self.text.fingerprint()]
        parts += [f"{name}={self.tokenizers[name].fingerprint()}" for name in sorted(self.tokenizers)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self.tokenizers:
            known = ", ".join(self.tokenizers) or "text only"
            raise MissingError(f"No tokenizer for {modality!r}. This model speaks: {known}.")
        return self.tokenizers[modality]

    def encode(self, parts: Sequence[Part]) -> list[Text | Encoded]:
        """Media and media files -> codes, text and codes as they are; media of one kind are encoded together."""
        opened = [open_media(p) if isinstance(p, MediaFile | MediaBytes) else p for p in parts]
        by_kind: dict[str, list[int]] = {}
        for number, part in enumerate(opened):
            if not isinstance(part, Text | Encoded):
                by_kind.setdefault(MODALITY_OF[type(part)], []).append(number)
        out: list[Any] = list(opened)
        for modality, numbers in by_kind.items():
            codes = self.tokenizer(modality).encode([opened[n] for n in numbers])
            for number, c in zip(numbers, codes, strict=True):
                out[number] = Encoded(modality, c)
        return out

    def encoded(self, content: Turns | Document) -> Turns | Document:
        """The same conversation or document with every medium as codes."""
        if isinstance(content, Document):
            return Document(tuple(self.encode(content.parts)), content.inputs)
        return Turns(tuple(Message(m.role, tuple(self.encode(m.parts))) for m in content.messages))

    def sequence(self, content: Turns | Document, *, mode: str = "std", open_turn: bool = False) -> TokenSequence:
        return render(
            self.encoded(content), self.vocab, self.text.encode, self.template, mode=mode, open_turn=open_turn
        )

    def parse(self, ids: Ids, gather: str = "") -> Parsed:
        return parse(ids, self.vocab, self.text.decode, gather)

    def decode(self, parts: Iterable[Text | Encoded]) -> list[Text | Media]:
        """Codes -> media; text as it is."""
        return [self.media(p.modality, p.codes) if isinstance(p, Encoded) else p for p in parts]

    def media(self, modality: str, codes: Codes) -> Media:
        out: Media = self.tokenizer(modality).decode([codes])[0]
        return out
