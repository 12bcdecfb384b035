"""Corpus folders -> items: one thing with its media, text and group. Reads records, opens no media, knows no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mio.data.scenes import combination
from mio.types import DataError, MediaFile, MissingError, Part, Text


@dataclass(frozen=True)
class Item:
    """What one record of a corpus holds. `group` decides its split: items of one group never part."""

    id: str
    source: str
    parts: tuple[Part, ...]
    group: str
    license: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def media(self, modality: str) -> list[MediaFile]:
        return [p for p in self.parts if isinstance(p, MediaFile) and p.modality == modality]


def held_out(group: str, share: float, seed: int = 0) -> bool:
    """Whether a group belongs to the validation split; depends on nothing but its name, the share and the seed."""
    digest = hashlib.sha256(f"{seed}|{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSONL file.

    Raises:
        MissingError: no such file. DataError: a line that is not a JSON object, by number.
    """
    if not path.is_file():
        raise MissingError(f"No {path.name} in {path.parent}.", at=str(path), fix="Point --data to a corpus folder.")
    lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 may stand inside a string
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError("This line is not a JSON object.", at=f"{path}:{number}") from error
        if not isinstance(record, dict):
            raise DataError("This line is not a JSON object.", at=f"{path}:{number}")
        yield record


@dataclass(frozen=True)
class PairSource:
    """One JSONL of records with one medium and maybe a text; fields are named, not coded."""

    name: str
    file: str
    modality: str
    field: str  # where the record names the pack's member
    text: str = ""
    group: Callable[[Mapping[str, Any]], str] | None = None  # of a record; default: the member's name
    license: str = ""

    def items(self, root: Path) -> Iterator[Item]:
        path = root / self.file
        for record in records(path):
            if self.field not in record:
                raise DataError(f"A record has no {self.field!r}.", at=str(path), fix=f"It has {', '.join(record)}.")
            pack = path.parent / record.get("pack", path.with_suffix(".zip").name)
            media = MediaFile(pack, self.modality, record[self.field])
            text = record.get(self.text) if self.text else None
            parts = (media, Text(text)) if text else (media,)
            group = self.group(record) if self.group else record[self.field]
            license = record.get("license", self.license)
            yield Item(f"{self.name}/{record[self.field]}", self.name, parts, f"{self.name}:{group}", license, record)


@dataclass(frozen=True)
class StyledSource:
    """Records with one picture per drawing style, each style in a pack of its own (emoji)."""

    name: str
    file: str
    pack: str  # with {style}
    licenses: tuple[tuple[str, str], ...]

    def items(self, root: Path) -> Iterator[Item]:
        path, licenses = root / self.file, dict(self.licenses)
        for record in records(path):
            for style, member in record["images"].items():
                media = MediaFile(path.parent / self.pack.format(style=style), "image", member)
                id = f"{self.name}/{style}/{member}"
                group = f"{self.name}:{record['name']}|{style}"
                meta = record | {"style": style}
                yield Item(id, self.name, (media, Text(record["name"])), group, licenses[style], meta)


@dataclass(frozen=True)
class DocumentSource:
    """Interleaved documents: `segments` of text, image, speech (and translations, left out)."""

    name: str
    file: str

    def items(self, root: Path) -> Iterator[Item]:
        path = root / self.file
        for record in records(path):
            packs = {m: path.parent / record.get(f"{m}_pack", record.get("pack", "")) for m in ("image", "speech")}
            parts = tuple(_segments(record["segments"], packs))
            story = "-".join(str(record["id"]).split("-")[:2])  # one story in several languages is one group
            yield Item(
                f"{self.name}/{record['id']}", self.name, parts, f"story:{story}", record.get("license", ""), record
            )


def _segments(segments: list[dict[str, Any]], packs: Mapping[str, Path]) -> Iterator[Part]:
    for segment in segments:
        kind = segment["type"]
        if kind == "text":
            yield Text(segment["text"])
        elif kind in packs:
            yield MediaFile(packs[kind], kind, segment[kind])


@dataclass(frozen=True)
class TextSource:
    """JSONL of texts."""

    name: str
    file: str
    text: str = "text"
    license: str = ""

    def items(self, root: Path) -> Iterator[Item]:
        for number, record in enumerate(records(root / self.file)):
            id = f"{self.name}/{record.get('id', number)}"
            yield Item(id, self.name, (Text(record[self.text]),), id, record.get("license", self.license), record)


Source = PairSource | StyledSource | DocumentSource | TextSource


def _object_and_motion(record: Mapping[str, Any]) -> str:
    return f"{record['object']}|{record['motion']}"


EMOJI_LICENSES = (("noto", "Apache-2.0"), ("twemoji", "CC-BY-4.0"), ("openmoji", "CC-BY-SA-4.0"))

CORPUS: tuple[Source, ...] = (
    StyledSource("emoji", "images/emoji.jsonl", "emoji_{style}.zip", EMOJI_LICENSES),
    PairSource("mulberry", "images/mulberry.jsonl", "image", "image", "name", license="CC-BY-SA-4.0"),
    PairSource("digits", "images/digits.jsonl", "image", "image", "name", license="CC-BY-SA-3.0"),
    PairSource("doodles", "images/doodles.jsonl", "image", "image", "name", license="CC-BY-4.0"),
    PairSource("scenes", "images/scenes.jsonl", "image", "image", "caption", combination),
    PairSource("fsdd", "speech/fsdd.jsonl", "speech", "speech", "text", license="CC-BY-SA-4.0"),
    PairSource("names", "speech/names.jsonl", "speech", "speech", "text", license="CC0-1.0"),
    PairSource("keywords", "speech/keywords.jsonl", "speech", "speech", "text"),
    PairSource("orders", "speech/orders.jsonl", "speech", "speech", "text"),
    PairSource("libri_speakers", "speech/libri_speakers.jsonl", "speech", "speech"),
    PairSource("kerstin_de", "speech/kerstin_de.jsonl", "speech", "speech", "text"),
    PairSource("ljspeech", "speech/ljspeech.jsonl", "speech", "speech", "text"),
    PairSource("motion", "video/motion.jsonl", "video", "video", "caption", _object_and_motion, "CC-BY-SA-4.0"),
    DocumentSource("storybook", "docs/storybook.jsonl"),
    DocumentSource("narration", "docs/narration.jsonl"),
    DocumentSource("recipes", "docs/recipes.jsonl"),
    TextSource("stories", "text/stories.jsonl"),
    TextSource("definitions", "text/definitions.jsonl", "definition", "CC-BY-4.0"),
)


def read_corpus(root: Path, sources: tuple[Source, ...] = CORPUS) -> list[Item]:
    """All items of the sources whose records are there, in a fixed order.

    Raises:
        MissingError: `root` holds none of them.
    """
    present = [s for s in sources if (root / s.file).is_file()]
    if not present:
        fix = "Point --data to a folder with images/emoji.jsonl and its neighbours."
        raise MissingError(f"{root} holds no corpus.", at=str(root), fix=fix)
    return [item for source in present for item in source.items(root)]
