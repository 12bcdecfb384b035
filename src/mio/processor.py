"""Tokenizers + vocabulary + template: messages with media <-> sequences of ids."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

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
    Modality,
    Part,
    Streaming,
    Text,
    Tokenizer,
    Turns,
    Video,
)
from mio.vocab import Vocabulary

MODALITY_OF: dict[type, str] = {Image: "image", Audio: "speech", Video: "video"}
READERS: dict[str, Callable[[Path | bytes, Limits], Any]] = {}  # of rows whose files `media.read` does not know


@lru_cache(maxsize=64)
def archive(path: Path) -> zipfile.ZipFile:
    """Raises: MissingError where it cannot be read."""
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise MissingError(f"Cannot read the archive {path.name}.", at=str(path)) from error


def open_media(file: MediaFile | MediaBytes, limits: Limits | None = None) -> Media:
    """Read a media file, a member of a zip archive, or bytes that are one.

    Raises:
        DataError, MissingError: naming the file (and member).
    """
    limits, reader = limits or Limits(), READERS.get(file.modality, read)
    try:
        return reader(source_of(file, limits), limits)
    except DataError as error:
        error.at = name_of(file)
        raise


def name_of(file: MediaFile | MediaBytes) -> str:
    """For people."""
    if isinstance(file, MediaBytes):
        return file.name
    return f"{file.path}:{file.member}" if file.member else str(file.path)


def source_of(file: MediaFile | MediaBytes, limits: Limits) -> Path | bytes:
    """A path where the file stands alone, else its bytes.

    Raises:
        DataError, MissingError: there is no such member, or it is too large.
    """
    if isinstance(file, MediaBytes):
        return file.data
    return _member(file, limits) if file.member else file.path


def _member(file: MediaFile, limits: Limits) -> bytes:
    try:
        members = archive(file.path)
        if (size := members.getinfo(file.member).file_size) > limits.bytes:
            what = f"Member {file.member!r} would unpack to {size:,} bytes; at most {limits.bytes:,} are read."
            raise DataError(what, at=str(file.path))
        return members.read(file.member)
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


class Stream:
    """Ids go in one at a time, parts come out as soon as they can be had: text by whole characters, spans when they
    close, or in pieces where their tokenizer can. Spans must be well-formed, as the grammar makes them."""

    def __init__(self, processor: Processor) -> None:
        self.processor, vocab = processor, processor.vocab
        self.opens = {vocab.bounds(r.name)[0]: r for r in vocab.rows if r.size}
        self.held: list[int] = []  # ids of the part that is not whole yet
        self.span: OpenSpan | None = None

    def take(self, id: int) -> list[Text | Media]:
        """The parts that this id completes."""
        if self.span is not None:
            return self._inside(id)
        if id in self.opens:
            before, self.held = self.end(), [id]
            row = self.opens[id]
            self.span = OpenSpan(row, self.processor.vocab, self.processor.tokenizer(row.name))
            return before
        self.held.append(id)
        return [] if self.processor.text.decode(self.held).endswith("\ufffd") else self.end()

    def end(self) -> list[Text | Media]:
        """What is held back."""
        held, self.held = np.array(self.held, np.int64), []
        return self.processor.decode(self.processor.parse(held).parts)

    def _inside(self, id: int) -> list[Text | Media]:
        self.held.append(id)
        span: OpenSpan = self.span  # type: ignore[assignment]
        closed = span.take(id)
        self.span = None if closed else span
        if span.growing is not None:
            self.held = [] if closed else self.held
            piece = span.growing.grow(span.known, span.steps, closed)
            return [] if piece is None else [piece]
        return self.end() if closed else []


class OpenSpan:
    """Codes of a span so far, by level. `growing`: the medium as it is made, where that can be had."""

    def __init__(self, row: Modality, vocab: Vocabulary, tokenizer: Tokenizer) -> None:
        self.row, self.vocab = row, vocab
        self.growing = tokenizer.stream() if isinstance(tokenizer, Streaming) else None
        levels = 1 if row.output_layout == "content" else row.codebooks
        self.levels: list[list[int]] = [[] for _ in range(levels)]

    def take(self, id: int) -> bool:
        """Count a code; True when the span is closed."""
        level, code = self.vocab.codes(self.row.name, np.array([id]))
        if level[0] >= 0:
            self.levels[level[0]].append(int(code[0]))
        return bool(level[0] < 0)

    @property
    def known(self) -> Codes:
        """(1, K, t) codes of the steps that have all levels."""
        steps = min(map(len, self.levels))
        return np.array([[level[:steps] for level in self.levels]], np.int64)

    @property
    def steps(self) -> int:
        """Steps of the whole span, once its content is known; else 0."""
        row, count = self.row, len(self.levels[0])
        later = len(self.levels) > 1 and bool(self.levels[1])
        return row.steps or (count if row.output_layout == "sequential" and later else 0)
