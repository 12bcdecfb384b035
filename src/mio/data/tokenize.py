"""Files of records -> a token store, in chunks that are each written once: what is done stays done.

STORE.parts/ holds a small store for every chunk, named by all that its tokens depend on. Repeated after a crash, or
with more records, only chunks that are not there are made; then the parts are laid end to end as the store.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from mio.checkpoint import read_json
from mio.data.faults import Fault, Reading, media_of
from mio.data.keep import Account, Keep, Scorer, Sieve, joined
from mio.data.readers import Entry, stamp
from mio.data.store import Record, join_stores, write_store
from mio.data.wording import pair_of, worded
from mio.processor import Processor, open_media
from mio.types import DataError, Document, MediaBytes, MediaFile, Message, MissingError, Part, Sample, Turns

CHUNK = 256  # records
BATCH = 32  # records whose media are encoded together
FAULTS = "faults.json"  # of a chunk: media that cannot be read
DROPPED = "dropped.json"  # of a chunk, and of a store: what the rules left out
Content = Turns | Document


@dataclass(frozen=True)
class Wanted:
    """What becomes of every sample: one sequence as it is, called `task`; or for each of `tasks`, one in the paper's
    words for it. `keep`: which samples stay; their texts have been judged before. `scorer`: who scores pictures, by
    name."""

    task: str
    tasks: tuple[str, ...] = ()
    keep: Keep = field(default_factory=Keep)
    scorer: str = ""

    def of(self, sample: Sample) -> Iterator[tuple[str, Content]]:
        """Raises: DataError where the sample is no pair of a medium and a text, and a task needs one."""
        if not self.tasks:
            yield str(sample.meta.get("part") or self.task), sample.content
        for task in self.tasks:
            yield task, worded(task, *pair_of(task, sample.content))


Chunk = Sequence[tuple[Entry, list[Sample]]]


@dataclass(frozen=True)
class Speaker:
    """Who makes chunks: the same bytes on every machine that holds the same model."""

    processor: Processor
    scorer: Scorer | None = None

    def make(self, work: Work) -> None:
        faults, sieve = list[Fault](), Sieve(work.wanted.keep, self.scorer)
        batches = (work.chunk[start : start + BATCH] for start in range(0, len(work.chunk), BATCH))
        records = [record for batch in batches for record in self._records(replace(work, chunk=batch), sieve, faults)]
        beside = {FAULTS: [asdict(fault) for fault in faults], DROPPED: sieve.account()}
        write_store(work.part, records, self.processor.fingerprint, beside)

    def _records(self, work: Work, sieve: Sieve, faults: list[Fault]) -> Iterator[Record]:
        """Media of the whole batch are encoded together; a record of which one cannot be read is a fault."""
        opened = list[Sample]()
        for entry, samples in work.chunk:
            try:
                _ = [list(work.wanted.of(sample)) for sample in samples]
                found = [replace(sample, content=_each(sample.content, _opened)) for sample in samples]
            except (DataError, MissingError) as error:
                faults.append(Fault(work.file, entry.line, str(error)))
                continue
            opened += [left for sample in found if (left := sieve.without(sample, entry.line))]
        coded = iter(self.processor.encode([part for sample in opened for part in sample.content.parts]))
        for sample in opened:
            done = replace(sample, content=_each(sample.content, lambda _: next(coded)))
            for task, content in work.wanted.of(done):
                id = f"{task}:{done.id}" if work.wanted.tasks else done.id
                yield Record(self.processor.sequence(content), id, task, done.source, done.license)


@dataclass(frozen=True)
class Work:
    """A chunk that is not there yet, and the folder that it becomes."""

    part: Path
    chunk: Chunk
    wanted: Wanted
    file: str


@dataclass
class Tokenizing:
    """A file on its way to a store. `made`, `found`: chunks that were tokenized now, and that were there already.
    `set`: the name of the data set that it belongs to."""

    reading: Reading
    wanted: Wanted
    fingerprint: str
    set: str = ""
    made: int = 0
    found: int = 0
    parts: list[Path] = field(default_factory=list)

    def missing(self, folder: Path) -> Iterator[Work]:
        """Chunks to make, in the order of the records; `parts` grows by all. A bad record leaves a gap in its chunk."""
        for _, group in groupby(self.reading.entries(), lambda made: (made[0].line - 1) // CHUNK):
            chunk = list(group)
            part = folder / self._key(chunk)
            self.parts.append(part)
            if (part / "config.json").is_file():
                self.found += 1
            else:
                self.made += 1
                yield Work(part, chunk, self.wanted, str(self.reading.path))

    def _key(self, chunk: Chunk) -> str:
        """Of all that the chunk's tokens depend on: content, media, task, rules, format, tokenizers and vocabulary."""
        facts = (self.fingerprint, self.wanted, self.reading.path.name, self.reading.format)
        digest = hashlib.sha256(repr(facts).encode())
        for entry, samples in chunk:
            media = [m for s in samples for m in media_of(s.content) if isinstance(m, MediaFile)]
            line = [entry.line, entry.digest, [s.id for s in samples], [stamp(m.path) for m in media]]
            digest.update(json.dumps(line).encode())
        return digest.hexdigest()[:24]

    def hold(self, max_bad_fraction: float) -> None:
        """Count media that could not be read, too. Raises: DataError as `Reading.hold`."""
        found = [Fault(**fault) for part in self.parts for fault in read_json(part / FAULTS)]
        self.reading.faults = sorted(self.reading.faults + found, key=lambda fault: fault.line)
        self.reading.hold(max_bad_fraction)


def tokenize(jobs: Sequence[Tokenizing], store: Path, max_bad_fraction: float, speaker: Speaker) -> None:
    """Files -> one store, in the order of the jobs.

    Raises:
        DataError: a larger share of a file's records is bad; no store is written, but what is done stays done.
    """
    folder = store.with_name(f"{store.name}.parts")
    for work in tqdm((work for job in jobs for work in job.missing(folder)), desc="tokenize", unit="chunk"):
        speaker.make(work)
    for job in jobs:
        job.hold(max_bad_fraction)
    parts = [part for job in jobs for part in job.parts]
    join_stores(store, parts, jobs[0].fingerprint, {DROPPED: dropped(jobs)})
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in parts:  # of records that are no more, or that a kill left half written
            shutil.rmtree(path, ignore_errors=True)


def dropped(jobs: Sequence[Tokenizing]) -> dict[str, Account]:
    """What the rules of every data set saw and left out, texts before media."""
    out = dict[str, Account]()
    for name in dict.fromkeys(job.set for job in jobs):
        mine = [job for job in jobs if job.set == name]
        sieves = {id(job.reading.sieve): job.reading.sieve for job in mine if job.reading.sieve}
        texts = [{r: a for r, a in sieve.account().items() if a["seen"]} for sieve in sieves.values()]
        media = [read_json(part / DROPPED) for job in mine for part in job.parts]
        out[name] = joined([*texts, *({r: a for r, a in m.items() if a["seen"]} for m in media)])
    return out


def _opened(part: Part) -> Part:
    return open_media(part) if isinstance(part, MediaFile | MediaBytes) else part


def _each(content: Content, change: Callable[[Part], Part]) -> Content:
    """The same document or conversation with every part changed, in order."""
    if isinstance(content, Document):
        return Document(tuple(map(change, content.parts)), content.inputs)
    return Turns(tuple(Message(m.role, tuple(map(change, m.parts))) for m in content.messages))
