"""What the Python programs share: facts come as JSON on standard input, each row goes out as a line of JSON."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

Check = Callable[[], bool]
STORY = "Tell a story about a fox."
FOX = "Draw a fox in noto style."
SEVEN = "Say seven."


def facts() -> dict[str, Any]:
    return json.load(sys.stdin)


def report(package: str, checks: Mapping[str, Check]) -> None:
    """A check is True, False where the client lost what the server sent, or raises what went wrong."""
    print(json.dumps({"version": version(package)}), flush=True)
    for row, check in checks.items():
        try:
            result = "yes" if check() else "dropped"
        except Exception as error:
            result = f"no: {type(error).__name__}: {str(error)[:200]}"
        print(json.dumps({row: result}), flush=True)


def is_png(data: str) -> bool:
    """Of base64, with or without the head of a data: URL."""
    return base64.b64decode(data.partition(",")[2] or data).startswith(b"\x89PNG")


def is_wav(data: str | bytes) -> bool:
    return (base64.b64decode(data) if isinstance(data, str) else data).startswith(b"RIFF")


def raises(kind: type[Exception], words: str, call: Callable[[], Any]) -> bool:
    """Whether a call fails in the client's own way and tells the server's words."""
    try:
        call()
    except kind as error:
        if words in str(error):
            return True
        raise
    return False
