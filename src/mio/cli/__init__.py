"""The command line: words in, an exit code out. Data go to stdout, everything else to stderr.

Exit codes: 0 ok, 1 a bug, 2 usage or configuration, 3 data, 4 something missing, 5 memory or disk,
6 a measurement below its threshold, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

from mio.cli.console import Console, describe
from mio.cli.parser import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; whatever goes wrong becomes three lines on stderr and an exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    console = Console(json="--json" in words, verbose="-v" in words or "--verbose" in words)
    _print_any_name()
    try:
        args = parse(words)
        console = Console(args.json, args.quiet, args.verbose)
        if not console.bars:
            os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported, which is later
        code = args.command(args, console)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # argparse, after --help or --version
        return int(done.code or 0)
    except BrokenPipeError:
        return _hang_up()
    except (Exception, KeyboardInterrupt) as error:
        return _fail(error, console)


def _print_any_name() -> None:
    """Let file names that are not Unicode through; the escapes are also what JSON writes for them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _hang_up() -> int:
    """The reader of our output has gone, and wants no more of it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(error: BaseException, console: Console) -> int:
    from mio.cli.errors import understood

    known = understood(error)
    if console.verbose:
        traceback.print_exception(error)
    console.error(known)
    console.data({"error": describe(known)})
    return known.exit_code
