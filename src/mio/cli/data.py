"""The commands of `mio data` by name."""

from __future__ import annotations

from mio.cli.arguments import Command
from mio.cli.datafiles import make_store, validate
from mio.cli.runs import prepare
from mio.cli.stores import show, stats

COMMANDS: dict[str, Command] = {
    "prepare": prepare,
    "validate": validate,
    "tokenize": make_store,
    "stats": stats,
    "show": show,
}
