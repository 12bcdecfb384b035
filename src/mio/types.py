"""The nouns: media, messages, samples, modality rows and the tokenizer protocol. Knows numpy, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Codes = NDArray[np.int64]  # (N, K, T): N spans of K codebooks by T steps
Layout = Literal["sequential", "alternating", "delay", "content"]
Role = Literal["system", "user", "assistant"]


class MioError(ValueError):
    """What the user can mend: `str(e)` says what came, `at` where, `fix` what to do next."""

    code = "invalid_request"
    exit_code = 2

    def __init__(self, what: str, *, at: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.at, self.fix = at, fix


class DataError(MioError):
    """A file or sample that cannot be used. Costs that input only."""

    code, exit_code = "invalid_data", 3


class MissingError(MioError):
    """A dependency, a model or a file that is not there."""

    code, exit_code = "missing", 4


class ResourceError(MioError):
    """Memory or disk ran out."""

    code, exit_code = "out_of_resources", 5


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True, eq=False)
class Image:
    """pixels: (H, W, 3) uint8, sRGB."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Audio:
    """samples: (n,) float32 in [-1, 1], mono; rate in Hz."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True, eq=False)
class AudioChunk(Audio):
    """A piece of a sound that is still being made: from sample `start` on, of `whole` in all (0: not yet known)."""

    start: int = 0
    whole: int = 0


@dataclass(frozen=True, eq=False)
class Video:
    """frames: (F, H, W, 3) uint8; fps: frames per second."""

    frames: NDArray[np.uint8]
    fps: float


Media = Image | Audio | Video


@dataclass(frozen=True)
class MediaFile:
    """A file not yet decoded; the processor opens it, so that a bad file costs its own sample only."""

    path: Path
    modality: str
    member: str = ""  # name inside `path` when that is a zip archive


@dataclass(frozen=True, eq=False)
class MediaBytes:
    """A file not yet decoded whose bytes a record carries, as those of tars and tables do. `name`: for people."""

    data: bytes
    modality: str
    name: str = "bytes"


@dataclass(frozen=True, eq=False)
class Encoded:
    """Media that are already codes, of modality row `modality`."""

    modality: str
    codes: Codes


Part = Text | Image | Audio | Video | MediaFile | MediaBytes | Encoded


@dataclass(frozen=True)
class Message:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Turns:
    """A conversation: chat template, loss on assistant turns when fine-tuning."""

    messages: tuple[Message, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of all its messages, in order."""
        return tuple(part for message in self.messages for part in message.parts)


@dataclass(frozen=True)
class Document:
    """Plain interleaved parts, as in pre-training. Parts listed in `inputs` use their row's input layout."""

    parts: tuple[Part, ...]
    inputs: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sample:
    """One training or evaluation example with where it came from."""

    id: str
    content: Turns | Document
    source: str = ""
    license: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Modality:
    """A row of the vocabulary: all that differs from one modality to the next.

    `codebooks` x `codebook_size` codes per step; `steps` per span (0: free length). Media of this row are spans
    between `begin` and `end`. A row with `spans_of` has no ids of its own: it is a run of that row's spans
    (video = frames of images). `code` formats (level-offset) code numbers for people and released checkpoints.
    """

    name: str
    codebooks: int = 1
    codebook_size: int = 0
    steps: int = 0
    begin: str = ""
    end: str = ""
    code: str = ""
    input_layout: Layout = "sequential"
    output_layout: Layout = "sequential"
    spans_of: str = ""
    rate: float = 0.0  # steps per second for a free-length row, spans per second for a run of spans

    @property
    def size(self) -> int:
        """Number of ids this row owns."""
        return self.codebooks * self.codebook_size


@runtime_checkable
class Tokenizer(Protocol):
    """Media <-> codes for one modality row."""

    @property
    def modality(self) -> Modality: ...

    def encode(self, media: Sequence[Any]) -> list[Codes]:
        """A batch of media -> one (N, K, T) array of codes each."""
        ...

    def decode(self, codes: Sequence[Codes]) -> list[Any]:
        """The way back, batched."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever the codes of any input could change."""
        ...


class Growing(Protocol):
    """One medium that is being made."""

    def grow(self, codes: Codes, steps: int, closed: bool) -> Media | None:
        """What can be had of it now and was not given before; all that is left when `closed`.

        codes (1, K, t): those of the first t steps, of `steps` in all (0: not yet known).
        """
        ...


@runtime_checkable
class Streaming(Protocol):
    """A tokenizer whose media can be had piece by piece; None where the one behind it cannot."""

    def stream(self) -> Growing | None: ...
