"""`mio data validate` and `mio data tokenize`: files of records, looked through before training, and made a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.inputs import open_speaker
from mio.config import suggest
from mio.data.faults import Fault, Reading, check_media, summary, write_quarantine
from mio.data.formats import Format, format_named
from mio.data.readers import reader_of
from mio.data.store import Store
from mio.data.tokenize import Tokenizing, Wanted, tokenize
from mio.data.wording import TEMPLATES
from mio.types import DataError, MioError


def validate(args: Arguments, console: Console) -> int:
    """0, or 3 where more than the allowed share is bad."""
    reading = Reading(args.path, _format(args), check_media)
    for _ in reading.samples():
        pass
    _tell(reading.faults, args.lines, console)
    counts = summary(reading)
    console.data({**counts, "faults": [asdict(f) for f in reading.faults]})
    console.text(", ".join(f"{number:,} {name}" for name, number in counts.items()))
    try:
        reading.hold(args.max_bad_fraction)
    except DataError as error:  # not raised: --json has had its one document
        console.error(error)
        return error.exit_code
    return 0


def _format(args: Arguments) -> Format | None:
    return format_named(args.format) if args.format else None


def _tell(faults: Sequence[Fault], quarantine: Path | None, console: Console) -> None:
    if quarantine:
        write_quarantine(list(faults), quarantine)
    for fault in faults:
        console.text(f"{fault.file}:{fault.line}: {fault.what}")


def make_store(args: Arguments, console: Console) -> int:
    """Raises: DataError where more than the allowed share of a file is bad; chunks that are done stay done."""
    wanted = _wanted(args)
    readings = [Reading(path, _format(args)) for path in args.files]
    for path in args.files:
        reader_of(path)  # complain before a model is loaded
    speaker = open_speaker(args)
    jobs = [Tokenizing(reading, wanted, speaker) for reading in readings]
    try:
        tokenize(jobs, args.folder, args.max_bad_fraction)
    finally:
        _tell([fault for reading in readings for fault in reading.faults], args.lines, console)
    store = Store.open(args.folder, speaker.fingerprint)
    facts = {
        "store": str(args.folder),
        "samples": len(store),
        "tokens": len(store.ids),
        "bad": sum(len(reading.faults) for reading in readings),
        "chunks made": sum(job.made for job in jobs),
        "chunks found": sum(job.found for job in jobs),
    }
    console.fields(facts)
    return 0


def _wanted(args: Arguments) -> Wanted:
    """Tasks of the paper, in its words; or one name of the user's own."""
    ours = tuple(task for task in args.tasks if task in TEMPLATES)
    if len(args.tasks) > 1 and len(ours) < len(args.tasks):
        other = next(task for task in args.tasks if task not in ours)
        raise MioError(f"No task {other!r}.", fix=suggest(other, TEMPLATES))
    return Wanted(args.tasks[0] if args.tasks else args.format or "data", ours)
