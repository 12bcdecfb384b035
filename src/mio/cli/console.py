"""What a command says and where: data on stdout, as JSON or for people; notes and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mio.types import MioError


@dataclass(frozen=True)
class Console:
    """`json`: stdout holds JSON and nothing else. `quiet`: no notes. `verbose`: tracebacks."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def data(self, value: object) -> None:
        """One JSON document, for --json only."""
        if self.json:
            print(dumps(value), flush=True)

    def text(self, line: str) -> None:
        """One line for people, left out with --json."""
        if not self.json:
            print(line, flush=True)

    def fields(self, values: Mapping[str, object]) -> None:
        """The same mapping either way: a JSON document, or a line for each entry."""
        self.data(values)
        width = max(map(len, values), default=0)
        for name, value in values.items():
            self.text(f"{name:{width}}  {_shown(value)}")

    def note(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def error(self, error: MioError) -> None:
        """Three lines: what came, where, and what to do next."""
        for label, text in (("error", str(error)), ("  at", error.at), ("  fix", error.fix)):
            if text:
                print(f"{label}: {_printable(text)}", file=sys.stderr, flush=True)

    @property
    def bars(self) -> bool:
        """Whether progress bars make sense."""
        return sys.stderr.isatty() and not self.quiet


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def describe(error: MioError) -> dict[str, object]:
    """An error as --json gives it."""
    return {"code": error.code, "message": str(error), "hint": error.fix, "exit_code": error.exit_code}


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if type(value) is int else str(value)


def _printable(text: str) -> str:
    """On one line and without control characters, whatever a file name or a library put into it."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else " " for c in text)
