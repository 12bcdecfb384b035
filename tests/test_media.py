"""media.py: what goes in comes out, and what cannot is refused with a sentence."""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image as pil

from mio import media
from mio.media import (
    MODALITY_BY_SUFFIX,
    Limits,
    encode_audio,
    encode_image,
    encode_video,
    read,
    read_audio,
    read_image,
    read_video,
    resize,
    sniff,
    write_audio,
    write_image,
    write_video,
)
from mio.types import Audio, DataError, Image, MioError, MissingError, ResourceError, Video

RATE = 16_000


def picture(height: int = 24, width: int = 32, shift: int = 0) -> np.ndarray:
    """A smooth picture with no symmetry, so that turns and mirrors show."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 7 + shift * 6, y * 9, x * 0 + shift * 16 + 20)
    return np.stack([np.clip(plane, 0, 255) for plane in planes], axis=-1).astype(np.uint8)


def film(frames: int = 8, height: int = 24, width: int = 32, fps: float = 10.0) -> Video:
    return Video(np.stack([picture(height, width, k) for k in range(frames)]), fps)


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> Audio:
    return Audio((0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32), rate)


def pitch(audio: Audio) -> float:
    return float(np.abs(np.fft.rfft(audio.samples)).argmax() * audio.rate / len(audio.samples))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


def saved(image: pil.Image, format: str, **options: object) -> bytes:
    image.save(buffer := io.BytesIO(), format, **options)
    return buffer.getvalue()


def sound(samples: np.ndarray, format: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
    soundfile.write(buffer := io.BytesIO(), samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def container(format: str, pictures: str = "", sounds: str = "", seconds: float = 1.0, times: list[int] | None = None):
    """A file written by PyAV: 10 frames a second of a film, 440 Hz stereo, or both."""
    with av.open(buffer := io.BytesIO(), "w", format=format) as out:
        video = out.add_stream(pictures, rate=10, width=32, height=24, pix_fmt="yuv420p") if pictures else None
        audio = out.add_stream(sounds, rate=48_000, layout="stereo") if sounds else None
        if audio:
            samples = np.stack([tone(seconds, 48_000).samples, 0 * tone(seconds, 48_000).samples])
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            frame.sample_rate = 48_000
        for k in range(round(seconds * 10) if video else 0):
            shown = av.VideoFrame.from_ndarray(picture(shift=k), format="rgb24")
            if times:
                shown.pts, shown.time_base = times[k], Fraction(1, 10)
            out.mux(video.encode(shown))
        for stream, last in ((video, None), (audio, frame if audio else None)):
            if stream:
                out.mux(stream.encode(last) if last else [])
                out.mux(stream.encode(None))
    return buffer.getvalue()


def refused(error: type[MioError], at: str, words: str = ""):
    """Raises `error` at that name, with those words, a remedy, and no word of a library's."""

    class Refused:
        def __enter__(self) -> None:
            self.raises = pytest.raises(error)
            self.info = self.raises.__enter__()

        def __exit__(self, *found: object) -> bool:
            passed = self.raises.__exit__(*found)
            caught = self.info.value
            assert type(caught) is error
            assert caught.at.endswith(at)
            assert re.search(words, str(caught)), str(caught)
            assert caught.fix
            assert " at 0x" not in f"{caught}{caught.fix}"
            return passed

    return Refused()


def put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


