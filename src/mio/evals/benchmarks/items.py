"""What a benchmark asks, item by item; and names for what its files lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

from mio.types import DataError, MediaBytes, MediaFile, MioError, MissingError, Part

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One question. `slots`: what {0}, {1} of its prompt become. `truth`: right answers in words, or the letter of the
    right one of `options`. `shown`: right answers as files. `groups`: names of what it counts together with."""

    id: str
    slots: tuple[Part | tuple[Part, ...], ...]
    truth: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    shown: tuple[MediaFile | MediaBytes, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its slots in a row."""
        return tuple(p for slot in self.slots for p in (slot if isinstance(slot, tuple) else (slot,)))


Reader = Callable[[Path], Iterable[Item]]


def read_items(reader: Reader, folder: Path) -> list[Item]:
    """All items of a benchmark, every file that they name in its place.

    Raises:
        MissingError: files are absent, the first of them named. DataError: not the official format, no item at all, or
        two items of one id.
    """
    try:
        items = list(reader(folder))
    except MioError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"These files are not in the official format ({type(error).__name__}: {error})."
        raise DataError(what, at=str(folder), fix="Unpack the published files as they are.") from error
    if not items:
        raise DataError("There is not one item.", at=str(folder))
    twice = [id for id, count in Counter(i.id for i in items).items() if count > 1]
    if twice:
        raise DataError(f"{some(twice)} stand twice.", at=str(folder), fix="Remove the copies.")
    media = dict.fromkeys(p for i in items for p in (*i.parts, *i.shown) if isinstance(p, MediaFile))
    lost = [str(m.path.relative_to(folder)) for m in media if not m.path.is_file()]
    if lost:
        raise MissingError(f"{len(lost)} of {len(media)} media files are absent: {some(lost)}.", at=str(folder))
    return items


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    known = list(names)
    rest = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + rest


def by_id(records: Iterable[tuple[str, T]], what: str, at: Path) -> dict[str, T]:
    """Raises: DataError where two records have one id."""
    pairs = list(records)
    twice = [id for id, count in Counter(id for id, _ in pairs).items() if count > 1]
    if twice:
        raise DataError(f"{what} of {some(twice)} stand twice.", at=str(at))
    return dict(pairs)


def joined(questions: Mapping[str, T], answers: Mapping[str, T], at: Path) -> Iterator[tuple[str, T, T]]:
    """Raises: DataError where a question has no answer, or an answer no question."""
    for ours, theirs, what in ((questions, answers, "answer"), (answers, questions, "question")):
        alone = [id for id in ours if id not in theirs]
        if alone:
            raise DataError(
                f"{len(alone)} ids have no {what}: {some(alone)}.", at=str(at), fix="Take files of one split."
            )
    return ((id, question, answers[id]) for id, question in questions.items())


def medium(folder: Path, name: str, kind: str) -> MediaFile:
    """A file below `folder`, which may be a link to elsewhere.

    Raises:
        DataError: the name itself leads out of the folder.
    """
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise DataError(f"{name[:80]!r} leads out of the data's folder.", at=str(folder))
    return MediaFile(folder / name, kind)
