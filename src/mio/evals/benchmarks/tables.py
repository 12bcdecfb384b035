"""Benchmarks of pictures and questions as VLMEvalKit publishes them: one .tsv each, the pictures in it as base64."""

from __future__ import annotations

import csv
import re
from ast import literal_eval
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mio.evals.benchmarks.choices import LETTERS, lettered
from mio.evals.benchmarks.items import Item
from mio.types import MediaBytes, MissingError, Part, Text

LONGEST = 1 << 28  # characters of a cell
NAME = 64  # characters of a picture's cell that only says which row's picture it is

Row = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """Rows of a file. `groups`: of which rows count together, as templates over their columns and the `parts` of their
    index. `circular`: each question is asked in every rotation of its options, which count together (MMBench)."""

    file: str
    groups: tuple[str, ...] = ()
    circular: bool = False

    def __call__(self, folder: Path) -> Iterator[Item]:
        rows = list(_rows(folder / self.file))
        pictures = {row["index"]: row.get("image", "") for row in rows}
        for row in rows:
            yield from self._items(row, _pictures(row, pictures))

    def _items(self, row: Row, pictures: tuple[Part, ...]) -> Iterator[Item]:
        """One question, or one for each rotation."""
        columns = tuple(row[letter] for letter in LETTERS if row.get(letter))
        shared = tuple(g.format_map({**row, "parts": row["index"].split("_")}) for g in self.groups)
        for turn in range(len(columns) if self.circular else 1):
            options = columns[turn:] + columns[:turn]
            asked = "\n".join(filter(None, (row.get("hint", ""), row["question"], lettered(options))))
            id, groups = (f"{row['index']}/{turn}", (row["index"],)) if self.circular else (row["index"], shared)
            truth = _truth(row, columns, turn)
            yield Item(id, (pictures, Text(asked)), truth, options or _choices(row), groups=groups)


def _truth(row: Row, columns: Sequence[str], turn: int) -> tuple[str, ...]:
    """The right letter where there are options, turned with them; else the answer in words.

    Raises:
        ValueError: the answer is no letter of the options.
    """
    if not columns:
        return (row["answer_option"],) if _choices(row) else (row["answer"],)
    place = LETTERS[: len(columns)].index(row["answer"])
    return (LETTERS[(place - turn) % len(columns)],)


def _choices(row: Row) -> tuple[str, ...]:
    """Options that stand in the question itself, as in MathVista."""
    found = literal_eval(row["choices"]) if row.get("choices", "").startswith("[") else []
    return tuple(map(str, found))


def _rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise MissingError("There is no such file.", at=str(path))
    csv.field_size_limit(LONGEST)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if None in row.values():
                raise ValueError(f"row {row['index']} of {path.name} is cut short")
            yield row


def _pictures(row: Row, known: Mapping[str, str]) -> tuple[Part, ...]:
    """All pictures of a row, of which there may be none."""
    cell = known[row["index"]]
    if 0 < len(cell) <= NAME and not cell.startswith("["):
        cell = known[cell]
    coded = re.findall(r"[A-Za-z0-9+/]{16,}=*", cell)
    return tuple(MediaBytes(b64decode(c, validate=True), "image", f"picture of {row['index']}") for c in coded)
