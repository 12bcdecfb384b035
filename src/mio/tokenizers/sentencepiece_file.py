"""What a sentencepiece model file says: its pieces, and how text is normalised before they are looked up.

It is a protocol buffer (sentencepiece_model.proto), of which we read the few fields that the library does not show:
pieces (1, of text 1, score 2 and type 3), training (2) and normalisation (3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from struct import unpack

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # types of pieces
SPACE = "\u2581"  # stands for a space inside pieces


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary."""

    text: str
    score: float
    kind: int

    @property
    def data(self) -> bytes:
        """What it adds to a text: UTF-8, or a single byte of it; nothing for what is no text."""
        if self.kind == BYTE:
            return bytes([int(self.text[3:5], 16)])  # <0x0A>
        return b"" if self.kind in (UNKNOWN, CONTROL) else self.text.replace(SPACE, " ").encode()


def pieces(model: bytes) -> tuple[Piece, ...]:
    """All pieces, by id.

    Raises:
        ValueError, IndexError: this is no such file, or it is cut short.
    """
    return tuple(_piece(value) for number, value in _messages(model) if number == 1)


def reserve(model: bytes, names: Collection[str]) -> bytes:
    """The same model with the pieces of these names as control pieces, which no text can become. Errors as `pieces`."""
    out = bytearray()
    for number, value in _messages(model):
        if number == 1 and _piece(value).text in names and _piece(value).kind != UNKNOWN:
            value += bytes([3 << 3, CONTROL])  # of a field that stands twice, the last one counts
        out += _written(number << 3 | 2) + _written(len(value)) + value
    return bytes(out)


def obstacles(model: bytes) -> Iterator[str]:
    """Why ids are not simply those of BPE over the text with its spaces replaced."""
    specs: Mapping[int, bytes] = dict(_messages(model))
    training, normalising = dict(_fields(specs.get(2, b""))), dict(_fields(specs.get(3, b"")))
    if training.get(3, 1) != 2:
        yield "it is no BPE"
    if training.get(24, 0):
        yield "spaces end its pieces"
    if normalising.get(2) or not normalising.get(5, 1):
        yield "it normalises characters"
    if normalising.get(3, 1):
        yield "it puts a space before every text"
    if normalising.get(4, 1):
        yield "it drops spaces"


def _piece(message: bytes) -> Piece:
    found = dict(_fields(message))
    text, score, kind = found.get(1, b""), found.get(2, bytes(4)), found.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece is not made of a text, a score and a type")
    return Piece(text.decode(), unpack("<f", score)[0], kind)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of the whole file, every one of them a message."""
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            raise ValueError(f"field {number} is a number")
        yield number, value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a message."""
    at = 0
    while at < len(data):
        key, at = _read(data, at)
        if key & 7 == 0:
            number, at = _read(data, at)
            yield key >> 3, number
            continue
        length, at = _read(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
        if at + length > len(data):
            raise IndexError("cut short")
        yield key >> 3, data[at : at + length]
        at += length


def _read(data: bytes, at: int) -> tuple[int, int]:
    """A whole number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while data[at] & 128:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def _written(value: int) -> bytes:
    """The inverse of `_read`."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
