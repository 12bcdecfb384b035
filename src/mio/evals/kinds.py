"""What is measured of each kind of medium: the rows by which one protocol (evals/tokenizers.py) serves all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mio.data.prepare import text_of
from mio.data.sources import Item
from mio.evals import features
from mio.evals.metrics import intelligibility
from mio.evals.metrics.images import frechet_distance, psnr, ssim
from mio.evals.metrics.intelligibility import stoi
from mio.evals.metrics.speech import log_spectral_distance, speaker_similarity
from mio.evals.metrics.statistics import Floats, Score, mean
from mio.media import resize
from mio.tokenizers.speech import resample
from mio.tokenizers.video import uniform_frames
from mio.types import Audio, Image, Video

Pairs = Sequence[tuple[Any, Any]]  # an original and what became of it, in one form


@dataclass(frozen=True)
class Measure:
    """`sign`: 1 where more is better, -1 where less is. `of`: the score of pairs of originals and reconstructions;
    None where no pair can be scored."""

    what: str
    unit: str
    sign: int
    of: Callable[[Pairs], Score | None]


@dataclass(frozen=True)
class Probe:
    """A label that media of `source` carry. `sees`: features by which a linear recogniser reads it off real media.

    `content`: whether the first of several codebooks should tell it; what it tells of others has leaked."""

    what: str
    source: str
    label: Callable[[Item], str]
    sees: Callable[[Sequence[Any]], Floats]
    content: bool = True


@dataclass(frozen=True)
class Kind:
    """`amount` of a medium is counted in `unit`; `pair` brings an original into its reconstruction's form."""

    title: str
    unit: str
    amount: Callable[[Any], float]
    pair: Callable[[Any, Any], tuple[Any, Any]]
    measures: tuple[Measure, ...]
    probes: tuple[Probe, ...] = ()


def one_size(original: Image, rebuilt: Image) -> tuple[Image, Image]:
    """The original at the size of its square reconstruction, as the tokenizer saw it."""
    return resize(original, len(rebuilt.pixels)), rebuilt


def one_length(original: Audio, rebuilt: Audio) -> tuple[Audio, Audio]:
    """Both at 16 kHz, cut to the shorter."""
    a, b = (resample(sound, features.RATE).samples for sound in (original, rebuilt))
    size = min(len(a), len(b))
    return Audio(a[:size], features.RATE), Audio(b[:size], features.RATE)


def same_frames(original: Video, rebuilt: Video) -> tuple[Video, Video]:
    """Of the original those frames that were tokenized, at the size of the reconstruction."""
    side = rebuilt.frames.shape[1]
    chosen = original.frames[uniform_frames(len(original.frames), len(rebuilt.frames))]
    return Video(np.stack([resize(Image(f), side).pixels for f in chosen]), rebuilt.fps), rebuilt


def each(value: Callable[[Any, Any], float]) -> Callable[[Pairs], Score]:
    """The mean of a number of every pair."""
    return lambda pairs: mean([value(a, b) for a, b in pairs])


def _psnr(a: Image, b: Image) -> float:
    return min(psnr(a.pixels, b.pixels), 100.0)  # of equal pictures it is infinite, and so would the mean be


def _ssim(a: Image, b: Image) -> float:
    return ssim(a.pixels, b.pixels)


def _perceptual(pairs: Pairs) -> Score:
    distances = [features.perceptual_distances([a.pixels], [b.pixels]) for a, b in pairs]
    return mean(np.concatenate(distances))


def _frechet(pairs: Pairs) -> Score | None:
    """A distance of two sets, so without an interval."""
    if len(pairs) < 2:
        return None
    a, b = (features.picture_statistics([p.pixels for p in side]) for side in zip(*pairs, strict=True))
    distance = frechet_distance(a, b)
    return Score(distance, len(pairs), distance, distance)


def _by_frame(value: Callable[[Image, Image], float]) -> Callable[[Video, Video], float]:
    return lambda a, b: float(np.mean([value(Image(x), Image(y)) for x, y in zip(a.frames, b.frames, strict=True)]))


def _mel(a: Audio, b: Audio) -> float:
    return float(np.abs(features.log_mel(a) - features.log_mel(b)).mean())


def _lsd(a: Audio, b: Audio) -> float:
    return log_spectral_distance(features.power(a), features.power(b), floor=1e-5)


def _stoi(pairs: Pairs) -> Score | None:
    """Of the sounds of which 0.4 s are not silent."""
    values = []
    for a, b in pairs:
        with suppress(ValueError):
            values.append(stoi(*(resample(sound, intelligibility.RATE).samples for sound in (a, b))))
    return mean(values) if values else None


def _level(a: Audio, b: Audio) -> float:
    quiet, loud = (float(np.sqrt((s.samples**2).mean())) for s in (b, a))
    return quiet / max(loud, 1e-6)


def _voices(pairs: Pairs) -> Score | None:
    """Cosines of `features.voice_features`, standardised over the originals."""
    if len(pairs) < 2:
        return None
    a, b = (features.voice_features(side) for side in zip(*pairs, strict=True))
    centre, spread = a.mean(0), np.maximum(a.std(0), 1e-6)
    return speaker_similarity((a - centre) / spread, (b - centre) / spread)


PICTURES = Kind(
    "Pictures",
    "picture",
    lambda picture: 1.0,
    one_size,
    (
        Measure("PSNR", "dB", 1, each(_psnr)),
        Measure("SSIM", "", 1, each(_ssim)),
        Measure("perceptual distance (random network)", "", -1, _perceptual),
        Measure("Fréchet distance (random network)", "", -1, _frechet),
    ),
    (
        Probe("handwritten digit", "digits", text_of, features.picture_features),
        Probe("doodle", "doodles", text_of, features.picture_features),
        Probe("background of a scene", "scenes", lambda i: str(i.meta["background"]), features.picture_features),
    ),
)
SOUNDS = Kind(
    "Speech",
    "second",
    lambda sound: sound.seconds,
    one_length,
    (
        Measure("mel distance", "nats", -1, each(_mel)),
        Measure("log-spectral distance", "dB", -1, each(_lsd)),
        Measure("STOI, where 0.4 s are not silent", "", 1, _stoi),
        Measure("speaker similarity (mel cepstra)", "", 1, _voices),
        Measure("level kept (RMS)", "", 1, each(_level)),
    ),
    (
        Probe("spoken digit", "fsdd", text_of, features.spoken_features),
        Probe("keyword", "keywords", text_of, features.spoken_features),
        Probe("speaker", "fsdd", lambda i: str(i.meta["speaker"]), features.voice_features, content=False),
    ),
)
CLIPS = Kind(
    "Clips",
    "clip",
    lambda clip: 1.0,
    same_frames,
    (
        Measure("PSNR of frames", "dB", 1, each(_by_frame(_psnr))),
        Measure("SSIM of frames", "", 1, each(_by_frame(_ssim))),
    ),
    (Probe("motion", "motion", lambda i: str(i.meta["motion"]), features.clip_features),),
)
KINDS: dict[str, Kind] = {"image": PICTURES, "speech": SOUNDS, "video": CLIPS}  # by row of the vocabulary
