"""The commands of `mio data` by name."""

from __future__ import annotations

from mio.cli.arguments import Command
from mio.cli.datafiles import make_store, validate
from mio.cli.films import narrate_films
from mio.cli.runs import prepare
from mio.cli.stores import show, stats

COMMANDS: dict[str, Command] = {
    "prepare": prepare,
    "validate": validate,
    "narrate": narrate_films,
    "tokenize": make_store,
    "stats": stats,
    "show": show,
}
