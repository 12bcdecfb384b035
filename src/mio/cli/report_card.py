"""`mio eval tokenizer`: tokenizers measured side by side, as a table, as JSON, and as a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from tqdm import tqdm

from mio.checkpoint import read_json, write_json
from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.inputs import fast_matmul
from mio.cli.runs import corpus
from mio.config import from_dict
from mio.data.prepare import split
from mio.data.sources import read_corpus
from mio.evals.exhibits import Exhibits, exhibits
from mio.evals.kinds import KINDS
from mio.evals.page import page
from mio.evals.tokenizers import Sheet, markdown, measured, original
from mio.evals.tokenizers import rows as rows_of
from mio.pipeline import ModelConfig, load_tokenizers
from mio.recipe import Recipe
from mio.types import MissingError, Modality, Tokenizer

ASSETS = Path(str(files("mio") / "assets"))


@dataclass(frozen=True)
class Candidate:
    """One tokenizer of a folder. `book`: the row whose codes it gives: its own, or that of its spans."""

    name: str
    tokenizer: Tokenizer
    book: Modality


def tokenizer(args: Arguments, console: Console) -> int:
    """Write DIR/report.json and DIR/index.html, and print the table."""
    fast_matmul()
    found = [c for path, name in named(args.files) for c in candidates(path, name)]
    rule, folder = read_json(ASSETS / "sample" / "split.json"), corpus(args.data)
    train, held_out = split(read_corpus(folder), rule["held_out"], rule["seed"])
    kinds = [k for k in KINDS if any(c.tokenizer.modality.name == k for c in found)]
    shown = [e for e in (exhibits(k, train, held_out, args.count) for k in kinds) if e.media]
    if not shown:
        raise MissingError("No held-out media that these tokenizers read.", at=str(folder), fix="Give another --data.")
    sheets = list(tqdm(_sheets(shown, found), desc="tokenizers", unit="sheet"))
    _write(args, console, shown, sheets)
    return 0


def named(sources: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Folders with the names of models or runs; where two have the same, with their paths."""
    names = [s.resolve().parent.name if s.resolve().name == "model" else s.resolve().name for s in sources]
    for source, name in zip(sources, names, strict=True):
        yield source, name if names.count(name) == 1 else str(source)


def candidates(source: Path, name: str) -> list[Candidate]:
    """The media tokenizers of a model or a run, or of a model that ships, by name.

    Raises:
        MissingError: there is none.
    """
    folder = ASSETS / source if not source.exists() and (ASSETS / source / "config.json").is_file() else source
    rows, frames = _rows(folder)
    books = {row.name: row for row in rows}
    here = [r for r in rows if (folder / (r.spans_of or r.name) / "config.json").is_file()]
    if not here:
        fix = "Give a folder of `mio train` or `mio train-tokenizer`, or the name of a model that ships: tiny."
        raise MissingError("There are no tokenizers.", at=str(source), fix=fix)
    built = load_tokenizers(folder, here, frames)
    return [Candidate(name, built[row.name], books[row.spans_of or row.name]) for row in here]


def _rows(folder: Path) -> tuple[tuple[Modality, ...], int]:
    """Rows and frames per clip, of a run or of a model."""
    if (folder / "recipe.json").is_file():
        recipe = from_dict(Recipe, read_json(folder / "recipe.json"))
        return recipe.rows, recipe.frames
    if (folder / "config.json").is_file() and "rows" in (found := read_json(folder / "config.json")):
        config = from_dict(ModelConfig, found)
        return config.rows, config.frames
    return (), 0


def _sheets(shown: Sequence[Exhibits], found: Sequence[Candidate]) -> Iterator[Sheet]:
    for media in shown:
        yield original(media)
        for c in found:
            if c.tokenizer.modality.name == media.name:
                yield measured(c.name, c.tokenizer, c.book, media)


def _write(args: Arguments, console: Console, shown: Sequence[Exhibits], sheets: Sequence[Sheet]) -> None:
    facts = {
        "data": str(corpus(args.data).name),
        "held-out media": ", ".join(f"{e.kind.title.lower()} {len(e.media)}" for e in shown),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores",
    }
    args.folder.mkdir(parents=True, exist_ok=True)
    document = {**facts, "rows": rows_of(sheets)}
    write_json(args.folder / "report.json", document)
    path = args.folder / "index.html"
    path.write_text(page(facts, shown, sheets), encoding="utf-8")
    console.data({**document, "page": str(path)})
    for line in markdown(sheets):
        console.text(line)
    console.note(f"page: {path}")
