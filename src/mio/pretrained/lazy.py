"""A media tokenizer that is built on first use and can be let go again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from mio.types import Codes, Growing, MissingError, Modality, Streaming, Tokenizer

TAIL = 2**20


class LazyTokenizer:
    """The tokenizer that `build` gives, made when codes are first asked for. Safe to share between threads.

    `files` are what it is built from, and `settings` all else its codes hang on (dtype, interpolation).
    """

    def __init__(
        self, row: Modality, build: Callable[[], Tokenizer], files: Sequence[Path], settings: Mapping[str, Any]
    ) -> None:
        self.modality, self._build = row, build
        self._files, self._settings = tuple(files), dict(settings)
        self._lock = Lock()
        self._held: Tokenizer | None = None

    @property
    def built(self) -> bool:
        return self._held is not None

    def tokenizer(self) -> Tokenizer:
        """The one that does the work; built now if it is not there."""
        with self._lock:
            if self._held is None:
                self._held = self._build()
            return self._held

    def release(self) -> None:
        """Free its memory, as soon as calls in progress are done; the next call builds it again."""
        with self._lock:
            self._held = None

    def encode(self, media: Sequence[Any]) -> list[Codes]:
        return self.tokenizer().encode(media) if media else []

    def decode(self, codes: Sequence[Codes]) -> list[Any]:
        return self.tokenizer().decode(codes) if codes else []

    def stream(self) -> Growing | None:
        built = self.tokenizer()
        return built.stream() if isinstance(built, Streaming) else None

    def fingerprint(self) -> str:
        """16 hex digits over the settings and each file's name, size and last mebibyte. Builds nothing.

        Cheaper than all weights, and blind to a change in the middle of a large file. Of torch's archives the end
        holds the checksum of every tensor, small files are read whole, so that there no change goes unseen.

        Raises:
            MissingError: a file is not there.
        """
        digest = hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode())
        for path in self._files:
            if not path.is_file():
                raise MissingError(f"No {path.name} in {path.parent}.", at=str(path))
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + _tail(path))
        return digest.hexdigest()[:16]


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read()
