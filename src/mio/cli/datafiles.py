"""`mio data validate` and `mio data tokenize`: files of records, looked through before training, and made a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mio.checkpoint import read_json
from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.inputs import open_speaker
from mio.config import override
from mio.data.faults import Fault, check_media, summary, write_quarantine
from mio.data.formats import Format, format_named
from mio.data.keep import Account, Keep
from mio.data.listing import PAPER, DataSet, read_listing
from mio.data.stats import table
from mio.data.store import Store
from mio.data.tokenize import DROPPED, Speaker, Tokenizing, tokenize
from mio.evals.witnesses import Witnesses
from mio.types import DataError

LISTS = (".yaml", ".yml")


def data_sets(args: Arguments) -> list[tuple[DataSet, Path]]:
    """What the command line names, each with the folder of its paths: listings, and a set for every other file."""
    found = list[tuple[DataSet, Path]]()
    for path in args.files:
        if path.suffix in LISTS:
            found += [(one, args.data or path.parent) for one in read_listing(path)]
        else:
            one = DataSet(path.name, (path.name,), args.format, _fields(args), tuple(args.tasks), _keep(args))
            found.append((one, path.parent))
    return [(replace(one, limit=args.limit or one.limit), root) for one, root in found]


def _fields(args: Arguments) -> dict[str, str]:
    return {field: name for field, _, name in (words.partition("=") for words in args.fields)}


def _keep(args: Arguments) -> Keep:
    """Numbers of the paper's for a kind of data, and others by name."""
    kinds = [word for word in args.rules if word in PAPER]
    return override(PAPER[kinds[0]] if kinds else Keep(), [word for word in args.rules if word not in PAPER])


def validate(args: Arguments, console: Console) -> int:
    """0, or 3 where more than the allowed share of a file is bad."""
    readings = [reading for one, root in data_sets(args) for reading in one.readings(root)]
    for reading in readings:
        reading.check = check_media
        for _ in reading.samples():
            pass
    faults = [fault for reading in readings for fault in reading.faults]
    tell(faults, args.lines, console)
    each = [summary(reading) for reading in readings]
    counts = {name: sum(one[name] for one in each) for name in each[0]}
    console.data({**counts, "faults": [asdict(f) for f in faults]})
    console.text(", ".join(f"{number:,} {name}" for name, number in counts.items()))
    try:
        for reading in readings:
            reading.hold(args.max_bad_fraction)
    except DataError as error:  # not raised: --json has had its one document
        console.error(error)
        return error.exit_code
    return 0


def format_of(args: Arguments) -> Format | None:
    return format_named(args.format) if args.format else None


def tell(faults: Sequence[Fault], quarantine: Path | None, console: Console) -> None:
    if quarantine:
        write_quarantine(list(faults), quarantine)
    for fault in faults:
        console.text(f"{fault.file}:{fault.line}: {fault.what}")


def make_store(args: Arguments, console: Console) -> int:
    """Raises: DataError where more than the allowed share of a file is bad; chunks that are done stay done."""
    sets = data_sets(args)
    for one, root in sets:
        _ = (one.readings(root), one.wanted)  # complain before a model is loaded
    scorer = Witnesses(args.witnesses).known_as("clip") if args.witnesses else ""
    speaker = Speaker(open_speaker(args), Witnesses(args.witnesses).fits if args.witnesses else None)
    jobs = [job for one, root in sets for job in one.jobs(root, speaker.processor.fingerprint, scorer)]
    try:
        tokenize(jobs, args.folder, args.max_bad_fraction, speaker)
    finally:
        tell([fault for job in jobs for fault in job.reading.faults], args.lines, console)
    return _count(args.folder, jobs, console)


def _count(folder: Path, jobs: Sequence[Tokenizing], console: Console) -> int:
    store, rules = Store.open(folder, jobs[0].fingerprint), rows_of(folder)
    facts = {
        "store": str(folder),
        "samples": len(store),
        "tokens": len(store.ids),
        "bad": sum(len(job.reading.faults) for job in jobs),
        "chunks made": sum(job.made for job in jobs),
        "chunks found": sum(job.found for job in jobs),
    }
    console.data({**facts, "rules": rules})
    if not console.json:
        console.fields(facts)
        console.text("\n".join(["", *table(rules)] if rules else []))
    return 0


def rows_of(store: Path) -> list[dict[str, object]]:
    """What each rule of each data set saw and left out."""
    return [
        {"data set": name, "rule": rule, "seen": account["seen"], "dropped": account["dropped"]}
        for name, rules in accounts_of(store).items()
        for rule, account in rules.items()
    ]


def accounts_of(store: Path) -> dict[str, Account]:
    """By data set; none where a store was made without rules."""
    path = store / DROPPED
    return dict(read_json(path)) if path.is_file() else {}
