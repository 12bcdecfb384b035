"""Records of public data formats -> samples, by rows that name their fields. Opens no media, knows no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from mio.types import DataError, Document, MediaFile, Message, MissingError, Part, Role, Text, Turns

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
    media: tuple[tuple[str, str], ...] = _COLUMNS  # the record's lists of paths, in order of their placeholders
    roles: tuple[tuple[str, str], ...] = _ROLES

    def read(self, record: Mapping[str, Any], root: Path) -> Turns:
        """Raises: DataError where placeholders and media do not match."""
        lists = {kind: _paths(record.get(column)) for column, kind in self.media}
        left = {kind: iter(paths) for kind, paths in lists.items()}
        turns = _field(record, self.turns, list)
        messages = tuple(self._message(_of(turn, dict, "turn"), left, root) for turn in turns)
        if not messages:
            raise DataError("The conversation is empty.")
        for kind, rest in left.items():
            if over := len(list(rest)):
                raise DataError(f"{len(lists[kind])} {kind} files, but {over} without a placeholder.")
        return Turns(messages)

    def _message(self, turn: Mapping[str, Any], left: Mapping[str, Iterator[str]], root: Path) -> Message:
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
        file = media_file(_field(record, self.media, str), self.kind, root)
        return Document((file, Text(_field(record, self.text, str))))


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
                Text(_of(t, str, "text")) if t is not None else media_file(i, "image", root)
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
            before.setdefault(place, []).append(media_file(_field(image, self.name, str), "image", root))
        parts = (p for n, t in enumerate(texts) for p in (*before.get(n, ()), Text(_of(t, str, "text"))))
        return Document(tuple(parts))


Format = Conversation | Pair | Columns | Sentences

FORMATS: dict[str, Format] = {
    "messages": Conversation(),
    "sharegpt": Conversation("conversations", "from", "value", (("image", "image"), *_COLUMNS[1:])),
    "captions": Pair("image", "image", "caption"),
    "manifest": Pair("audio_filepath", "speech", "text"),
    "videos": Pair("video", "video", "caption"),
    "obelics": Columns(),
    "mmc4": Sentences(),
}


def media_file(name: object, kind: str, root: Path) -> MediaFile:
    """A file inside `root`, reached through no link that leaves it.

    Raises:
        DataError: the path leaves the folder. MissingError: there is no such file.
    """
    text = _of(name, str, "path")
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


def _marked(content: object, left: Mapping[str, Iterator[str]], root: Path) -> Iterator[Part]:
    for piece in _MARK.split(_of(content, str, "content")):
        if piece in PLACEHOLDERS:
            yield _next(PLACEHOLDERS[piece], left, root)
        elif piece:
            yield Text(piece)


def _next(kind: str, left: Mapping[str, Iterator[str]], root: Path) -> MediaFile:
    path = next(left.get(kind, iter(())), None)
    if path is None:
        raise DataError(f"More {kind} placeholders than {kind} files.")
    return media_file(path, kind, root)


# Type of a part -> its modality and the keys that may hold its path; without one it takes the next of the lists.
_TYPES = {
    "image": ("image", ("image", "path", "url")),
    "image_url": ("image", ("image_url",)),
    "audio": ("speech", ("audio", "path", "url")),
    "audio_url": ("speech", ("audio_url",)),
    "video": ("video", ("video", "path", "url")),
    "video_url": ("video", ("video_url",)),
}


def _typed(content: list[Any], left: Mapping[str, Iterator[str]], root: Path) -> Iterator[Part]:
    for part in content:
        type = _field(_of(part, dict, "part"), "type", str)
        if type == "text":
            yield Text(_field(part, "text", str))
        elif type in _TYPES:
            kind, keys = _TYPES[type]
            found = next((part[key] for key in keys if part.get(key)), None)
            path = found.get("url") if isinstance(found, dict) else found
            yield _next(kind, left, root) if path is None else media_file(path, kind, root)
        else:
            raise DataError(f"No part is called {type!r}.", fix=f"Known are text, {', '.join(_TYPES)}.")


def _paths(value: object) -> list[str]:
    """A column may hold one path or several."""
    return [] if value is None else [value] if isinstance(value, str) else _of(value, list, "list of media")


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
