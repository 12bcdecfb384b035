"""Records -> samples and faults: a bad record costs itself only, and too many stop the run. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from mio.data.formats import FORMATS, Format, packed
from mio.data.keep import Sieve
from mio.data.readers import Entry, Reader, reader_of
from mio.media import Limits, read, sniff
from mio.processor import name_of, source_of
from mio.types import DataError, Document, MediaBytes, MediaFile, MioError, MissingError, Sample, Turns

_LIMITS = Limits()


@dataclass(frozen=True)
class Fault:
    """What is wrong with one record of a file; lines count from 1."""

    file: str
    line: int
    what: str


@dataclass
class Reading:
    """Samples in the order of their records; `faults` grows and `seen` counts while they are drawn."""

    path: Path
    format: Format | None = None  # None: the usual one of such a file
    check: Callable[[MediaFile | MediaBytes], None] | None = (
        None  # raises what is wrong with a medium; None: not opened
    )
    sieve: Sieve | None = None  # samples whose texts do not pass are left out
    limit: int = 0  # records that are read; 0: all
    faults: list[Fault] = field(default_factory=list)
    seen: int = 0

    def samples(self) -> Iterator[Sample]:
        """Raises: MissingError where there is no such file, DataError where nothing reads it."""
        for _, samples in self.entries():
            yield from samples

    def entries(self) -> Iterator[tuple[Entry, list[Sample]]]:
        """Good records, each with the samples that it makes: one, several, or none that stay. Raises as `samples`."""
        reader = reader_of(self.path)
        for entry in islice(reader.entries(self.path), self.limit or None):
            self.seen += 1
            try:
                made = list(self._made(entry, reader))
            except (DataError, MissingError) as error:
                self.blame(entry.line, error)
                continue
            yield entry, [s for s in made if self.sieve is None or self.sieve.keeps_text(s, entry.line)]

    def blame(self, line: int, error: MioError) -> None:
        self.faults.append(Fault(str(self.path), line, str(error)))

    def _made(self, entry: Entry, reader: Reader) -> Iterator[Sample]:
        if isinstance(entry.record, MioError):
            raise entry.record
        root = packed(entry.record, reader.root(self.path))
        content = (self.format or FORMATS[reader.format]).read(entry.record, root)
        name = entry.record.get("id", entry.record.get("__key__", entry.line))
        license = str(entry.record.get("license", ""))
        for part, one in content.items() if isinstance(content, dict) else [("", content)]:
            for medium in media_of(one) if self.check else ():
                assert self.check
                self.check(medium)
            id = f"{self.path.stem}/{name}" + (f"/{part}" if part else "")
            yield Sample(id, one, self.path.stem, license, {"part": part} if part else {})

    def hold(self, max_bad_fraction: float) -> None:
        """Raises: DataError when a larger share of the records is bad."""
        if len(self.faults) > max_bad_fraction * self.seen:
            what = f"{len(self.faults)} of {self.seen} records are bad, more than {max_bad_fraction:.2%}."
            raise DataError(what, at=str(self.path), fix="See quarantine.jsonl, mend them, or allow more.")


def media_of(content: Document | Turns) -> list[MediaFile | MediaBytes]:
    """Of a document or of turns, in order."""
    return [part for part in content.parts if isinstance(part, MediaFile | MediaBytes)]


def check_media(file: MediaFile | MediaBytes, limits: Limits = _LIMITS) -> None:
    """Decode it within limits. Raises: DataError where it is damaged, too large or of another modality."""
    name = Path(name_of(file)).name
    source = source_of(file, limits)
    if (found := sniff(source, limits)) != file.modality:
        raise DataError(f"{name} holds {found}, not {file.modality}.", at=name)
    try:
        read(source, limits)
    except DataError as error:
        raise DataError(f"{name}: {error}", at=error.at, fix=error.fix) from error


def write_quarantine(faults: list[Fault], path: Path) -> None:
    """One JSON object a line, in the order of the records."""
    lines = (json.dumps(asdict(f), ensure_ascii=False) + "\n" for f in faults)
    path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def summary(reading: Reading) -> Mapping[str, int]:
    return {"records": reading.seen, "good": reading.seen - len(reading.faults), "bad": len(reading.faults)}
