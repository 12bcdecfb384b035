"""Questions with lettered answers: SEED-Bench, MMLU, OmniBench."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mio.checkpoint import read_json
from mio.evals.benchmarks.items import Item, medium
from mio.types import MissingError, Text

LETTERS = "ABCDEFGH"


def lettered(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def seed_bench(folder: Path) -> Iterator[Item]:
    """The picture questions of SEED-Bench.json (dimensions 1 to 9); those about videos are left out."""
    for record in read_json(folder / "SEED-Bench.json")["questions"]:
        if record["data_type"] != "image":
            continue
        options = tuple(str(record[f"choice_{letter}"]) for letter in "abcd")
        picture = medium(folder, f"SEED-Bench-image/{record['data_id']}", "image")
        asked = (picture, Text(record["question"]), Text(lettered(options)))
        yield Item(str(record["question_id"]), asked, (_letter(record["answer"], options),), options)


def _letter(answer: str, options: Sequence[str]) -> str:
    if answer not in LETTERS[: len(options)] or len(answer) != 1:
        raise ValueError(f"{answer!r} is no letter of {len(options)} options")
    return answer


def omni_bench(folder: Path) -> Iterator[Item]:
    """dataset/*.jsonl with its pictures and sounds in mm_data, as the benchmark's repository has them."""
    for path in _some_files(folder / "dataset", "*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            options = tuple(record["options"])
            picture = medium(folder, f"mm_data/image/{record['image_path']}", "image")
            sound = medium(folder, f"mm_data/audio/{record['audio_path']}", "speech")
            asked = (picture, sound, Text(record["question"]), Text(lettered(options)))
            yield Item(str(record["index"]), asked, (LETTERS[options.index(record["answer"])],), options)


def mmlu(folder: Path, shots: int = 5) -> Iterator[Item]:
    """test/*_test.csv of Hendrycks' files, each question after the `shots` examples of dev/*_dev.csv of its subject."""
    for path in _some_files(folder / "test", "*_test.csv"):
        subject = path.stem.removesuffix("_test")
        examples = "".join(f"{_asked(row)} {row[-1]}\n\n" for row in islice(_rows(folder, "dev", subject), shots))
        head = Text(
            f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        )
        for number, row in enumerate(_rows(folder, "test", subject)):
            yield Item(
                f"{subject}/{number}", (head, Text(examples + _asked(row))), (_letter(row[5], row[1:5]),), tuple("ABCD")
            )


def _asked(row: Sequence[str]) -> str:
    return f"{row[0]}\n{lettered(row[1:5])}\nAnswer:"


def _rows(folder: Path, split: str, subject: str) -> Iterator[list[str]]:
    path = folder / split / f"{subject}_{split}.csv"
    if not path.is_file():
        raise MissingError("There is no such file.", at=str(path))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) != 6:
                raise ValueError(f"{path.name} has a row of {len(row)} cells, not 6")
            yield row


def _some_files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise MissingError(f"There is no {pattern}.", at=str(folder))
    return found
