"""`mio data validate`: every fault of a data file by file and line, before a training meets it."""

from __future__ import annotations

from dataclasses import asdict

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.data.faults import Reading, check_media, summary, write_quarantine
from mio.data.formats import FORMATS
from mio.types import DataError


def validate(args: Arguments, console: Console) -> int:
    """0, or 3 where more than the allowed share is bad."""
    reading = Reading(args.path, FORMATS[args.format], check_media)
    for _ in reading.samples():
        pass
    if args.lines:
        write_quarantine(reading.faults, args.lines)
    for fault in reading.faults:
        console.text(f"{fault.file}:{fault.line}: {fault.what}")
    counts = summary(reading)
    console.data({**counts, "faults": [asdict(f) for f in reading.faults]})
    console.text(", ".join(f"{number:,} {name}" for name, number in counts.items()))
    try:
        reading.hold(args.max_bad_fraction)
    except DataError as error:  # not raised: --json has had its one document
        console.error(error)
        return error.exit_code
    return 0
