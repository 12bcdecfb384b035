"""`mio tokenize` and `mio detokenize`: files -> JSON lines with codes and ids -> files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import log2
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mio.checkpoint import require
from mio.cli.arguments import Arguments
from mio.cli.console import Console, describe, dumps
from mio.cli.inputs import PER_INPUT, open_speaker, parse_object, read_lines, read_text
from mio.pipeline import WRITERS, write_media
from mio.processor import MODALITY_OF, Processor, open_media
from mio.sequence import span_ids
from mio.types import Audio, DataError, Encoded, Ids, Media, MediaFile, MioError, Text, Video

Record = dict[str, Any]


def tokenize(args: Arguments, console: Console) -> int:
    jobs = _jobs(args)
    processor = open_speaker(args)
    with _opened(args.lines) if args.lines else nullcontext() as file:
        sheet = _Sheet(console, [name for name, _ in jobs], file)
        for name, job in jobs:
            try:
                sheet.add(job(processor))
            except PER_INPUT as error:
                sheet.fail(name, error)
    return 3 if sheet.failed else 0


Job = Callable[[Processor], Record]


def _jobs(args: Arguments) -> list[tuple[str, Job]]:
    if Path("-") in args.files:
        raise MioError("Only a text can come from standard input.", fix="Say so with --text instead of -.")
    if not args.files and not args.from_text:
        raise MioError("There is nothing to tokenize.", fix="Name files, or pipe a text into: mio tokenize --text")
    jobs: list[tuple[str, Job]] = [("-", text_record)] if args.from_text else []
    return jobs + [(str(path), partial(file_record, path)) for path in args.files]


def _opened(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", errors="backslashreplace")


@dataclass
class _Sheet:
    """Where records go: JSON lines, or a table for people; and a file of JSON lines, if any."""

    console: Console
    names: Sequence[str]
    file: TextIO | None
    failed: int = 0
    begun: bool = False

    def add(self, record: Record) -> None:
        self._line(record)
        if not self.begun:
            self._row("file", "modality", "shape", "tokens", "bits", "rate")
            self.begun = True
        rate = f"{record['tokens'] / record['seconds']:.1f}/s" if "seconds" in record else ""
        shape = "x".join(map(str, np.array(record["codes"]).shape)) if "codes" in record else ""
        bits = f"{record['bits']:,.0f}"
        self._row(record["file"], record["modality"], shape, f"{record['tokens']:,}", bits, rate)

    def fail(self, name: str, error: MioError) -> None:
        self.failed += 1
        self.console.error(error)
        self._line({"file": name, "error": describe(error)})

    def _line(self, record: Record) -> None:
        self.console.data(record)
        if self.file:
            print(dumps(record), file=self.file)

    def _row(self, file: str, modality: str, shape: str, *numbers: str) -> None:
        width = max(4, *map(len, self.names))
        self.console.text(f"{file:{width}}  {modality:8}  {shape:9}" + "".join(f"  {n:>9}" for n in numbers))


def file_record(path: Path, processor: Processor) -> Record:
    """Codes (N, K, T) and ids of a media file. The ids hold every codebook, as the model writes them.

    Raises:
        DataError, MissingError: the file cannot be read, or the model does not speak its kind.
    """
    media = open_media(MediaFile(path, ""))
    name = MODALITY_OF[type(media)]
    [codes] = processor.tokenizer(name).encode([media])
    ids = span_ids(Encoded(name, codes), processor.vocab, as_input=False)
    bits = codes.size * log2(processor.vocab.base(name).codebook_size)
    record = _record(str(path), name, ids, bits, processor) | {"codes": codes.tolist()}
    return record | {"seconds": round(seconds, 3)} if (seconds := _seconds(media)) else record


def text_record(processor: Processor) -> Record:
    """The text on standard input."""
    text = read_text()
    if not text:
        raise DataError("The text is empty.", at="standard input")
    ids = np.array(processor.text.encode(text), np.int64)
    return _record("-", "text", ids, len(ids) * log2(processor.vocab.text_size), processor)


def _record(file: str, modality: str, ids: Ids, bits: float, processor: Processor) -> Record:
    return {
        "file": file,
        "modality": modality,
        "tokens": len(ids),
        "bits": round(bits, 1),
        "fingerprint": processor.fingerprint,
        "ids": ids.tolist(),
    }


def _seconds(media: Media) -> float:
    if isinstance(media, Video):
        return len(media.frames) / media.fps
    return media.seconds if isinstance(media, Audio) else 0.0


# ------------------------------------------------------------------------------------------------------- and back


def detokenize(args: Arguments, console: Console) -> int:
    processor, failed = open_speaker(args), 0
    args.folder.mkdir(parents=True, exist_ok=True)
    for at, line in read_lines(args.source):
        try:
            record = parse_object(line, at)
            path = write_part(restored(record, processor, at), args.folder, str(record.get("file", "")))
        except PER_INPUT as error:
            failed += 1
            console.error(error)
            console.data({"at": at, "error": describe(error)})
            continue
        console.data({"file": record.get("file"), "path": str(path)})
        console.text(str(path))
    return 3 if failed else 0


def restored(record: Record, processor: Processor, at: str) -> Text | Media:
    """The one medium or text that a line of `mio tokenize` stands for.

    Raises:
        DataError: made with another vocabulary, or not exactly one whole medium of the kind it says.
    """
    _check(record, processor, at)
    name = record["modality"]
    ids = _ids(record, at) if "ids" in record else _ids_of_codes(record, processor, at)
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(processor.vocab):
        raise DataError(f"Its ids are not all from 0 to {len(processor.vocab) - 1}.", at=at)
    runs = name != "text" and bool(processor.vocab.row(name).spans_of)
    parsed = processor.parse(ids, gather=name if runs else "")
    kinds = ["text" if isinstance(p, Text) else p.modality for p in parsed.parts]
    if parsed.faults or kinds != [name]:
        found = " ".join(parsed.faults) or f"It holds {' + '.join(kinds) or 'nothing'}."
        raise DataError(f"This is not one whole {name}. {found}", at=at, fix="Tokenize the file again.")
    return processor.decode(parsed.parts)[0]


def _check(record: Record, processor: Processor, at: str) -> None:
    if "error" in record:
        raise DataError(f"{record.get('file')} could not be tokenized.", at=at, fix="Mend it, and tokenize it again.")
    fix = "Give the --model that made it, or tokenize it again with this one."
    require(str(record.get("fingerprint")), processor.fingerprint, at, fix)
    known = ["text", *(row.name for row in processor.vocab.rows)]
    if record.get("modality") not in known:
        raise DataError(f"No modality {record.get('modality')!r}. This model speaks: {', '.join(known)}.", at=at)


def _ids(record: Record, at: str) -> Ids:
    return _integers(record["ids"], 1, "ids", at)


def _ids_of_codes(record: Record, processor: Processor, at: str) -> Ids:
    if record["modality"] == "text" or "codes" not in record:
        raise DataError("The line has no ids.", at=at, fix="Give one line of `mio tokenize --json`.")
    codes = _integers(record["codes"], 3, "codes", at)
    return span_ids(Encoded(record["modality"], codes), processor.vocab, as_input=False)


def _integers(value: object, axes: int, what: str, at: str) -> Ids:
    try:
        array = np.array(value)
    except ValueError:  # ragged
        array = np.array([])
    if array.dtype.kind != "i" or array.ndim != axes:
        raise DataError(f"Its {what} are not whole numbers in {axes} levels of lists.", at=at)
    return array.astype(np.int64)


def write_part(part: Text | Media, folder: Path, file: str) -> Path:
    """Named after the file it came from; numbered where that name is taken."""
    suffix = ".txt" if isinstance(part, Text) else WRITERS[type(part)].suffix
    stem = next(s for s in _stems(Path(file).stem) if not (folder / f"{s}{suffix}").exists())
    if not isinstance(part, Text):
        return write_media(part, folder / stem)
    path = folder / f"{stem}{suffix}"
    path.write_text(part.text, encoding="utf-8", newline="")
    return path


def _stems(stem: str) -> Iterator[str]:
    stem = "text" if stem == "-" else stem.replace("\0", "")[:60] or "part"
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))
