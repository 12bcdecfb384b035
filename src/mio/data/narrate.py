"""Videos -> interleaved documents: of every shot its first and its middle frame, and in words what is seen and said.

MIO's way (appendix A): cuts give key frames; the middle frame of each shot is captioned (theirs: BLIP-2), its speech is
written down, and a language model (theirs: Yi-34B-Chat) makes one text of both. The three helpers are callables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mio.checkpoint import commit, read_json, write_json
from mio.data.faults import Reading, media_of
from mio.data.readers import stamp
from mio.media import Limits, has_sound, read_audio, read_video, write_image
from mio.processor import source_of
from mio.tokenizers.video import scene_edges
from mio.types import Audio, DataError, Document, Image, MediaBytes, MediaFile, MissingError, Sample, Text, Video

PIECE = 15.0  # seconds that are written down at a time: as much as MIO trains on
SILENCE = 1e-3  # root mean square below which nobody speaks


@dataclass(frozen=True)
class Shot:
    """What lies between two cuts. `middle` is None in a shot of a single frame."""

    key: Image
    middle: Image | None
    sound: Audio | None

    @property
    def centre(self) -> Image:
        return self.middle or self.key


@dataclass(frozen=True)
class Noted:
    """What the helpers found in a shot; "" where there is nothing."""

    seen: str
    said: str = ""


Captioner = Callable[[Sequence[Image]], list[str]]
Recogniser = Callable[[Sequence[Audio]], list[str]]
Refiner = Callable[[Sequence[Noted]], list[str]]  # all shots of a video -> a text for each


def shots(video: Video, sound: Audio | None = None, shortest: int = 15) -> list[Shot]:
    """Pieces of a video between cuts, of at least `shortest` frames, as PySceneDetect has it."""
    edges = scene_edges(video.frames, shortest=shortest).tolist()
    return [_shot(video, sound, start, stop) for start, stop in pairwise(edges)]


def _shot(video: Video, sound: Audio | None, start: int, stop: int) -> Shot:
    middle = (start + stop) // 2
    picture = Image(video.frames[middle]) if middle > start else None
    return Shot(Image(video.frames[start]), picture, _heard(sound, start / video.fps, stop / video.fps))


def _heard(sound: Audio | None, start: float, stop: float) -> Audio | None:
    if sound is None:
        return None
    samples = sound.samples[round(start * sound.rate) : round(stop * sound.rate)]
    loud = len(samples) and float(np.sqrt(np.mean(np.square(samples)))) > SILENCE
    return Audio(samples, sound.rate) if loud else None


def pieces(sound: Audio, seconds: float = PIECE) -> list[Audio]:
    """As few equal pieces as keep below `seconds`."""
    count = max(1, int(np.ceil(sound.seconds / seconds)))
    return [Audio(samples, sound.rate) for samples in np.array_split(sound.samples, count)]


def plain_words(notes: Sequence[Noted]) -> list[str]:
    """The refiner that needs no model: a sentence for what is seen, unless the shot before had the same, and what is
    said in quotes."""
    before, texts = "", []
    for note in notes:
        seen, said = _sentence(note.seen), _sentence(note.said)
        news = (seen if seen != before else "", f"“{said}”" if said else "")
        texts.append(" ".join(filter(None, news)))
        before = seen
    return texts


def _sentence(words: str) -> str:
    text = " ".join(words.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) or not text else ".")


@dataclass(frozen=True)
class Narrator:
    """The helpers; without `hear`, speech is not written down. `name`: changes when what they say may change."""

    name: str
    caption: Captioner
    hear: Recogniser | None = None
    refine: Refiner = plain_words

    def document(self, found: Sequence[Shot]) -> Document:
        """Key frame, middle frame and text of every shot, in order."""
        seen = self.caption([shot.centre for shot in found])
        notes = [Noted(words, self._said(shot)) for words, shot in zip(seen, found, strict=True)]
        parts = list[Image | Text]()
        for shot, text in zip(found, self.refine(notes), strict=True):
            parts += [shot.key, *([shot.middle] if shot.middle else []), *([Text(text)] if text else [])]
        return Document(tuple(parts))

    def _said(self, shot: Shot) -> str:
        if self.hear is None or shot.sound is None:
            return ""
        return " ".join(filter(None, (words.strip() for words in self.hear(pieces(shot.sound)))))


def narrate(reading: Reading, narrator: Narrator, folder: Path) -> list[Path]:
    """Every video of the records -> a folder of its frames and its record, below `folder`; those that are there stay.

    A video that cannot be read is one of the reading's faults; a helper that fails ends the run.
    """
    made = list[Path]()
    for entry, samples in reading.entries():
        for sample in samples:
            try:
                made += [_made(sample, file, narrator, folder) for file in _videos(sample)]
            except (DataError, MissingError) as error:
                reading.blame(entry.line, error)
    return made


def _videos(sample: Sample) -> Iterator[MediaFile | MediaBytes]:
    found = [file for file in media_of(sample.content) if file.modality == "video"]
    if not found:
        raise DataError("The record has no video.")
    yield from found


def _made(sample: Sample, file: MediaFile | MediaBytes, narrator: Narrator, folder: Path) -> Path:
    place = folder / _key(sample, file, narrator)
    if not (place / "record.json").is_file():
        document = narrator.document(shots(*opened(file)))
        commit(place, lambda staging: _write(staging, sample, document, narrator))
    return place


def _key(sample: Sample, file: MediaFile | MediaBytes, narrator: Narrator) -> str:
    what = f"{file.path}|{file.member}|{stamp(file.path)}".encode() if isinstance(file, MediaFile) else file.data
    return hashlib.sha256(f"{narrator.name}|{sample.id}|".encode() + what).hexdigest()[:24]


def opened(file: MediaFile | MediaBytes, limits: Limits | None = None) -> tuple[Video, Audio | None]:
    """A video, and its sound where it has one."""
    limits = limits or Limits()
    source = source_of(file, limits)
    return read_video(source, limits), read_audio(source, limits=limits) if has_sound(source, limits) else None


def _write(folder: Path, sample: Sample, document: Document, narrator: Narrator) -> None:
    segments = list[dict[str, str]]()
    for number, part in enumerate(document.parts):
        if isinstance(part, Image):
            write_image(part, folder / f"{number}.png")
            segments.append({"type": "image", "image": f"{number}.png"})
        elif isinstance(part, Text):
            segments.append({"type": "text", "text": part.text})
    facts = {"id": sample.id, "license": sample.license, "narrator": narrator.name}
    write_json(folder / "record.json", facts | {"segments": segments})


def write_documents(path: Path, places: Sequence[Path]) -> None:
    """One JSON line for every narrated video, in the format "segments"; paths of pictures are seen from its folder."""
    lines = (json.dumps(_record(place, path.parent), ensure_ascii=False) + "\n" for place in places)
    path.write_text("".join(lines), encoding="utf-8")


def _record(place: Path, root: Path) -> dict[str, object]:
    record = read_json(place / "record.json")
    beside = place.relative_to(root)
    segments = [s | ({"image": f"{beside / s['image']}"} if "image" in s else {}) for s in record["segments"]]
    return dict(record) | {"segments": segments}
