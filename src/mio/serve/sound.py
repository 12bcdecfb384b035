"""Speech on the wire: 24 kHz mono PCM of 16 bits, as it comes or whole, and the files that it is put into."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Mapping
from fractions import Fraction

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mio.types import Audio

RATE = 24_000  # Hz; what OpenAI's clients take "pcm16" to be
FRAME = 6  # bytes: whole samples that are whole groups of base64, so that pieces can be joined as text


class Pcm:
    """One sound as it comes: float32 samples at any rate -> little-endian 16-bit samples at 24 kHz, in whole frames.
    The bytes joined are the same however the sound is cut."""

    def __init__(self, rate: int) -> None:
        self._resample = soxr.ResampleStream(rate, RATE, 1, dtype="float32") if rate != RATE else None
        self._held = b""

    def feed(self, samples: NDArray[np.float32], last: bool = False) -> bytes:
        """The bytes of (n,) samples, but for what later ones may change."""
        if self._resample is not None:
            samples = self._resample.resample_chunk(samples, last=last)
        self._held += np.rint(samples * 32768.0).clip(-32768, 32767).astype("<i2").tobytes()
        whole = len(self._held) - len(self._held) % FRAME
        data, self._held = self._held[:whole], self._held[whole:]
        return data

    def end(self) -> bytes:
        """What is left, with silence that makes the last frame whole."""
        rest = self.feed(np.zeros(0, np.float32), last=True) + self._held
        return rest + bytes(-len(rest) % FRAME)


def pcm(audio: Audio) -> bytes:
    """A whole sound."""
    sound = Pcm(audio.rate)
    return sound.feed(audio.samples) + sound.end()


def seconds(data: bytes | bytearray) -> float:
    return round(len(data) / 2 / RATE, 3)


def _wav(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(data)
    return buffer.getvalue()


def _libsndfile(format: str, subtype: str) -> Callable[[bytes], bytes]:
    def encode(data: bytes) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, np.frombuffer(data, "<i2"), RATE, format=format, subtype=subtype)
        return buffer.getvalue()

    return encode


def _aac(data: bytes) -> bytes:
    """AAC in ADTS frames, which need no index and so can be played as they come."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.frombuffer(data, "<i2")[None], format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return buffer.getvalue()


ENCODERS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {  # format -> its MIME type, PCM -> file
    "wav": ("audio/wav", _wav),
    "mp3": ("audio/mpeg", _libsndfile("MP3", "MPEG_LAYER_III")),
    "flac": ("audio/flac", _libsndfile("FLAC", "PCM_16")),
    "opus": ("audio/ogg", _libsndfile("OGG", "OPUS")),
    "aac": ("audio/aac", _aac),
    "pcm16": ("audio/pcm", bytes),
    "pcm": ("audio/pcm", bytes),
}
