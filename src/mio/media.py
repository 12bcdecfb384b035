"""Bytes and files <-> arrays, within limits that are checked before decoding. Knows no model, no token and no torch.

Errors name the file in `at`: MissingError if it is not there, ResourceError if memory or disk ran out, else DataError.
"""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal
from uuid import uuid4

import av
import numpy as np
import soundfile
import soxr
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image as pil
from PIL import ImageFile, ImageOps
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from mio.types import Audio, DataError, Image, Media, MioError, MissingError, ResourceError, Video

Source = Path | str | bytes
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Limits:
    """The largest input that is decoded. Headers are held to it before decoding, and what comes out while decoding."""

    bytes: int = 512 * 2**20  # of the file
    pixels: int = 50_000_000  # of one image or video frame
    seconds: float = 600.0  # of audio or video
    frames: int = 20_000  # of a video, kept or not
    video_pixels: int = 400_000_000  # of all kept frames of a video: 3 bytes of memory each, 6 for a moment


# By name, for naming outputs and listing folders; reading goes by content. A .gif is a video: write_image makes none.
MODALITY_BY_SUFFIX: dict[str, str] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".weba"), "speech"),
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif"), "video"),
}
_MAGIC = re.compile(
    rb"(?s)(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<WebP>RIFF....WEBP)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<WAV>(?:RIFF|RF64)....WAVE)|(?P<FLAC>fLaC)|(?P<Ogg>OggS)"
    rb"|(?P<MP3>ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb])"  # a tag, or the sync word of MPEG 1, 2 or 2.5 layer III
    rb"|(?P<MP4>....ftyp(?!avi[fs]|he[iv][csx]|mif1|msf1))"  # AVIF and HEIC share the container
    rb"|(?P<WebM>\x1aE\xdf\xa3)|(?P<AVI>RIFF....AVI )"
)
_ANIMATIONS: dict[str, type[GifImageFile] | type[WebPImageFile]] = {"GIF": GifImageFile, "WebP": WebPImageFile}
_PICTURES: dict[str, type[ImageFile.ImageFile]] = {"PNG": PngImageFile, "JPEG": JpegImageFile, **_ANIMATIONS}
_SOUNDS = ("WAV", "FLAC", "Ogg", "MP3")
_DEMUXERS = {"MP4": "mov", "WebM": "matroska", "AVI": "avi"}
_FASTEST = {"mp4": 1000, "gif": 50, "webp": 1000}  # frames per second; viewers slow a faster GIF down
_BLOCK = 2**16  # samples decoded or encoded at a time


def sniff(source: Source, limits: Limits = Limits()) -> str:
    """The modality row of a file, by its content: "image", "speech" or "video". An animation is a video."""
    with _opened(source, limits) as (data, kind):
        if kind in _DEMUXERS:
            with _demuxed(data, kind) as (_, video):
                return "video" if video else "speech"
        moves = kind in _ANIMATIONS and _ANIMATIONS[kind](io.BytesIO(data)).n_frames > 1
        return "video" if moves else "image" if kind in _PICTURES else "speech"


def read(source: Source, limits: Limits = Limits()) -> Media:
    """Whatever `sniff` finds, decoded."""
    modality = sniff(source, limits)
    if modality == "video":
        return read_video(source, limits)
    return read_image(source, limits) if modality == "image" else read_audio(source, limits=limits)


def has_sound(source: Source, limits: Limits = Limits()) -> bool:
    """Whether `read_audio` finds anything to hear in it."""
    with _opened(source, limits) as (data, kind):
        if kind not in _DEMUXERS:
            return kind in _SOUNDS
        with _demuxed(data, kind) as (container, _):
            return bool(container.streams.audio)


