"""Decoding what strangers send, in its own process: as without one, within limits, and it may die."""

from __future__ import annotations

import asyncio
import io
import time
import zlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from PIL import Image as pil
from serving import CLIP, PICTURE, SOUND

from mio.media import read_audio, read_image, read_video
from mio.serve import intake
from mio.serve.decoder import decode, packed, unpacked
from mio.serve.errors import ApiError
from mio.serve.intake import Decoder
from mio.serve.protocol import Source
from mio.types import Media, MioError

T = TypeVar("T")
FILES = [("image", PICTURE, read_image), ("speech", SOUND, read_audio), ("video", CLIP, read_video)]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def decoded(*sources: Source) -> list[Media]:
    decoder = Decoder()
    try:
        return [await decoder.decode(source) for source in sources]
    finally:
        await decoder.close()


def arrays(media: Media) -> tuple[bytes, dict[str, Any]]:
    line, array = packed(media)
    return array.tobytes(), line


def test_a_file_decodes_as_without_a_process_of_its_own() -> None:
    sources = [Source(row, "", data) for kind, data, _ in FILES for row in (kind, "")]
    found = run(decoded(*sources))
    for number, (_, data, read) in enumerate(FILES):
        expected = arrays(read(data))
        assert arrays(found[2 * number]) == arrays(found[2 * number + 1]) == expected


@pytest.mark.parametrize(("row", "data", "read"), FILES)
def test_arrays_survive_the_way_between_processes(row: str, data: bytes, read: Any) -> None:
    line, array = packed(read(data))
    again = unpacked(line, array.tobytes())
    assert arrays(again) == arrays(read(data)) and line["kind"] == row
    assert packed(again)[1].flags.writeable


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour whose header promises these sides: small as a file, large as pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    lines = zlib.compress(bytes(1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def other_formats() -> list[bytes]:
    """Formats that Pillow would open, and playlists that ffmpeg would follow."""
    picture, out = pil.new("RGB", (4, 4)), []
    for format in ("BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000", "PDF", "EPS", "AVIF"):
        buffer = io.BytesIO()
        picture.save(buffer, format)
        out.append(buffer.getvalue())
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    dash = (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file:///etc/passwd</BaseURL></MPD>'
    )
    return [
        *out,
        playlist,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\nm=video 1 RTP/AVP 96\n",
        dash,
        b"PK\x03\x04",
    ]


@pytest.mark.parametrize("data", [*other_formats(), b"", b"RIFF\x00\x00\x00\x00WEBP", bomb(20_000, 20_000)])
@pytest.mark.parametrize("row", ["", "image", "video"])
def test_other_formats_and_bombs_are_refused_by_their_content(data: bytes, row: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(MioError) as caught:
        decode(row, data)
    assert time.perf_counter() - begun < 5 and "/" not in str(caught.value)


def test_a_process_that_is_killed_or_hangs_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> Media:
        decoder, source = Decoder(), Source("image", "messages[0]", PICTURE)
        try:
            await decoder.decode(source)
            assert decoder._process is not None
            decoder._process.kill()
            with pytest.raises(ApiError, match="damaged"):
                await decoder.decode(source)
            with monkeypatch.context() as patch:
                patch.setattr(intake, "SECONDS", 0.0)
                with pytest.raises(ApiError, match="damaged"):
                    await decoder.decode(source)
            return await decoder.decode(source)
        finally:
            await decoder.close()

    assert arrays(run(work())) == arrays(read_image(PICTURE))


def test_the_process_has_neither_our_secrets_nor_a_way_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIO_API_KEY", "secret")

    async def work() -> tuple[bytes, bytes]:
        decoder = Decoder()
        try:
            await decoder.decode(Source("image", "", PICTURE))
            assert decoder._process is not None
            place = f"/proc/{decoder._process.pid}"
            with open(f"{place}/environ", "rb") as environ, open(f"{place}/limits", "rb") as limits:
                return environ.read(), limits.read()
        finally:
            await decoder.close()

    environ, limits = run(work())
    assert b"secret" not in environ
    most = {line.split(b"  ")[0]: line.split()[-3] for line in limits.splitlines()[1:] if b"Max" in line}
    assert most[b"Max file size"] == b"0" and most[b"Max address space"] == str(2**30).encode()
