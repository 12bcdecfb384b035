"""Lines -> samples and faults: a bad record costs itself only, and too many stop the run. Knows no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mio.data.formats import Format
from mio.media import Limits, read, sniff
from mio.types import DataError, Document, MediaFile, MissingError, Part, Sample

_LIMITS = Limits()
MAX_LINE = 16 * 2**20  # bytes of one record


@dataclass(frozen=True)
class Fault:
    """What is wrong with one record of a file; lines count from 1."""

    file: str
    line: int
    what: str


@dataclass
class Reading:
    """Samples in the order of their lines; `faults` grows and `seen` counts while they are drawn."""

    path: Path
    format: Format
    check: Callable[[MediaFile], None] | None = None  # raises what is wrong with a medium; None: not opened
    faults: list[Fault] = field(default_factory=list)
    seen: int = 0

    def samples(self) -> Iterator[Sample]:
        """Raises: MissingError where there is no such file."""
        if not self.path.is_file():
            raise MissingError("There is no such file.", at=str(self.path), fix="Give a JSONL file.")
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                self.seen += 1
                try:
                    yield self._sample(line, number)
                except (DataError, MissingError) as error:
                    self.faults.append(Fault(str(self.path), number, str(error)))

    def _sample(self, line: bytes, number: int) -> Sample:
        record = parse_record(line)
        content = self.format.read(record, self.path.parent)
        for medium in media_of(content) if self.check else ():
            assert self.check
            self.check(medium)
        id = f"{self.path.stem}/{record.get('id', number)}"
        return Sample(id, content, self.path.stem, str(record.get("license", "")))

    def hold(self, max_bad_fraction: float) -> None:
        """Raises: DataError when a larger share of the records is bad."""
        if len(self.faults) > max_bad_fraction * self.seen:
            what = f"{len(self.faults)} of {self.seen} records are bad, more than {max_bad_fraction:.2%}."
            raise DataError(what, at=str(self.path), fix="See quarantine.jsonl, mend them, or allow more.")


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


def media_of(content: Any) -> list[MediaFile]:
    """Of a document or of turns, in order."""
    parts: tuple[Part, ...] = (
        content.parts if isinstance(content, Document) else tuple(p for m in content.messages for p in m.parts)
    )
    return [p for p in parts if isinstance(p, MediaFile)]


def check_media(file: MediaFile, limits: Limits = _LIMITS) -> None:
    """Decode it within limits. Raises: DataError where it is damaged, too large or of another modality."""
    if (found := sniff(file.path, limits)) != file.modality:
        raise DataError(f"{file.path.name} holds {found}, not {file.modality}.", at=str(file.path))
    try:
        read(file.path, limits)
    except DataError as error:
        raise DataError(f"{file.path.name}: {error}", at=error.at, fix=error.fix) from error


def write_quarantine(faults: list[Fault], path: Path) -> None:
    """One JSON object a line, in the order of the records."""
    lines = (json.dumps(asdict(f), ensure_ascii=False) + "\n" for f in faults)
    path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")


def summary(reading: Reading) -> Mapping[str, int]:
    return {"records": reading.seen, "good": reading.seen - len(reading.faults), "bad": len(reading.faults)}