def read_image(source: Source, limits: Limits = Limits()) -> Image:
    """PNG, JPEG, WebP or GIF (its first frame) -> upright (H, W, 3) uint8, transparency laid on white."""
    with _opened(source, limits) as (data, kind):
        _check_kind(kind, _PICTURES, "image")
        picture: pil.Image = _PICTURES[kind](io.BytesIO(data))  # the header; no `Image.open`, which has its own limit
        _check_most(picture.width * picture.height, limits.pixels, "pixels")
        with suppress(Exception):  # a picture with broken EXIF is still a picture
            picture = ImageOps.exif_transpose(picture)
        return Image(_rgb(picture))


def read_audio(source: Source, rate: int | None = None, limits: Limits = Limits()) -> Audio:
    """WAV, FLAC, Ogg, MP3, or the sound of MP4, WebM or AVI -> (n,) float32 mono, at `rate` Hz if given."""
    with _opened(source, limits) as (data, kind):
        _check_kind(kind, (*_SOUNDS, *_DEMUXERS), "audio")
        kept, total, found = [np.zeros(0, np.float32)], 0, 1
        for block, found in _blocks(data, kind, limits):
            total += len(block)
            _check_most(total / found, limits.seconds, "seconds")  # the header may have lied
            kept.append(block)
        samples = np.concatenate(kept)
        _check_samples(samples)
    if rate not in (None, found):  # an input shorter than one new sample keeps its first
        samples = resampled if len(resampled := soxr.resample(samples, found, rate)) else samples[:1]
    return Audio(np.clip(samples, -1, 1), rate or found)


def read_video(source: Source, limits: Limits = Limits(), max_frames: int | None = None) -> Video:
    """MP4, WebM, AVI, GIF or WebP -> upright (F, H, W, 3) uint8 at a steady rate. With `max_frames`, at most so many
    are kept, evenly over the same seconds, so that `fps` falls with them; the others cost no memory."""
    with _opened(source, limits) as (data, kind):
        _check_kind(kind, (*_DEMUXERS, *_ANIMATIONS), "video")
        repeats, fps = _steady(_durations(data, kind, limits), max_frames or limits.frames, limits)
        count, kept = sum(repeats), list[Pixels]()
        for repeat, frame in zip(repeats, _frames(data, kind, limits), strict=False):
            _check_most(frame.width * frame.height * count, limits.video_pixels, "video_pixels")
            kept += [_rgb(frame)] * repeat if repeat else []
        return Video(np.stack(kept), fps)


def resize(image: Image, side: int, resample: Literal["bilinear", "bicubic", "lanczos"] = "bicubic") -> Image:
    """(H, W, 3) -> (side, side, 3), antialiased; the aspect ratio is not kept."""
    return Image(np.array(pil.fromarray(image.pixels).resize((side, side), pil.Resampling[resample.upper()])))


def write_image(image: Image, path: Path | str) -> None:
    """Write .png (exact), .jpg or .webp, whole or not at all."""
    _write(Path(path), lambda format: encode_image(image, format))


def write_audio(audio: Audio, path: Path | str) -> None:
    """Write .wav or .flac (16-bit, exact for what was 16-bit) or .ogg (Vorbis), whole or not at all."""
    _write(Path(path), lambda format: encode_audio(audio, format))


def write_video(video: Video, path: Path | str) -> None:
    """Write .mp4, .gif or .webp, whole or not at all."""
    _write(Path(path), lambda format: encode_video(video, format))


def encode_image(image: Image, format: str = "png") -> bytes:
    """(H, W, 3) uint8 -> the bytes of a "png", "jpg" (or "jpeg") or "webp" file."""
    _check_kind(format, ("png", "jpg", "jpeg", "webp"), "image output")
    _check_pixels(image.pixels, 3)
    buffer = io.BytesIO()
    with _blaming("", "An image of these sides does not fit the format.", "Write png, or make it smaller."):
        pil.fromarray(image.pixels).save(buffer, "jpeg" if format == "jpg" else format, quality=95)
    return buffer.getvalue()


