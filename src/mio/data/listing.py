"""Data sets by declaration: which files, how their records are laid out, what stays of them and what they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mio.config import from_dict, load_yaml, suggest, to_dict
from mio.data.faults import Reading
from mio.data.formats import FORMATS, Format, format_named
from mio.data.keep import Keep, Sieve
from mio.data.readers import reader_of
from mio.data.tokenize import Tokenizing, Wanted
from mio.data.wording import TEMPLATES
from mio.types import MioError

PAPER: Mapping[str, Keep] = {  # what MIO asks of its kinds of data (appendix A); its ".27" is read as keep-above
    "image-text": Keep(aspect=2.0, side=224, clip=0.27),
    "text": Keep(words=(20, 100_000), word_length=(3, 10), letters=0.8, repetition=0.3, near_duplicates=0.8),
    "interleaved": Keep(clip=0.25),
    "speech-text": Keep(seconds=15.0),
}


@dataclass(frozen=True)
class DataSet:
    """Files of records that are read alike. Paths are seen from the data's folder; `fields` gives fields of the format
    other names; `tasks`: as for `mio data tokenize --task`; `limit`: records of each file, 0 for all."""

    name: str
    files: tuple[str, ...]
    format: str = ""  # by name; "": the usual one of such files
    fields: dict[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    keep: Keep = field(default_factory=Keep)
    limit: int = 0

    def layout(self, path: Path) -> Format | None:
        """Raises: MioError on an unknown format or field of it. DataError, MissingError: nothing reads such a file."""
        usual = reader_of(path).format
        if not self.fields:
            return format_named(self.format) if self.format else None
        format = format_named(self.format) if self.format else FORMATS[usual]
        changed: Format = from_dict(type(format), to_dict(format) | self.fields)
        return changed

    def readings(self, root: Path, sieve: Sieve | None = None) -> list[Reading]:
        """One for every file; what `sieve` sees goes on from file to file."""
        paths = [root / file for file in self.files]
        return [Reading(path, self.layout(path), sieve=sieve, limit=self.limit) for path in paths]

    @property
    def wanted(self) -> Wanted:
        """Tasks of the paper, in its words; or one name of the user's own.

        Raises:
            MioError: several names that are not all tasks of the paper.
        """
        ours = tuple(task for task in self.tasks if task in TEMPLATES)
        if len(self.tasks) > 1 and len(ours) < len(self.tasks):
            other = next(task for task in self.tasks if task not in ours)
            raise MioError(f"No task {other!r}.", fix=suggest(other, TEMPLATES))
        return Wanted(self.tasks[0] if self.tasks else self.format or "data", ours, self.keep)

    def jobs(self, root: Path, fingerprint: str, scorer: str = "") -> list[Tokenizing]:
        """`scorer`: the name of who scores pictures, where somebody does."""
        wanted = replace(self.wanted, scorer=scorer if self.keep.clip else "")
        readings = self.readings(root, Sieve(replace(self.keep, clip=0.0)))
        return [Tokenizing(reading, wanted, fingerprint, self.name) for reading in readings]


@dataclass(frozen=True)
class Listing:
    """What a .yaml of data sets holds."""

    sets: tuple[DataSet, ...]


def read_listing(path: Path) -> Sequence[DataSet]:
    """Raises: MioError on anything but a listing, or two sets of one name."""
    sets = load_yaml(Listing, path).sets
    names = [one.name for one in sets]
    if len(set(names)) < len(names):
        raise MioError("Two data sets have the same name.", at=str(path), fix="Name each apart from the others.")
    return sets
