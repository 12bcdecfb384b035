"""Any exception -> the error and exit code that a user is told."""

from __future__ import annotations

import errno
import traceback

from mio.types import DataError, MioError, MissingError, ResourceError


class Interruption(MioError):
    """Ctrl-C or a polite kill."""

    code, exit_code = "interrupted", 130


class Bug(MioError):
    """Nothing the user did."""

    code, exit_code = "internal_error", 1


def understood(error: BaseException) -> MioError:
    """The error itself if it is one of ours, else what stands for it."""
    if isinstance(error, MioError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interruption("Interrupted.")
    if _ran_out(error):
        return ResourceError("Memory or disk ran out.", fix="Free some, or ask for less.")
    if isinstance(error, FloatingPointError):  # training diverged; it says what to do
        return DataError(str(error))
    if isinstance(error, OSError):
        return _of_system(error)
    return _bug(error)


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, RuntimeError):  # torch's words, on CPU and on GPU
        return "DefaultCPUAllocator" in str(error) or "out of memory" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC)


def _of_system(error: OSError) -> MioError:
    what, at = f"{error.strerror or type(error).__name__}.", str(error.filename or "")
    if isinstance(error, FileNotFoundError):
        return MissingError(what, at=at, fix="Check the path.")
    return MioError(what, at=at, fix="Choose another path, or change its permissions.")


def _bug(error: BaseException) -> Bug:
    frames = traceback.extract_tb(error.__traceback__)
    at = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return Bug(f"Internal error: {type(error).__name__}: {error}", at=at, fix="Run it again with -v, and report it.")
