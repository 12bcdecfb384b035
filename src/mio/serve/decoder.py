"""The process that decodes what strangers send: no secrets in its environment, no file it could write, little memory.

It reads requests on stdin and writes arrays to stdout, each a line of JSON and then as many bytes as that says.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mio.media import Limits, read_audio, read_image, read_video, sniff
from mio.types import Audio, Image, Media, MioError, Video

MEMORY, CPU = 2**30, 20  # bytes; seconds of one file
FRAMES = 32  # of a video
LIMITS: Mapping[str, Limits] = {
    "image": Limits(20 * 2**20, 40_000_000),
    "speech": Limits(25 * 2**20, seconds=600.0),
    "video": Limits(64 * 2**20, 1920 * 1088, 60.0, video_pixels=FRAMES * 1920 * 1088),
}
READERS: Mapping[str, Callable[[bytes, Limits], Media]] = {
    "image": read_image,
    "speech": lambda data, limits: read_audio(data, limits=limits),
    "video": lambda data, limits: read_video(data, limits, FRAMES),
}


def decode(row: str, data: bytes) -> Media:
    """`row`: what it must be; "" for whatever it is.

    Raises:
        MioError: it is something else, damaged, or beyond the limits.
    """
    row = row or sniff(data, LIMITS["video"])
    return READERS[row](data, LIMITS[row])


def packed(media: Media) -> tuple[dict[str, Any], NDArray[Any]]:
    """A medium as a line of JSON and an array."""
    if isinstance(media, Image):
        return {"kind": "image", "shape": media.pixels.shape}, media.pixels
    if isinstance(media, Audio):
        return {"kind": "speech", "shape": media.samples.shape, "rate": media.rate}, media.samples
    return {"kind": "video", "shape": media.frames.shape, "fps": media.fps}, media.frames


def unpacked(line: Mapping[str, Any], data: bytes) -> Media:
    """The inverse of `packed`."""
    if line["kind"] == "speech":
        return Audio(np.frombuffer(data, np.float32).copy(), int(line["rate"]))
    pixels = np.frombuffer(data, np.uint8).reshape(line["shape"]).copy()  # torch wants it writable
    return Image(pixels) if line["kind"] == "image" else Video(pixels, float(line["fps"]))


def _answer(row: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        line, array = packed(decode(row, data))
    except MioError as error:
        return {"error": f"{error} {error.fix}".strip()}, b""
    except MemoryError:
        return {"error": "The file takes too much memory to decode."}, b""
    return line, np.ascontiguousarray(array).tobytes()


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _grant(seconds: int) -> None:
    """Processor time for one more file."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    while head := requests.readline():
        request = json.loads(head)
        _grant(CPU)
        line, data = _answer(str(request["row"]), requests.read(int(request["bytes"])))
        answers.write(json.dumps(line | {"bytes": len(data)}).encode() + b"\n" + data)
        answers.flush()


if __name__ == "__main__":
    _limit()
    own = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    serve(sys.stdin.buffer, os.fdopen(own, "wb"))
