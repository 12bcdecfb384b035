"""Clips with questions of one word (MSVD-QA, MSRVTT-QA), speech with what was said (LibriSpeech, VCTK, GLOBE), spoken
questions, and sounds with captions (AudioCaps)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from mio.checkpoint import read_json
from mio.data.readers import READERS
from mio.evals.benchmarks.items import Item, Reader, medium
from mio.types import DataError, MediaBytes, MediaFile, MioError, MissingError, Text


def msvd_qa(folder: Path) -> Iterator[Item]:
    """test_qa.json; youtube_mapping.txt says which file of YouTubeClips is vid1."""
    lines = (line.split() for line in _lines(folder / "youtube_mapping.txt"))
    names = {number: name for name, number in lines}
    for record in read_json(folder / "test_qa.json"):
        key = f"vid{record['video_id']}"
        if key not in names:
            raise DataError(f"{key} is not in youtube_mapping.txt.", at=str(folder))
        clip = medium(folder, f"YouTubeClips/{names[key]}.avi", "video")
        yield Item(str(record["id"]), (clip, Text(record["question"])), (record["answer"],))


def msrvtt_qa(folder: Path) -> Iterator[Item]:
    """test_qa.json with the clips of TestVideo."""
    for record in read_json(folder / "test_qa.json"):
        clip = medium(folder, f"TestVideo/video{record['video_id']}.mp4", "video")
        yield Item(str(record["id"]), (clip, Text(record["question"])), (record["answer"],))


def libri_speech(folder: Path) -> Iterator[Item]:
    """test-clean: every READER-CHAPTER.trans.txt with its FLAC files beside it."""
    for path in _found(folder, "test-clean/*/*/*.trans.txt"):
        for line in _lines(path):
            id, _, words = line.partition(" ")
            yield Item(id, (medium(folder, f"{path.parent.relative_to(folder)}/{id}.flac", "speech"),), (words,))


def vctk(folder: Path) -> Iterator[Item]:
    """Version 0.92: txt/*/*.txt with the recordings of the first microphone."""
    for path in _found(folder, "txt/*/*.txt"):
        name = f"wav48_silence_trimmed/{path.parent.name}/{path.stem}_mic1.flac"
        yield Item(path.stem, (medium(folder, name, "speech"),), (" ".join(_lines(path)),))


def globe(folder: Path) -> Iterator[Item]:
    """data/test-*.parquet, each row with the bytes of its recording."""
    for path in _found(folder, "data/test-*.parquet"):
        for entry in READERS[".parquet"].entries(path):
            if isinstance(entry.record, MioError):
                raise entry.record
            sound = MediaBytes(entry.record["audio"]["bytes"], "speech", f"{path.name}:{entry.line}")
            yield Item(f"{path.stem}/{entry.line}", (sound,), (str(entry.record["transcript"]).strip(),))


def spoken_questions(folder: Path) -> Iterator[Item]:
    """questions.jsonl, lines of id, audio (a file below the folder), question and answer in words: nobody has published
    such a set with MIO, so its form is ours."""
    for line in _lines(folder / "questions.jsonl"):
        record = json.loads(line)
        sound, asked = medium(folder, record["audio"], "speech"), Text(record["question"])
        yield Item(str(record["id"]), (sound, asked), (record["answer"],))


def audio_caps(folder: Path) -> Iterator[Item]:
    """test.csv, five captions of a sound; the sounds, which are YouTube's, as audio/YOUTUBE_ID.wav."""
    captions: dict[str, list[str]] = {}
    for row in csv.DictReader(_lines(folder / "test.csv")):
        captions.setdefault(row["youtube_id"], []).append(row["caption"])
    for name, said in captions.items():
        yield Item(name, (medium(folder, f"audio/{name}.wav", "speech"),), tuple(said))


def spoken(reader: Reader) -> Reader:
    """The same recordings the other way round: what was said in, a recording of it out."""

    def read(folder: Path) -> Iterator[Item]:
        for item in reader(folder):
            files = tuple(p for p in item.parts if isinstance(p, MediaFile | MediaBytes))
            yield Item(item.id, (Text(item.truth[0]),), item.truth, shown=files)

    return read


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise MissingError("There is no such file.", at=str(path))
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _found(folder: Path, pattern: str) -> list[Path]:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise MissingError(f"There is no {pattern}.", at=str(folder), fix="Unpack the published files as they are.")
    return paths
