"""Records of public data formats -> samples, by rows that name their fields. Opens no media, knows no model.

The `root` of a record is the folder that its paths are in, or a zip archive whose members they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from mio.config import suggest
from mio.data.readers import parse_record
from mio.media import MODALITY_BY_SUFFIX
from mio.processor import archive
from mio.types import (
    DataError,
    Document,
    MediaBytes,
    MediaFile,
    Message,
    MioError,
    MissingError,
    Part,
    Role,
    Text,
    Turns,
)

PLACEHOLDERS = {"<image>": "image", "<audio>": "speech", "<video>": "video"}
_MARK = re.compile("(" + "|".join(PLACEHOLDERS) + ")")
_COLUMNS = (("images", "image"), ("audios", "speech"), ("videos", "video"))
_ROLES = (("human", "user"), ("gpt", "assistant"))  # ShareGPT's words


@dataclass(frozen=True)
class Conversation:
    """Turns whose content is a text with placeholders or a list of typed parts (OpenAI's, Hugging Face's)."""

    turns: str = "messages"
    role: str = "role"
    content: str = "content"
    media: tuple[tuple[str, str], ...] = _COLUMNS  # the record's lists of media, in order of their placeholders
    roles: tuple[tuple[str, str], ...] = _ROLES

    def read(self, record: Mapping[str, Any], root: Path) -> Turns:
        """Raises: DataError where placeholders and media do not match."""
        lists = {kind: _several(record.get(column)) for column, kind in self.media}
        left = {kind: iter(media) for kind, media in lists.items()}
        turns = _field(record, self.turns, list)
        messages = tuple(self._message(_of(turn, dict, "turn"), left, root) for turn in turns)
        if not messages:
            raise DataError("The conversation is empty.")
        for kind, rest in left.items():
            if over := len(list(rest)):
                raise DataError(f"{len(lists[kind])} {kind} files, but {over} without a placeholder.")
        return Turns(messages)

    def _message(self, turn: Mapping[str, Any], left: _Left, root: Path) -> Message:
        word = _field(turn, self.role, str)
        role = dict(self.roles).get(word, word)
        content = turn.get(self.content)
        parts = _typed(content, left, root) if isinstance(content, list) else _marked(content, left, root)
        return Message(_role(role), tuple(parts))


@dataclass(frozen=True)
class Pair:
    """One medium with one text: captions, transcripts."""

    media: str
    kind: str
    text: str

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        part = medium(_field(record, self.media, object), self.kind, root)
        return Document((part, Text(_field(record, self.text, str))))


@dataclass(frozen=True)
class Alone:
    """One medium without words."""

    media: str
    kind: str

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        return Document((medium(_field(record, self.media, object), self.kind, root),))


@dataclass(frozen=True)
class Plain:
    """A text, and nothing else."""

    text: str = "text"

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        return Document((Text(_field(record, self.text, str)),))


@dataclass(frozen=True)
class Segments:
    """Our own: texts and media in their order, each a segment with its type, and under that its text or its path.

    Media of a kind may lie in an archive that the record names as KIND_pack. Segments of types not in `kinds` (such as
    translations) are left out.
    """

    segments: str = "segments"
    kinds: tuple[str, ...] = ("image", "speech", "video")

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        places = {kind: packed(record, root, f"{kind}_pack") for kind in self.kinds}
        return Document(tuple(self._parts(_field(record, self.segments, list), places)))

    def _parts(self, segments: list[object], places: Mapping[str, Path]) -> Iterator[Part]:
        for segment in segments:
            kind = _field(_of(segment, dict, "segment"), "type", str)
            if kind == "text":
                yield Text(_field(segment, "text", str))  # type: ignore[arg-type]
            elif kind in places:
                yield medium(_field(segment, kind, object), kind, places[kind])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Columns:
    """OBELICS: two lists of equal length; where one has null, the other has the part."""

    texts: str = "texts"
    images: str = "images"

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        texts, images = _field(record, self.texts, list), _field(record, self.images, list)
        if len(texts) != len(images) or any((t is None) == (i is None) for t, i in zip(texts, images, strict=True)):
            raise DataError(f"{self.texts!r} and {self.images!r} do not complement each other.")
        return Document(
            tuple(
                Text(_of(t, str, "text")) if t is not None else medium(i, "image", root)
                for t, i in zip(texts, images, strict=True)
            )
        )


@dataclass(frozen=True)
class Sentences:
    """MMC4: sentences, and pictures that each stand before the sentence they match."""

    texts: str = "text_list"
    images: str = "image_info"
    name: str = "image_name"
    index: str = "matched_text_index"

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        texts, before = _field(record, self.texts, list), dict[int, list[Part]]()
        for image in _field(record, self.images, list):
            place = _field(_of(image, dict, "image"), self.index, int)
            if not 0 <= place < len(texts):
                raise DataError(f"A picture matches sentence {place} of {len(texts)}.")
            before.setdefault(place, []).append(medium(_field(image, self.name, str), "image", root))
        parts = (p for n, t in enumerate(texts) for p in (*before.get(n, ()), Text(_of(t, str, "text"))))
        return Document(tuple(parts))


@dataclass(frozen=True)
class Members:
    """WebDataset, and folders: media by the suffixes of their names, and a text of the same stem."""

    text: str = "txt"
    facts: str = "json"  # where there is no text: an object that holds it
    field: str = "caption"

    def read(self, record: Mapping[str, Any], root: Path) -> Document:
        kinds = {suffix: MODALITY_BY_SUFFIX.get(f".{suffix.rpartition('.')[2]}") for suffix in record}
        media = [medium(record[suffix], kind, root) for suffix, kind in sorted(kinds.items()) if kind]
        if self.text in record:
            text = _utf8(record[self.text])
        else:
            text = _field(parse_record(_field(record, self.facts, bytes)), self.field, str)
        if not media:
            raise DataError("The sample has no media.", fix=f"It has {', '.join(record)[:200]}.")
        return Document((*media, Text(text.strip())))


@dataclass(frozen=True)
class Preference:
    """Two conversations that begin alike, with a better and a worse end, in words or in turns (TRL)."""

    prompt: str = "prompt"
    ends: tuple[str, str] = ("chosen", "rejected")
    conversation: Conversation = field(default_factory=Conversation)

    def read(self, record: Mapping[str, Any], root: Path) -> dict[str, Turns]:
        begin = _said(record.get(self.prompt, []), "user")
        both = {end: [*begin, *_said(_field(record, end, object), "assistant")] for end in self.ends}
        return {end: self.conversation.read({**record, "messages": turns}, root) for end, turns in both.items()}


Format = Conversation | Pair | Alone | Plain | Segments | Columns | Sentences | Members | Preference
Content = Document | Turns | dict[str, Turns]  # one sample, or several with a name each

FORMATS: dict[str, Format] = {
    "messages": Conversation(),
    "sharegpt": Conversation("conversations", "from", "value", (("image", "image"), *_COLUMNS[1:])),
    "captions": Pair("image", "image", "caption"),
    "manifest": Pair("audio_filepath", "speech", "text"),
    "videos": Pair("video", "video", "caption"),
    "film": Alone("video", "video"),
    "text": Plain(),
    "segments": Segments(),
    "obelics": Columns(),
    "mmc4": Sentences(),
    "members": Members(),
    "preference": Preference(),
}


def format_named(name: str) -> Format:
    """Raises: MioError on an unknown name."""
    if name not in FORMATS:
        raise MioError(f"No format {name!r}.", fix=suggest(name, FORMATS))
    return FORMATS[name]


def packed(record: Mapping[str, Any], root: Path, column: str = "pack") -> Path:
    """The archive that a record names as the place of its media, or `root`.

    Raises:
        DataError: its path leaves the data's folder. MissingError: there is no such archive.
    """
    name = record.get(column)
    if not isinstance(name, str) or not name.endswith(".zip"):
        return root
    return media_file(name, "archive", root.parent if root.suffix == ".zip" else root).path


def medium(value: object, kind: str, root: Path) -> MediaFile | MediaBytes:
    """A path, bytes, or Hugging Face's struct of both.

    Raises:
        DataError, MissingError: as `media_file`.
    """
    found = (value.get("bytes") or value.get("path")) if isinstance(value, Mapping) else value
    return MediaBytes(found, kind) if isinstance(found, bytes) else media_file(found, kind, root)


def media_file(name: object, kind: str, root: Path) -> MediaFile:
    """A file inside `root`, reached through no link that leaves it; or a member of the archive that `root` is.

    Raises:
        DataError: the path leaves the folder. MissingError: there is no such file.
    """
    text = _of(name, str, "path")
    if root.suffix == ".zip":
        if text not in archive(root).NameToInfo:
            raise MissingError(f"There is no member {text[:80]!r}.", fix=f"See what {root.name} holds.")
        return MediaFile(root, kind, text)
    try:
        path = (root / text).resolve()
        inside = not Path(text).is_absolute() and path.is_relative_to(root.resolve())
        there = inside and path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{text[:80]!r} is no path.") from error
    if not inside:
        raise DataError(f"{text[:80]!r} leads out of the data's folder.", fix="Name files below it.")
    if not there:
        raise MissingError(f"There is no file {text[:80]!r}.", fix="Copy it there, or drop the record.")
    return MediaFile(root / text, kind)


_Left = Mapping[str, Iterator[object]]  # media of every kind that no placeholder has taken


def _marked(content: object, left: _Left, root: Path) -> Iterator[Part]:
    for piece in _MARK.split(_of(content, str, "content")):
        if piece in PLACEHOLDERS:
            yield _next(PLACEHOLDERS[piece], left, root)
        elif piece:
            yield Text(piece)


def _next(kind: str, left: _Left, root: Path) -> MediaFile | MediaBytes:
    value = next(left.get(kind, iter(())), None)
    if value is None:
        raise DataError(f"More {kind} placeholders than {kind} files.")
    return medium(value, kind, root)


# Type of a part -> its modality and the keys that may hold its path; without one it takes the next of the lists.
_TYPES = {
    "image": ("image", ("image", "path", "url")),
    "image_url": ("image", ("image_url",)),
    "audio": ("speech", ("audio", "path", "url")),
    "audio_url": ("speech", ("audio_url",)),
    "video": ("video", ("video", "path", "url")),
    "video_url": ("video", ("video_url",)),
}


def _typed(content: list[Any], left: _Left, root: Path) -> Iterator[Part]:
    for part in content:
        type = _field(_of(part, dict, "part"), "type", str)
        if type == "text":
            yield Text(_field(part, "text", str))
        elif type in _TYPES:
            kind, keys = _TYPES[type]
            found = next((part[key] for key in keys if part.get(key)), None)
            value = found["url"] if isinstance(found, dict) and "url" in found else found
            yield _next(kind, left, root) if value is None else medium(value, kind, root)
        else:
            raise DataError(f"No part is called {type!r}.", fix=f"Known are text, {', '.join(_TYPES)}.")


def _several(value: object) -> list[object]:
    """A column may hold one medium or several."""
    one = isinstance(value, str | bytes | Mapping)
    return [] if value is None else [value] if one else _of(value, list, "list of media")


def _said(value: object, role: Role) -> list[object]:
    """Words of one turn, or turns."""
    return [{"role": role, "content": value}] if isinstance(value, str) else _of(value, list, "list of turns")


def _utf8(value: object) -> str:
    try:
        return str(_of(value, bytes, "text").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError("The text is not UTF-8.") from error


def _role(word: str) -> Role:
    for role in get_args(Role):
        if word == role:
            return role
    raise DataError(f"No role is called {word!r}.", fix=f"Known are {', '.join(get_args(Role))}.")


def _field(record: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in record:
        raise DataError(f"The record has no {name!r}.", fix=f"It has {', '.join(record)[:200]}.")
    return _of(record[name], kind, name)


def _of(value: object, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"A {what} is of type {type(value).__name__}, not {kind.__name__}.")
    return value
