"""Files of records -> records with their places: JSONL, tar, parquet, folders, transcripts. Opens no media.

What a record names stays a path; what it carries stays bytes. Nothing is unpacked to disk and no link is followed.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from mio.media import MODALITY_BY_SUFFIX, Limits
from mio.types import DataError, MioError, MissingError

Record = Mapping[str, Any]
MAX_LINE = 16 * 2**20  # bytes of one record's text
_MOST = Limits().bytes  # of one medium


@dataclass(frozen=True)
class Entry:
    """One record or why there is none. Lines, rows and samples count from 1; `digest` is that of its content."""

    line: int
    record: Record | MioError
    digest: str


@dataclass(frozen=True)
class Reader:
    """How a kind of file is read, how its records are laid out unless told, and the folder or archive that their paths
    are in."""

    entries: Callable[[Path], Iterator[Entry]]
    format: str
    root: Callable[[Path], Path] = lambda path: path.parent


def reader_of(path: Path) -> Reader:
    """By name, or for a folder by what is in it.

    Raises:
        MissingError: there is no such file. DataError: nothing reads such a file.
    """
    if path.is_dir():
        return _SPOKEN if next(path.rglob("*.trans.txt"), None) else _FOLDER
    if not path.is_file():
        raise MissingError("There is no such file.", at=str(path), fix=f"Give a {', '.join(READERS)} or a folder.")
    for suffix, reader in READERS.items():
        if path.name.endswith(suffix):
            return reader
    raise DataError("Nothing reads such a file.", at=str(path), fix=f"Give a {', '.join(READERS)} or a folder.")


# -------------------------------------------------------------------------------------------------- lines of JSON


def _lines(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _entry(number, _digest(line), partial(parse_record, line))


def parse_record(line: bytes) -> dict[str, Any]:
    """Raises: DataError on anything but one JSON object in UTF-8."""
    if len(line) > MAX_LINE:
        raise DataError(f"This line has {len(line)} bytes, more than {MAX_LINE}.")
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError("This line is not UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise DataError("This line is not JSON, or nested too deep.") from error
    if not isinstance(record, dict):
        raise DataError(f"This line is a JSON {type(record).__name__}, not an object.")
    return record


def _entry(number: int, digest: str, load: Callable[[], Record]) -> Entry:
    try:
        return Entry(number, load(), digest)
    except MioError as error:
        return Entry(number, error, digest)


def _digest(*pieces: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------- groups of files of one stem


def _tar(path: Path) -> Iterator[Entry]:
    """WebDataset: members side by side whose names agree up to the first dot are a sample."""
    number = 0
    try:
        with tarfile.open(path, "r:") as tar:
            files = (member for member in iter(tar.next, None) if not member.isdir())
            for number, (_, members) in enumerate(groupby(files, lambda member: _stem(member.name)[0]), 1):
                yield _tar_sample(number, tar, list(members))
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all that it has seen
            whole = _ends(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError):
        whole = False
    if not whole:
        fix = "Copy it again; decompress it first if it is compressed."
        error = DataError("The archive is damaged, cut short or no plain tar.", at=str(path), fix=fix)
        yield Entry(number + 1, error, "")


def _ends(path: Path, offset: int) -> bool:
    """Whether there is an end where the members end: `tarfile` takes a damaged header for one."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _tar_sample(number: int, tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Entry:
    try:
        found = {"__key__": _stem(members[0].name)[0]} | {_stem(m.name)[1]: _content(tar, m) for m in members}
    except DataError as error:
        return Entry(number, error, "")
    if len(found) <= len(members):
        return Entry(number, DataError(f"Members of {found['__key__']!r} stand twice."), "")
    pieces = (v if isinstance(v, bytes) else v.encode(errors="surrogateescape") for v in found.values())
    return Entry(number, found, _digest(*pieces))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"Member {member.name[:80]!r} leads out of the archive.")
    if not member.isreg() or member.sparse is not None:
        raise DataError(f"Member {member.name[:80]!r} is a link, a device or full of holes, not a file.")
    if member.size > _MOST:
        raise DataError(f"Member {member.name[:80]!r} has {member.size:,} bytes; at most {_MOST:,} are read.")
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _folder(path: Path) -> Iterator[Entry]:
    """Media with captions beside them: files whose names agree up to the first dot are a sample."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    groups = groupby(files, lambda file: _stem(file.relative_to(path).as_posix())[0])
    for number, (key, group) in enumerate(groups, 1):
        members = {_stem(file.name)[1]: file for file in group}
        if any(f".{suffix}" in MODALITY_BY_SUFFIX for suffix in members):
            digest = _digest(*(f"{file}{stamp(file)}".encode(errors="surrogateescape") for file in members.values()))
            yield _entry(number, digest, partial(_folder_sample, path, key, members))


def _folder_sample(root: Path, key: str, members: Mapping[str, Path]) -> Record:
    return {"__key__": key} | {suffix: _value(root, suffix, file) for suffix, file in members.items()}


def _value(root: Path, suffix: str, file: Path) -> str | bytes:
    """Media by their path, texts by their bytes."""
    if f".{suffix}" in MODALITY_BY_SUFFIX:
        return file.relative_to(root).as_posix()
    if file.is_symlink() or file.stat().st_size > MAX_LINE:
        raise DataError(f"{file.name} is a link, or too long for a caption.")
    return file.read_bytes()


def stamp(file: Path) -> str:
    """Changes when the file does."""
    facts = file.stat()
    return f"{facts.st_size}@{facts.st_mtime_ns}"


def _stem(name: str) -> tuple[str, str]:
    """ "a/b.seg.JPG" -> ("a/b", "seg.jpg")"""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


# --------------------------------------------------------------------------------------------- transcripts, tables


def _transcripts(path: Path) -> Iterator[Entry]:
    """LibriSpeech: lines of a .trans.txt, or of all in a folder, name a .flac beside it and say what is spoken."""
    number = 0
    for sheet in sorted(path.rglob("*.trans.txt")) if path.is_dir() else [path]:
        with sheet.open("rb") as file:
            for line in file:
                number += 1
                beside = sheet.parent.relative_to(path) if path.is_dir() else Path()
                yield _entry(number, _digest(line), partial(_utterance, line, beside))


def _utterance(line: bytes, beside: Path) -> Record:
    try:
        name, _, text = line.decode("utf-8").strip().partition(" ")
    except UnicodeDecodeError as error:
        raise DataError("This line is not UTF-8.") from error
    if not name or not text:
        raise DataError("This line is not a name and a text.")
    return {"id": name, "audio_filepath": (beside / f"{name}.flac").as_posix(), "text": text}


def _rows(path: Path) -> Iterator[Entry]:
    """Parquet, a few rows at a time.

    Raises:
        MissingError: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingError("Reading parquet needs pyarrow.", at=str(path), fix="pip install 'mio[data]'") from error
    number = 0
    try:
        with ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=32):
                for record in batch.to_pylist():
                    number += 1
                    yield Entry(number, record, _digest(repr(record).encode(errors="surrogatepass")))
    except (ArrowException, OSError):
        yield Entry(number + 1, DataError("The table is damaged, or no parquet.", at=str(path)), "")


def _beside(path: Path) -> Path:
    """The archive of the same name, if there is one; else the folder."""
    pack = path.with_suffix(".zip")
    return pack if pack.is_file() else path.parent


def _itself(path: Path) -> Iterator[Entry]:
    """A video of its own, as a record."""
    yield Entry(1, {"id": path.name, "video": path.name}, _digest(stamp(path).encode()))


READERS: dict[str, Reader] = {
    ".jsonl": Reader(_lines, "messages", _beside),
    ".tar": Reader(_tar, "members"),
    ".parquet": Reader(_rows, "captions"),
    ".trans.txt": Reader(_transcripts, "manifest"),
    **{suffix: Reader(_itself, "film") for suffix, kind in MODALITY_BY_SUFFIX.items() if kind == "video"},
}
_FOLDER = Reader(_folder, "members", lambda path: path)
_SPOKEN = Reader(_transcripts, "manifest", lambda path: path)