# --- images


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_returns_every_pixel(pixels):
    assert_array_equal(read_image(encode_image(Image(pixels))).pixels, pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_written_images_come_back(tmp_path, suffix):
    write_image(Image(picture()), tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    assert isinstance(found, Image)
    assert psnr(found.pixels, picture()) > (100 if suffix == ".png" else 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WebP"])
def test_exif_orientation_is_undone(format, orientation):
    exif = pil.Exif()
    exif[0x0112] = orientation
    undo = {
        2: pil.Transpose.FLIP_LEFT_RIGHT,
        3: pil.Transpose.ROTATE_180,
        4: pil.Transpose.FLIP_TOP_BOTTOM,
        5: pil.Transpose.TRANSPOSE,
        6: pil.Transpose.ROTATE_90,
        7: pil.Transpose.TRANSVERSE,
        8: pil.Transpose.ROTATE_270,
    }  # of the upright picture, to get the stored one
    stored = pil.fromarray(picture())
    stored = stored.transpose(undo[orientation]) if orientation in undo else stored
    found = read_image(saved(stored, format, exif=exif, quality=95))
    assert found.pixels.shape == (24, 32, 3)
    assert psnr(found.pixels, picture()) > 30


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's, while it looks for the resolution
def test_broken_exif_does_not_cost_the_picture():
    data = saved(pil.fromarray(picture()), "JPEG", exif=b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff" + b"\x12" * 9)
    assert read_image(data).pixels.shape == (24, 32, 3)


def test_transparency_is_laid_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (255, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    found = read_image(saved(pil.fromarray(rgba), "PNG")).pixels
    assert found[0, 0].tolist() == [255, 0, 0]
    assert abs(int(found[0, 1, 0]) - 127) <= 1
    assert found[1, 1].tolist() == [255, 255, 255]


def test_a_palette_with_a_transparent_colour_is_laid_on_white():
    image = pil.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for options in ({"transparency": 1}, {"transparency": b"\xff\x00"}):
        found = read_image(saved(image, "PNG", **options)).pixels
        assert found.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    grey = np.full((4, 5), 200, np.uint8)
    if mode == "I;16":
        image = pil.fromarray(np.full((4, 5), 200 * 257, np.uint16))
    else:
        image = pil.fromarray(grey).convert("RGB").convert(mode, dither=pil.Dither.NONE, palette=pil.Palette.ADAPTIVE)
    data = saved(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG", quality=95)
    expected = 255 if mode == "1" else 200
    assert_allclose(read_image(data).pixels, np.full((4, 5, 3), expected), atol=2)


def test_an_animation_read_as_image_is_its_first_frame():
    for format in ("gif", "webp"):
        assert psnr(read_image(encode_video(film(), format)).pixels, picture()) > 25


def test_images_can_be_written_to():
    read_image(encode_image(Image(picture()))).pixels[0, 0] = 0  # torch.from_numpy warns about read-only arrays


def test_resize_is_square_and_antialiased():
    stripes = np.zeros((64, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    for method in ("bilinear", "bicubic", "lanczos"):
        small = resize(Image(stripes), 8, method).pixels
        assert small.shape == (8, 8, 3)
        assert_allclose(small[:, 1:-1], 127, atol=16)


# --- audio


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.int16, st.integers(1, 99)), st.sampled_from(["wav", "flac"]))
def test_sixteen_bit_samples_survive_any_number_of_round_trips(pcm, format):
    audio = Audio(pcm.astype(np.float32) / 32768, RATE)
    for _ in range(2):
        audio = read_audio(encode_audio(audio, format))
    assert audio.rate == RATE
    assert_array_equal(audio.samples, pcm.astype(np.float32) / 32768)


@pytest.mark.parametrize("suffix", [".wav", ".FLAC", ".ogg"])
def test_written_audio_comes_back(tmp_path, suffix):
    write_audio(tone(), tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    assert isinstance(found, Audio)
    assert found.samples.dtype == np.float32
    assert_allclose(found.samples, tone().samples, atol=0.1 if suffix == ".ogg" else 2**-15)


def test_samples_beyond_one_are_clipped():
    loud = Audio(np.array([2, -2, 0.5], np.float32), RATE)
    assert_allclose(read_audio(encode_audio(loud)).samples, [1, -1, 0.5], atol=2**-15)
    assert_array_equal(read_audio(sound(loud.samples, subtype="FLOAT")).samples, [1, -1, 0.5])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_width_is_read(subtype):
    assert_allclose(read_audio(sound(tone().samples, subtype=subtype)).samples, tone().samples, atol=0.01)


def test_stereo_becomes_its_mean():
    stereo = np.stack([tone().samples, np.zeros_like(tone().samples)], axis=1)
    assert_allclose(read_audio(sound(stereo, subtype="FLOAT")).samples, tone().samples / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("format", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_24")]
)
def test_compressed_audio_is_read_and_sniffed(format, subtype):
    data = sound(tone(1.0).samples, format, subtype)
    assert sniff(data) == "speech"
    found = read_audio(data)
    assert abs(found.seconds - 1) < 0.1
    assert abs(pitch(found) - 440) < 2


@pytest.mark.parametrize(("format", "codec"), [("webm", "libopus"), ("mp4", "aac"), ("ipod", "aac"), ("mp4", "alac")])
def test_audio_in_containers_is_read_and_sniffed(format, codec):
    data = container(format, sounds=codec)
    assert sniff(data) == "speech"
    found = read_audio(data, rate=RATE)
    assert found.rate == RATE
    assert abs(found.seconds - 1) < 0.05
    assert abs(pitch(found) - 440) < 2
    assert abs(found.samples.std() - 0.25 / 2**0.5) < 0.01  # the mean of a tone of 0.5 and silence


def test_resampling_keeps_pitch_and_length():
    found = read_audio(encode_audio(tone(1.0, 44_100)), rate=RATE)
    assert len(found.samples) == RATE
    assert abs(pitch(found) - 440) < 1
    assert_allclose(found.samples[500:-500], tone(1.0).samples[500:-500], atol=1e-3)


def test_silence_is_audio():
    silence = read_audio(encode_audio(Audio(np.zeros(100, np.float32), RATE)))
    assert_array_equal(silence.samples, np.zeros(100))


@pytest.mark.parametrize("rate", [None, 8_000, 48_000])
def test_one_sample_is_audio(rate):
    found = read_audio(encode_audio(Audio(np.full(1, 0.25, np.float32), RATE)), rate=rate)
    assert len(found.samples) == {None: 1, 8_000: 1, 48_000: 3}[rate]
    assert np.isfinite(found.samples).all()


def test_long_vorbis_is_written_in_blocks():
    audio = Audio(np.zeros(3_000_000, np.float32), 48_000)
    assert encode_audio(audio, "ogg")[:4] == b"OggS"  # in one write, this ends the process


# --- video


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_written_video_comes_back(tmp_path, suffix):
    write_video(film(), tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    assert isinstance(found, Video)
    assert found.frames.shape == film().frames.shape
    assert found.frames.dtype == np.uint8
    assert_allclose(found.fps, 10)
    assert min(psnr(*pair) for pair in zip(found.frames, film().frames, strict=True)) > 27


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 12), st.sampled_from([1, 5, 12.5, 24, 25, 30000 / 1001, 30, 50]), st.sampled_from(["mp4", "gif"]))
def test_frame_count_and_rate_survive(frames, fps, format):
    found = read_video(encode_video(film(frames, fps=fps), format))
    assert len(found.frames) == frames
    assert_allclose(found.fps, fps, rtol=0.2 / frames if format == "gif" else 1e-6)


def test_odd_sides_repeat_their_edge():
    found = read_video(encode_video(film(2, 23, 31))).frames
    assert found.shape == (2, 24, 32, 3)
    assert psnr(found[:, :23, :31], film(2, 23, 31).frames) > 27
    assert psnr(found[:, 23], found[:, 22]) > 27


def test_the_same_video_gives_the_same_bytes():
    """Whatever the memory held before: an encoder that reads what it has not written shows here."""
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        used = [rng.integers(0, 255, size).astype(np.uint8) for size in rng.integers(500, 60_000, 60)]
        del used
        seen.add(encode_video(film()))
    assert len(seen) == 1


def test_without_x264_video_is_mpeg4(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    data = encode_video(film())
    with av.open(io.BytesIO(data)) as found:
        assert found.streams.video[0].codec.name == "mpeg4"
    assert psnr(read_video(data).frames, film().frames) > 25


@pytest.mark.parametrize(
    ("format", "codec"),
    [("webm", "libvpx"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("avi", "libx264"), ("mov", "mpeg4")],
)
def test_other_containers_are_read(format, codec):
    data = container(format, codec)
    assert sniff(data) == "video"
    found = read_video(data)
    assert found.frames.shape == (10, 24, 32, 3)
    assert_allclose(found.fps, 10)
    assert min(psnr(frame, picture(shift=k)) for k, frame in enumerate(found.frames)) > 22


def test_video_with_sound_is_read_as_either():
    data = container("webm", "libvpx", "libopus")
    assert sniff(data) == "video"
    assert len(read_video(data).frames) == 10
    assert abs(pitch(read_audio(data)) - 440) < 2


@pytest.mark.parametrize("format", ["mp4", "webp", "gif"])
@pytest.mark.parametrize("most", [1, 3, 5, 20])
def test_max_frames_are_spread_evenly_over_the_same_seconds(format, most):
    found = read_video(encode_video(film(12), format), max_frames=most)
    kept = min(most, 12)
    assert len(found.frames) == kept
    assert_allclose(len(found.frames) / found.fps, 1.2)
    shifts = [
        int(np.argmin([np.abs(frame.astype(int) - picture(shift=k)).sum() for k in range(12)]))
        for frame in found.frames
    ]
    assert shifts == [int((k + 0.49) * 12 / kept) for k in range(kept)]


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_held_frames_are_shown_as_long_as_they_were(format):
    frames = film(4).frames[[0, 0, 0, 0, 1, 2, 2, 3]]
    found = read_video(encode_video(Video(frames, 10), format))
    assert_allclose(found.fps, 10)
    assert len(found.frames) == 8
    assert psnr(found.frames, frames) > 27


def test_a_variable_rate_becomes_steady():
    data = container("webm", "libvpx", seconds=0.5, times=[0, 1, 2, 6, 7])
    found = read_video(data)
    assert_allclose(found.fps, 10, rtol=0.02)
    assert len(found.frames) == 8
    assert psnr(found.frames[5], found.frames[2]) > 60
    assert psnr(found.frames[6], picture(shift=3)) > 22


def test_a_phone_held_upright_gives_upright_video():
    data = bytearray(encode_video(film()))
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(
        ">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30
    )  # a quarter turn clockwise
    found = read_video(bytes(data)).frames
    assert found.shape == (8, 32, 24, 3)
    assert psnr(found, np.rot90(film().frames, -1, axes=(1, 2))) > 27


def test_a_still_gif_is_an_image_and_a_video_of_one_frame():
    data = saved(pil.fromarray(picture()), "GIF")
    assert sniff(data) == "image"
    assert len(read_video(data).frames) == 1


# --- what is what


def test_content_counts_not_the_name(tmp_path):
    path = put(tmp_path, "photo.wav", encode_image(Image(picture())))
    assert sniff(path) == "image"
    assert isinstance(read(str(path)), Image)


def test_every_written_suffix_is_listed_under_what_sniff_says(tmp_path):
    for suffix in (".png", ".jpg", ".jpeg", ".webp"):
        write_image(Image(picture()), tmp_path / f"a{suffix}")
    for suffix in (".wav", ".flac", ".ogg"):
        write_audio(tone(), tmp_path / f"a{suffix}")
    for suffix in (".mp4", ".gif"):
        write_video(film(), tmp_path / f"a{suffix}")
    for path in tmp_path.iterdir():
        assert sniff(path) == MODALITY_BY_SUFFIX[path.suffix]


# --- limits, held before decoding


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">II", zlib.crc32(ihdr), 9) + b"IDAT"


def tiny_gif(frames: int) -> bytes:
    frame = b"\x21\xf9\x04\0\x05\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def test_a_pixel_bomb_is_refused_by_its_header(tmp_path):
    for sides in ((30_000, 30_000), (10_000, 10_000)):
        with refused(DataError, "bomb.png", "00,000,000 pixels; at most 50,000,000"):
            read_image(put(tmp_path, "bomb.png", png_header(*sides)))


def test_a_gif_whose_frames_outgrow_it_is_refused():
    data = bytearray(tiny_gif(2))
    at = data.rindex(b",\0\0\0\0")
    data[at + 5 : at + 9] = struct.pack("<HH", 9_000, 9_000)
    with refused(DataError, "bytes", "81,000,000 pixels"):
        read_video(bytes(data))


def test_more_pixels_than_pillow_allows_are_read_when_the_limit_says_so(monkeypatch):
    monkeypatch.setattr(pil, "MAX_IMAGE_PIXELS", 10)
    assert read_image(encode_image(Image(picture()))).pixels.shape == (24, 32, 3)


def test_video_frames_are_held_to_the_pixel_limit(tmp_path):
    for name, data in (("a.mp4", encode_video(film())), ("a.gif", encode_video(film(), "gif"))):
        with refused(DataError, name, "768 pixels; at most 700"):
            read_video(put(tmp_path, name, data), Limits(pixels=700))


def test_all_kept_frames_are_held_to_a_limit(tmp_path):
    path, limits = tmp_path / "a.mp4", Limits(video_pixels=3 * 24 * 32)
    write_video(film(), path)
    with refused(DataError, "a.mp4", "6,144 video.pixels; at most 2,304"):
        read_video(path, limits)
    assert len(read_video(path, limits, max_frames=3).frames) == 3


def test_a_gif_of_a_hundred_thousand_frames_is_refused(tmp_path):
    path = put(tmp_path, "long.gif", tiny_gif(100_000))
    assert sniff(path) == "video"
    with refused(DataError, "long.gif", "100,000 frames; at most 20,000"):
        read_video(path)
    with refused(DataError, "bytes", "frames; at most 5"):
        read_video(encode_video(film()), Limits(frames=5))


@pytest.mark.parametrize("format", ["wav", "flac", "ogg"])
def test_long_audio_is_refused(tmp_path, format):
    with refused(DataError, f"a.{format}", "2 seconds; at most 1 "):
        read_audio(put(tmp_path, f"a.{format}", encode_audio(tone(2.0), format)), limits=Limits(seconds=1))


@pytest.mark.parametrize("format", ["webm", "mp4"])
def test_long_container_audio_is_refused(format):
    with refused(DataError, "bytes", "seconds; at most 1 "):
        read_audio(container(format, sounds="libopus", seconds=2.0), limits=Limits(seconds=1))


@pytest.mark.parametrize("format", ["mp4", "gif", "webp"])
def test_long_video_is_refused(format):
    with refused(DataError, "bytes", "4 seconds; at most 3 "):
        read_video(encode_video(film(8, fps=2), format), Limits(seconds=3))


def test_headers_of_ten_hours_are_refused(tmp_path):
    wav, size = bytearray(encode_audio(tone())), 10 * 3600 * RATE * 2
    wav[4:8], wav[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    with refused(DataError, "long.wav", "cut short: 16044 of 1152000044 bytes"):
        read_audio(put(tmp_path, "long.wav", bytes(wav)))
    flac = bytearray(encode_audio(tone(), "flac"))
    flac[21:26] = bytes([flac[21] & 0xF0]) + struct.pack(">I", 10 * 3600 * RATE)  # total samples, 36 bits
    with refused(DataError, "long.flac", "36,000 seconds; at most 600"):
        read_audio(put(tmp_path, "long.flac", bytes(flac)))


def test_a_header_that_understates_is_caught_while_decoding():
    data = container("webm", sounds="libopus", seconds=2.0)
    at = data.index(b"\x44\x89\x88")  # Duration, 8 bytes
    data = data[: at + 3] + struct.pack(">d", 500.0) + data[at + 11 :]
    with refused(DataError, "bytes", "seconds; at most 1 "):
        read_audio(data, limits=Limits(seconds=1))


def test_a_streamed_wav_of_unknown_length_is_read():
    wav = bytearray(encode_audio(tone()))
    wav[4:8] = wav[40:44] = b"\xff\xff\xff\xff"
    assert_allclose(read_audio(bytes(wav)).samples, tone().samples, atol=2**-15)


def test_large_files_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(2**40)
    with refused(DataError, "a.png", "at most 536,870,912"):
        sniff(path)
    with refused(DataError, "bytes", "101 bytes; at most 100"):
        sniff(bytes(101), Limits(bytes=100))


# --- bad input


READERS = [sniff, read, read_image, read_audio, read_video]


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_a_media_file_is_refused_by_name(tmp_path, reader):
    with refused(MissingError, "gone.png", "no such file"):
        reader(tmp_path / "gone.png")
    with refused(DataError, tmp_path.name, "folder or a device"):
        reader(str(tmp_path))
    with refused(DataError, "empty.png", "empty"):
        reader(put(tmp_path, "empty.png", b""))
    with refused(DataError, "notes.png", "begins with b'Dear diary, "):
        reader(put(tmp_path, "notes.png", b"Dear diary, today"))
    with refused(DataError, "list.mp4", "#EXTM3U"):
        reader(put(tmp_path, "list.mp4", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"))
    with refused(DataError, "a.heic", "ftyp"):
        reader(put(tmp_path, "a.heic", b"\0\0\0\x18ftypheic" + bytes(64)))
    with refused(DataError, "bytes", r"\\x00"):
        reader(bytes(64))


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with refused(DataError, "a.png", "folder or a device"):
        sniff(tmp_path / "a.png")


def test_a_path_no_system_would_take_is_refused():
    with refused(DataError, "a\0b.png", "cannot be read"):
        sniff("a\0b.png")


def test_the_wrong_reader_says_what_it_reads(tmp_path):
    image, speech, video = encode_image(Image(picture())), encode_audio(tone()), encode_video(film())
    for reader, data in (
        (read_image, speech),
        (read_image, video),
        (read_audio, image),
        (read_video, image),
        (read_video, speech),
    ):
        with refused(DataError, "a.bin", "(PNG|WAV|MP4) is not one of the (image|audio|video) formats"):
            reader(put(tmp_path, "a.bin", data))


@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_sound_without_pictures_is_no_video_and_the_reverse(tmp_path, format):
    with refused(DataError, "a.mp4", "no pictures"):
        read_video(put(tmp_path, "a.mp4", container(format, sounds="libopus")))
    with refused(DataError, "b.mp4", "no sound"):
        read_audio(put(tmp_path, "b.mp4", container(format, "libvpx-vp9")))


def whole_files() -> dict[str, bytes]:
    noise = Image(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    return {
        "a.png": encode_image(noise),
        "a.jpg": encode_image(noise, "jpg"),
        "a.webp": encode_image(noise, "webp"),
        "a.gif": saved(pil.fromarray(noise.pixels), "GIF"),
        "a.wav": encode_audio(tone()),
        "a.flac": encode_audio(tone(), "flac"),
        "a.m4a": container("ipod", sounds="aac"),
        "a.mka": container("webm", sounds="libopus", seconds=3.0),
        "a.mp4": encode_video(film(30)),
        "a.webm": container("webm", "libvpx", seconds=3.0),
        "a.avi": container("avi", "mpeg4"),
        "b.gif": encode_video(film(), "gif"),
        "b.webp": encode_video(film(), "webp"),
    }


WHOLE = whole_files()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", WHOLE)
def test_truncated_files_are_refused(tmp_path, name, share):
    with refused(DataError, name, "cut short"):
        read(put(tmp_path, name, WHOLE[name][: int(len(WHOLE[name]) * share)]))


def test_an_mp4_cut_in_its_frames_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:  # the index first, then the frames
        stream = out.add_stream("libx264", rate=10, width=32, height=24, pix_fmt="yuv420p")
        for k in range(30):
            frame = av.VideoFrame.from_ndarray(picture(shift=k), format="rgb24")
            out.mux(stream.encode(frame.reformat(format="yuv420p")))  # so that the bytes are the same each time
        out.mux(stream.encode())
    assert len(read_video(path).frames) == 30
    whole = path.read_bytes()
    for cut in (1, 10, 40, 200, 800):
        path.write_bytes(whole[:-cut])
        with refused(DataError, "a.mp4", "cut short"):
            read_video(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_nothing_else(data):
    content = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(content), Limits(pixels=10_000, frames=100, seconds=10, video_pixels=1_000_000))
    except MioError as error:
        assert error.at == "bytes"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, bad):
    samples = np.array([0, bad, 0], np.float32)
    with refused(DataError, "a.wav", "NaN or infinite"):
        read_audio(put(tmp_path, "a.wav", sound(samples, subtype="FLOAT")))
    with refused(DataError, "b.wav", "NaN or infinite"):
        write_audio(Audio(samples, RATE), tmp_path / "b.wav")


def test_audio_without_samples_is_refused(tmp_path):
    with refused(DataError, "a.wav", "empty"):
        read_audio(put(tmp_path, "a.wav", sound(np.zeros(0, np.float32))))


def test_memory_that_runs_out_is_no_fault_of_the_file(monkeypatch):
    def exhausted(picture: object) -> None:
        raise MemoryError

    monkeypatch.setattr(media, "_rgb", exhausted)
    with refused(ResourceError, "bytes"):
        read_image(encode_image(Image(picture())))


# --- writing, whole or not at all


WRONG_MEDIA = [
    (write_image, Image(picture().astype(np.float32)), "a.png", r"\(24, 32, 3\) float32"),
    (write_image, Image(picture()[..., :1]), "a.png", r"\(24, 32, 1\)"),
    (write_image, Image(picture()[:0]), "a.png", r"\(0, 32, 3\)"),
    (write_image, Image(np.zeros((1, 70_000, 3), np.uint8)), "a.jpg", "sides"),
    (write_image, Image(picture()), "a.tiff", "tiff is not one of the image output formats"),
    (write_image, Image(picture()), "a", "No suffix"),
    (write_audio, Audio(np.zeros((9, 2), np.float32), RATE), "a.wav", r"\(9, 2\)"),
    (write_audio, Audio(np.zeros(0, np.float32), RATE), "a.wav", "empty"),
    (write_audio, Audio(np.zeros(9, np.float32), 1_000_000_000), "a.flac", "1000000000 Hz"),
    (write_audio, Audio(np.zeros(9, np.float32), RATE), "a.mp4", "mp4 is not one"),
    (write_video, Video(film().frames[:0], 10), "a.mp4", r"\(0, 24, 32, 3\)"),
    (write_video, Video(film().frames, 0), "a.mp4", "cannot hold 0 frames per second"),
    (write_video, Video(film().frames, float("nan")), "a.gif", "cannot hold nan frames"),
    (write_video, film(fps=60), "a.gif", "gif cannot hold 60 frames per second"),
    (write_video, film(), "a.avi", "avi is not one"),
]


@pytest.mark.parametrize(("write", "value", "name", "words"), WRONG_MEDIA)
def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, write, value, name, words):
    put(tmp_path, name, b"old")
    with refused(DataError, name, words):
        write(value, tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"old"}


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path: Path, data: bytes) -> int:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with refused(ResourceError, "a.png"):
        write_image(Image(picture()), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_writing_where_there_is_no_place_is_refused(tmp_path):
    with refused(MissingError, "a.png"):
        write_image(Image(picture()), tmp_path / "none" / "a.png")
    (tmp_path / "b.png").mkdir()
    with refused(DataError, "b.png", "cannot be written there"):
        write_image(Image(picture()), tmp_path / "b.png")
    put(tmp_path, "file", b"")
    with refused(DataError, "a.png", "cannot be written there"):
        write_image(Image(picture()), tmp_path / "file" / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "file"]


def test_written_files_get_the_usual_permissions(tmp_path):
    write_image(Image(picture()), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == put(tmp_path, "b", b"").stat().st_mode