def encode_audio(audio: Audio, format: str = "wav") -> bytes:
    """(n,) float32, clipped to [-1, 1] -> the bytes of a "wav" or "flac" (16-bit) or "ogg" (Vorbis) file."""
    _check_kind(format, ("wav", "flac", "ogg"), "audio output")
    _check_samples(audio.samples)
    pcm = np.rint(audio.samples * 32768.0).clip(-32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    misfit = _blaming("", f"Audio at {audio.rate} Hz does not fit the format.", "Write wav, or resample it.")
    with misfit, soundfile.SoundFile(buffer, "w", audio.rate, 1, format=format) as file:
        for start in range(0, len(pcm), _BLOCK):  # libsndfile's Vorbis overflows the stack on one long write
            file.write(pcm[start : start + _BLOCK])
    return buffer.getvalue()


def encode_video(video: Video, format: str = "mp4") -> bytes:
    """(F, H, W, 3) uint8 -> bytes: "mp4" (H.264, odd sides padded), "gif" or "webp" (where equal frames may merge)."""
    _check_kind(format, _FASTEST, "video output")
    _check_pixels(video.frames, 4)
    if not 0 < video.fps <= _FASTEST[format]:
        raise DataError(f"{format} cannot hold {video.fps:g} frames per second.", fix=f"Use 1 to {_FASTEST[format]}.")
    buffer = io.BytesIO()
    with _blaming("", f"A video of shape {video.frames.shape} does not fit the format.", "Write mp4, or shrink it."):
        (_write_mp4 if format == "mp4" else _write_animation)(video, format, buffer)
    return buffer.getvalue()


@contextmanager
def _opened(source: Source, limits: Limits) -> Iterator[tuple[bytes, str]]:
    """The bytes and their format. Whatever fails inside becomes a MioError that names the source."""
    name = "bytes" if isinstance(source, bytes) else str(source)
    with _blaming(name, "It cannot be read: it is locked, damaged, cut short or not what it claims.", "Replace it."):
        if not isinstance(source, bytes):
            _check_most(Path(source).stat().st_size, limits.bytes, "bytes")
            if not Path(source).is_file():
                raise DataError("This is a folder or a device, not a file.", fix="Give the path of one media file.")
            source = Path(source).read_bytes()
        _check_most(len(source), limits.bytes, "bytes")
        yield source, _format(source)


@contextmanager
def _blaming(at: str, what: str, fix: str) -> Iterator[None]:
    """Every error becomes a MioError; the words of libraries stay in its cause."""
    try:
        yield
    except MioError as error:
        error.at = error.at or at
        raise
    except FileNotFoundError as error:
        raise MissingError("There is no such file or folder.", at=at, fix="Check the path.") from error
    except Exception as error:  # on damaged input the libraries raise almost anything
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            raise ResourceError("Memory or disk ran out.", at=at, fix="Free some, or lower the limits.") from error
        raise DataError(what, at=at, fix=fix) from error


def _format(data: bytes) -> str:
    match = _MAGIC.match(data)
    if match is None or match.lastgroup is None:
        begins = f"Content that begins with {data[:12]!r}" if data else "An empty file"
        raise DataError(f"{begins} is no media known here.", fix=f"Use one of {', '.join(_MAGIC.groupindex)}.")
    promised = 8 + int.from_bytes(data[4:8], "little")
    # Streaming writers leave 0 or about 2**31 or 2**32 for "unknown"; some forget the last padding byte.
    if data[:4] == b"RIFF" and len(data) + 1 < promised < 0x7FFF0000:
        raise DataError(f"It is cut short: {len(data)} of {promised} bytes came.", fix="Copy it again.")
    return match.lastgroup


def _check_kind(kind: str, possible: Collection[str], noun: str) -> None:
    if kind not in possible:
        raise DataError(f"{kind or 'No suffix'} is not one of the {noun} formats.", fix=f"Use {', '.join(possible)}.")


def _check_most(count: float, most: float, limit: str) -> None:
    if count > most:
        what = f"There are {count:,.10g} {limit.replace('_', ' ')}; at most {most:,.10g} are read."
        raise DataError(what, fix=f"Shorten it, shrink it, set max_frames for a video, or raise Limits.{limit}.")


def _rgb(picture: pil.Image | av.VideoFrame) -> Pixels:
    """Any mode, upright -> (H, W, 3) uint8."""
    if isinstance(picture, av.VideoFrame):
        return np.rot90(picture.to_ndarray(format="rgb24"), picture.rotation // 90)
    if picture.mode.startswith("I"):  # 16-bit grey: the high byte, as Pillow does for 16-bit colour
        return np.repeat((np.array(picture, np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if picture.has_transparency_data:
        picture = pil.alpha_composite(pil.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return np.array(picture.convert("RGB"))


def _blocks(data: bytes, kind: str, limits: Limits) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Mono samples, block by block, and their rate in Hz."""
    if kind in _SOUNDS:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_most(file.frames / file.samplerate, limits.seconds, "seconds")
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                yield block.mean(axis=1), file.samplerate
            if file.tell() < file.frames:
                raise DataError(f"It is cut short: {file.tell()} of {file.frames} samples came.", fix="Copy it again.")
        return
    with _demuxed(data, kind) as (container, _):
        if not container.streams.audio:
            raise DataError(f"This {kind} file has no sound.", fix="Read it as a video.")
        _check_most((container.duration or 0) / av.time_base, limits.seconds, "seconds")
        stream, samples = container.streams.audio[0], 0
        resampler = av.AudioResampler(format="fltp", rate=stream.rate)
        for frame in container.decode(stream):
            samples += frame.samples
            yield from ((part.to_ndarray().mean(axis=0), stream.rate) for part in resampler.resample(frame))
        _check_whole(container, stream, samples / stream.rate)


def _check_samples(samples: NDArray[np.float32]) -> None:
    if samples.ndim != 1 or not len(samples):
        raise DataError(f"Audio of shape {samples.shape} is empty or not mono.", fix="Give (n,) samples, n > 0.")
    if not np.isfinite(samples).all():
        raise DataError("The audio holds NaN or infinite samples.", fix="Find out what wrote it, and write it again.")


def _steady(durations: list[float], most: int, limits: Limits) -> tuple[list[int], float]:
    """How often to show each frame so that time runs evenly, and the frames per second of that."""
    seconds, mean = sum(durations), sum(durations) / len(durations)
    _check_most(seconds, limits.seconds, "seconds")
    fastest = max(float(np.percentile(durations[:-1] or durations, 10, method="lower")), 0.01)
    step = fastest if fastest < 0.75 * mean else mean  # more than the jitter of rounding: holds repeat, motion stays
    count = min(round(seconds / step), most, limits.frames)
    middles = (np.arange(count) + 0.49) * seconds / count  # nearly: a true middle may be where two frames meet
    return np.bincount(np.searchsorted(np.cumsum(durations), middles, side="right")).tolist(), count / seconds


def _durations(data: bytes, kind: str, limits: Limits) -> list[float]:
    """Seconds per frame in display order. Pillow tells them only with the frame, so animations are decoded twice."""
    if kind in _ANIMATIONS:
        return [(f.info.get("duration") or 100) / 1000 for f in _frames(data, kind, limits) if isinstance(f, pil.Image)]
    with _demuxed(data, kind) as (container, stream):
        if stream is None:
            raise DataError(f"This {kind} file has no pictures.", fix="Read it as audio.")
        _check_most(stream.width * stream.height, limits.pixels, "pixels")
        starts, end, came = list[float](), 0.0, 0
        for packet in container.demux(stream):
            came += packet.dts is not None  # all but the last, which only flushes
            if packet.is_corrupt:
                raise DataError("It is cut short within a frame.", fix="Copy it again.")
            time = packet.dts if packet.pts is None else packet.pts  # AVI knows decoding times only
            if time is not None and not packet.is_discard:
                starts.append(float(time * packet.time_base))
                end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
                _check_most(len(starts), limits.frames, "frames")
        if came < stream.frames:  # a cut between two frames, where the index counts them
            raise DataError(f"It is cut short: {came} of {stream.frames} frames came.", fix="Copy it again.")
        _check_whole(container, stream, end)
        gaps = np.diff(sorted(set(starts))).tolist()  # a set: VP8's hidden frames share a neighbour's time
        return [*gaps, end - max(starts) or float(np.mean(gaps or 1.0))]  # the last may have no duration


def _frames(data: bytes, kind: str, limits: Limits) -> Iterator[pil.Image | av.VideoFrame]:
    """In display order. The caller is done with one before it asks for the next."""
    if kind in _DEMUXERS:
        with _demuxed(data, kind) as (container, stream):
            yield from container.decode(stream) if stream else ()
        return
    picture = _ANIMATIONS[kind](io.BytesIO(data))
    _check_most(picture.n_frames, limits.frames, "frames")
    for index in range(picture.n_frames):
        picture.seek(index)
        _check_most(picture.width * picture.height, limits.pixels, "pixels")  # a GIF frame may enlarge the canvas
        picture.load()
        yield picture


@contextmanager
def _demuxed(data: bytes, kind: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream | None]]:
    """From memory and in its own format, so that no playlist opens another file; and its first video but for covers."""
    with av.open(io.BytesIO(data), "r", format=_DEMUXERS[kind], metadata_errors="replace") as container:
        yield (
            container,
            next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None),
        )


def _check_whole(container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream, came: float) -> None:
    """Against the seconds of the header, if it has any. WebM has them for all its streams together."""
    alone = (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0
    promised = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else alone
    if promised - came > max(0.25, 0.02 * promised):  # leaves room for rounding and padding
        raise DataError(f"It is cut short: {came:.2f} of {promised:.2f} seconds came.", fix="Copy it again.")


def _write_mp4(video: Video, format: str, buffer: io.BytesIO) -> None:
    """H.264 at visually lossless quality, or MPEG-4 where PyAV was built without x264."""
    height, width = video.frames.shape[1:3]
    rate = Fraction(video.fps).limit_denominator(1001)  # 30000/1001 and the like stay exact
    with av.open(buffer, "w", format=format) as container:
        if "libx264" in av.codecs_available:
            # x264's macroblock tree reads memory that nobody wrote: with it the same video does not always give the
            # same bytes (12 kinds in 150 tries; without it one).
            options = {"crf": "18", "x264-params": "mbtree=0"}
            stream = container.add_stream("libx264", rate=rate, options=options)
        else:
            stream = container.add_stream("mpeg4", rate=rate, options={"qmin": "2", "qmax": "4"})
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 5, 1  # BT.601, limited: what reformat makes
        for pixels in video.frames:
            even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            # Converted here: left to the encoder, the same frames do not always give the same bytes.
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())


def _write_animation(video: Video, format: str, buffer: io.BytesIO) -> None:
    unit = 10 if format == "gif" else 1  # ms, to which the ends of frames are rounded, so that it does not add up
    durations = np.diff(np.rint(np.arange(len(video.frames) + 1) * 1000 / video.fps / unit)).astype(int) * unit
    first, *rest = [pil.fromarray(pixels) for pixels in video.frames]
    first.save(buffer, format, save_all=True, append_images=rest, duration=durations.tolist(), loop=0, quality=90)


def _check_pixels(pixels: Pixels, axes: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != axes or pixels.shape[-1] != 3 or not pixels.size:
        raise DataError(f"Pixels are {pixels.shape} {pixels.dtype}.", fix="Give (H, W, 3), or (F, H, W, 3), of uint8.")


def _write(path: Path, encode: Callable[[str], bytes]) -> None:
    """Encoded, put into a file beside it, then renamed: nobody ever sees half a file."""
    temporary = path.parent / f".{uuid4().hex}.tmp"
    with _blaming(str(path), "The file cannot be written there.", "Choose another place."):
        try:
            temporary.write_bytes(encode(path.suffix[1:].lower()))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
