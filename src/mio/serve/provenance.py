"""Marks that say a model made a file, and how to find them again. How a file carries one is a table by MIME type.

Two layers: IPTC's digital source type "trainedAlgorithmicMedia" in an XMP packet, and signed Content Credentials where
there is a key. Both are metadata, which anyone can take off: a file without them may be anything.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mio.serve.credentials import Credentials, Found, look

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" Iptc4xmpExt:DigitalSourceType="{source}" '
    'xmp:CreatorTool="mio {model}"/></rdf:RDF></x:xmpmeta>'
)


def _png(data: bytes, packet: bytes) -> bytes:
    """As an iTXt chunk after the header."""
    body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + packet
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]  # 8 bytes of signature and 25 of IHDR


def _jpeg(data: bytes, packet: bytes) -> bytes:
    """As an APP1 segment after the start of the image."""
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def _riff(name: bytes) -> Callable[[bytes, bytes], bytes]:
    """As a chunk at the end, counted in the file's length."""

    def mark(data: bytes, packet: bytes) -> bytes:
        chunk = name + struct.pack("<I", len(packet)) + packet + bytes(len(packet) % 2)
        return data[:4] + struct.pack("<I", len(data) + len(chunk) - 8) + data[8:] + chunk

    return mark


def _flac(data: bytes, packet: bytes) -> bytes:
    """As an application block after STREAMINFO, which is 4 + 4 + 34 bytes and may say that it is the last."""
    last, rest = data[4] & 0x80, data[42:]
    block = bytes([last | 2]) + (len(packet) + 4).to_bytes(3, "big") + b"XMP " + packet
    return data[:4] + bytes([data[4] & 0x7F]) + data[5:42] + block + rest


def _mpeg(data: bytes, packet: bytes) -> bytes:
    """As an ID3v2.4 tag with a private frame, in front."""
    frame = b"XMP\0" + packet
    tag = b"PRIV" + _synchsafe(len(frame)) + b"\0\0" + frame
    return b"ID3\x04\x00\x00" + _synchsafe(len(tag)) + tag + data


def _synchsafe(number: int) -> bytes:
    return bytes((number >> shift) & 0x7F for shift in (21, 14, 7, 0))


def _mp4(data: bytes, packet: bytes) -> bytes:
    """As the UUID box that XMP has in MP4, at the end, where no offset moves."""
    box = b"uuid" + bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + packet
    return data + struct.pack(">I", len(box) + 4) + box


MARKERS: Mapping[str, Callable[[bytes, bytes], bytes]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "audio/wav": _riff(b"_PMX"),
    "audio/flac": _flac,
    "audio/mpeg": _mpeg,
    "video/mp4": _mp4,
}


SIGNED = ("image/png", "image/jpeg", "image/webp", "audio/wav", "audio/flac", "audio/mpeg", "video/mp4")
_MAGIC = re.compile(
    rb"(?s)(\x89PNG)|(\xff\xd8\xff)|(RIFF....WEBP)|(RIFF....WAVE)|(fLaC)|(ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb])|(....ftyp)"
)


def mime_of(data: bytes) -> str:
    """The MIME type of a file that could be signed, by its content; "" for others."""
    match = _MAGIC.match(data)
    return SIGNED[match.lastindex - 1] if match and match.lastindex else ""


@dataclass(frozen=True)
class Provenance:
    """`model`: whose work it is; `on`: False leaves files unmarked; without `credentials` they are not signed."""

    model: str
    on: bool = True
    credentials: Credentials | None = None

    def seal(self, data: bytes, mime: str) -> bytes:
        """The same file with its marks; formats without a place for one stay as they are."""
        if not self.on:
            return data
        packet = _XMP.format(source=SOURCE, model=self.model).encode()
        data = MARKERS[mime](data, packet) if mime in MARKERS else data
        return self.credentials.sign(data, mime, self.model) if self.credentials and mime in SIGNED else data


def marked(data: bytes) -> bool:
    """Whether a file carries the plain mark, whoever put it there."""
    return f'DigitalSourceType="{SOURCE}"'.encode() in data


def findings(data: bytes) -> list[dict[str, Any]]:
    """Layer by layer, as OpenAI's endpoint tells it; "iptc" is ours."""
    mime = mime_of(data)
    found = look(data, mime) if mime else Found("not_present")
    detected = found.state in ("valid", "trusted") and found.generated
    signed = {"type": "c2pa", "outcome": _outcome(detected), "validation_state": found.state, "issuer": found.issuer}
    signed |= {"model": found.agent, "generated_at": found.made}
    return [signed, {"type": "iptc", "outcome": _outcome(marked(data))}]


def _outcome(detected: bool) -> str:
    return "detected" if detected else "not_detected"
