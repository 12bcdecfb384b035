"""Files of records -> a token store, in chunks that are each written once: what is done stays done.

STORE.parts/ holds a small store for every chunk, named by all that its tokens depend on. Repeated after a crash, or
with more records, only chunks that are not there are made; then the parts are laid end to end as the store.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from mio.checkpoint import read_json
from mio.data.faults import Fault, Reading, media_of
from mio.data.readers import Entry, stamp
from mio.data.store import Record, join_stores, write_store
from mio.data.wording import pair_of, worded
from mio.processor import Processor, open_media
from mio.types import DataError, Document, MediaBytes, MediaFile, Message, MissingError, Part, Sample, Turns

CHUNK = 256  # records
BATCH = 32  # records whose media are encoded together
FAULTS = "faults.json"  # of a chunk: media that cannot be read
Content = Turns | Document


@dataclass(frozen=True)
class Wanted:
    """What becomes of every sample: one sequence as it is, called `task`; or for each of `tasks`, one in the paper's
    words for it."""

    task: str
    tasks: tuple[str, ...] = ()

    def of(self, sample: Sample) -> Iterator[tuple[str, Content]]:
        """Raises: DataError where the sample is no pair of a medium and a text, and a task needs one."""
        if not self.tasks:
            yield str(sample.meta.get("part") or self.task), sample.content
        for task in self.tasks:
            yield task, worded(task, *pair_of(task, sample.content))


Chunk = Sequence[tuple[Entry, list[Sample]]]


@dataclass
class Tokenizing:
    """A file on its way to a store. `made`, `found`: chunks that were tokenized now, and that were there already.
    Media that cannot be read join the reading's faults."""

    reading: Reading
    wanted: Wanted
    speaker: Processor
    made: int = 0
    found: int = 0

    def parts(self, folder: Path) -> Iterator[Path]:
        """Every chunk's store, in the order of the records. A bad record leaves a gap in its chunk."""
        for _, group in groupby(self.reading.entries(), lambda made: (made[0].line - 1) // CHUNK):
            chunk = list(group)
            part = folder / self._key(chunk)
            if (part / "config.json").is_file():
                self.found += 1
            else:
                self.made += 1
                self._make(part, chunk)
            self.reading.faults += [Fault(**fault) for fault in read_json(part / FAULTS)]
            yield part

    def _key(self, chunk: Chunk) -> str:
        """Of all that the chunk's tokens depend on: content, media, task, format, tokenizers and vocabulary."""
        facts = (self.speaker.fingerprint, self.wanted, self.reading.path.name, self.reading.format)
        digest = hashlib.sha256(repr(facts).encode())
        for entry, samples in chunk:
            media = [m for s in samples for m in media_of(s.content) if isinstance(m, MediaFile)]
            line = [entry.line, entry.digest, [s.id for s in samples], [stamp(m.path) for m in media]]
            digest.update(json.dumps(line).encode())
        return digest.hexdigest()[:24]

    def _make(self, part: Path, chunk: Chunk) -> None:
        faults = list[Fault]()
        batches = (chunk[start : start + BATCH] for start in range(0, len(chunk), BATCH))
        records = [record for batch in batches for record in self._records(batch, faults)]
        write_store(part, records, self.speaker.fingerprint, {FAULTS: [asdict(fault) for fault in faults]})

    def _records(self, batch: Chunk, faults: list[Fault]) -> Iterator[Record]:
        """Media of the whole batch are encoded together; a record of which one cannot be read is a fault."""
        opened = list[Sample]()
        for entry, samples in batch:
            try:
                _ = [list(self.wanted.of(sample)) for sample in samples]
                opened += [replace(sample, content=_each(sample.content, _opened)) for sample in samples]
            except (DataError, MissingError) as error:
                faults.append(Fault(str(self.reading.path), entry.line, str(error)))
        coded = iter(self.speaker.encode([part for sample in opened for part in _parts(sample.content)]))
        for sample in opened:
            done = replace(sample, content=_each(sample.content, lambda _: next(coded)))
            for task, content in self.wanted.of(done):
                id = f"{task}:{done.id}" if self.wanted.tasks else done.id
                yield Record(self.speaker.sequence(content), id, task, done.source, done.license)


def _opened(part: Part) -> Part:
    return open_media(part) if isinstance(part, MediaFile | MediaBytes) else part


def _parts(content: Content) -> list[Part]:
    if isinstance(content, Document):
        return list(content.parts)
    return [part for message in content.messages for part in message.parts]


def _each(content: Content, change: Callable[[Part], Part]) -> Content:
    """The same document or conversation with every part changed, in order."""
    if isinstance(content, Document):
        return Document(tuple(map(change, content.parts)), content.inputs)
    return Turns(tuple(Message(m.role, tuple(map(change, m.parts))) for m in content.messages))


def tokenize(jobs: Sequence[Tokenizing], store: Path, max_bad_fraction: float) -> None:
    """Files -> one store, in the order of the jobs.

    Raises:
        DataError: a larger share of a file's records is bad; no store is written, but what is done stays done.
    """
    folder = store.with_name(f"{store.name}.parts")
    parts = [part for job in jobs for part in tqdm(job.parts(folder), desc=job.reading.path.name, unit="chunk")]
    for job in jobs:
        job.reading.faults.sort(key=lambda fault: fault.line)
        job.reading.hold(max_bad_fraction)
    join_stores(store, parts, jobs[0].speaker.fingerprint)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in parts:  # of records that are no more, or that a kill left half written
            shutil.rmtree(path, ignore_errors=True)
