"""What commands take in: a model, texts and lines of JSON; and names for what they write."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from mio.cli.arguments import Arguments
from mio.pipeline import Model, load, load_speaker
from mio.pretrained.stock import DTYPES
from mio.processor import Processor
from mio.types import DataError, MissingError

PER_INPUT = (DataError, MissingError)  # cost one input; all other errors end the command


def open_model(args: Arguments) -> Model:
    """The model that a command's words name, its weights held as they say."""
    fast_matmul()
    dtype = DTYPES[args.dtype] if args.dtype else None
    return load(args.model, dtype=dtype, bits=args.bits, revision=args.revision, offline=args.offline)


def open_speaker(args: Arguments) -> Processor:
    """Its tokenizers alone."""
    fast_matmul()
    return load_speaker(args.model, revision=args.revision, offline=args.offline)


def fast_matmul() -> None:
    """Twice as fast on AMD CPUs of today, at the same accuracy; bf16 passes where the CPU has them."""
    torch.set_float32_matmul_precision("medium")


def read_text() -> str:
    """Standard input as one text."""
    return _utf8(sys.stdin.buffer.read(), "standard input")


def read_file(path: Path) -> str:
    """A file of text.

    Raises:
        MissingError: there is no such file.
    """
    if not path.is_file():
        raise MissingError("There is no such file.", at=str(path), fix="Check the path.")
    return _utf8(path.read_bytes(), str(path))


def read_lines(source: str) -> Iterator[tuple[str, bytes]]:
    """Lines that are not blank, each with its place; "-" is standard input.

    Raises:
        MissingError: there is no such file.
    """
    if source == "-":
        yield from _numbered(sys.stdin.buffer, "standard input")
        return
    if not Path(source).is_file():
        raise MissingError("There is no such file.", at=source, fix="Check the path, or give - for standard input.")
    with Path(source).open("rb") as file:
        yield from _numbered(file, source)


def _numbered(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    return ((f"{name}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())


def parse_object(line: bytes, at: str) -> dict[str, Any]:
    """Raises: DataError on anything but one JSON object."""
    try:
        value = json.loads(_utf8(line, at))
    except (ValueError, RecursionError) as error:
        raise DataError("This line is not JSON.", at=at, fix="Give one JSON object per line.") from error
    if not isinstance(value, dict):
        raise DataError(f"This line is a JSON {type(value).__name__}, not an object.", at=at)
    return value


def _utf8(data: bytes, at: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("This is not UTF-8.", at=at, fix="Convert it to UTF-8.") from error


def unused(folder: Path, stems: Iterable[str]) -> str:
    """The first stem of which `folder` holds no `stem-NUMBER.suffix`; so nothing is overwritten."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return next(s for s in stems if not any(re.fullmatch(rf"{re.escape(s)}-\d+\.\w+", n) for n in names))
