"""Media -> numbers to compare them by, without any weights from elsewhere: fixed transforms, one random network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mio.evals.judges import Convolutions, as_pictures
from mio.evals.metrics.statistics import Floats
from mio.media import resize
from mio.models.teachers import LogMel
from mio.tokenizers.speech import resample
from mio.types import Audio, Image, Video

RATE = 16000
FLOOR = 5e-4  # amplitude of noise that counts as silence, as in the codec's training
Pixels = NDArray[np.uint8]


@cache
def random_network() -> Convolutions:
    """`judges.Convolutions` as it is drawn with seed 0: random features measure likeness nearly as trained ones do
    (R. Zhang et al., 2018), and everyone has the same without a download."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Convolutions(3, 1).eval()


@torch.inference_mode()
def picture_maps(pixels: Sequence[Pixels]) -> list[Tensor]:
    """Pictures (H, W, 3) of one size -> maps (N, C, h, w) of every layer of the random network."""
    network, x, out = random_network(), as_pictures(pixels), []
    for down, same, norm in zip(network.down, network.same, network.norms, strict=True):
        x = F.relu(norm(down(x)))
        x = x + F.relu(same(x))
        out.append(x)
    return out


def picture_features(pictures: Sequence[Image], side: int = 64, batch: int = 128) -> Floats:
    """(N, D): what the random network's second layer sees in each of 4 x 4 fields, at 64 x 64 pixels."""
    pixels = [resize(p, side).pixels for p in pictures]
    fields = (F.adaptive_avg_pool2d(picture_maps(pixels[i : i + batch])[1], 4) for i in range(0, len(pixels), batch))
    return torch.cat([f.flatten(1) for f in fields]).double().numpy()


def picture_statistics(pixels: Sequence[Pixels], batch: int = 64) -> Floats:
    """(N, D): means of the second and third layer's maps, for Fréchet distances."""
    maps = (picture_maps(pixels[i : i + batch])[1:3] for i in range(0, len(pixels), batch))
    return torch.cat([torch.cat([m.mean((2, 3)) for m in some], 1) for some in maps]).double().numpy()


def perceptual_distances(a: Sequence[Pixels], b: Sequence[Pixels]) -> Floats:
    """(N,): squared distances of the layers' maps, unit vectors at every place, meaned over places and layers."""
    pairs = zip(picture_maps(a), picture_maps(b), strict=True)
    gaps = [(F.normalize(x, dim=1) - F.normalize(y, dim=1)).pow(2).sum(1).mean((1, 2)) for x, y in pairs]
    return torch.stack(gaps).mean(0).double().numpy()


@cache
def _mel(fft: int, hop: int, bands: int) -> LogMel:
    return LogMel(RATE, fft, hop, bands, FLOOR)


def log_mel(audio: Audio, fft: int = 1024, hop: int = 256, bands: int = 80) -> Floats:
    """(bands, T) natural logarithms of mel amplitudes, at 16 kHz."""
    samples = torch.from_numpy(resample(audio, RATE).samples)
    return _mel(fft, hop, bands)(samples[None])[0].double().numpy()


def power(audio: Audio, fft: int = 512, hop: int = 128) -> Floats:
    """(T, F) power spectrum under a Hann window, at 16 kHz."""
    samples, window = torch.from_numpy(resample(audio, RATE).samples), torch.hann_window(fft)
    spectrum = torch.stft(samples, fft, hop, window=window, return_complex=True, pad_mode="constant")
    return spectrum.abs().square().T.double().numpy()


def cepstra(audio: Audio, count: int = 20) -> Floats:
    """(T, count) mel cepstra by an orthonormal DCT-II, c0 first."""
    mel = log_mel(audio, 512, 160, 40)
    bands = np.arange(len(mel))
    basis = np.cos(np.pi / len(mel) * (bands[:, None] + 0.5) * np.arange(count)) * np.sqrt(2 / len(mel))
    out: Floats = mel.T @ basis
    return out


def spoken_features(sounds: Sequence[Audio], frames: int = 24) -> Floats:
    """(N, D): log mel without its mean, every sound stretched to as many frames."""
    return np.stack([_stretched(log_mel(s, 512, 160, 40), frames).ravel() for s in sounds])


def _stretched(mel: Floats, frames: int) -> Floats:
    x = torch.from_numpy(mel - mel.mean())[None]
    return F.interpolate(x, size=frames, mode="linear", align_corners=True)[0].numpy()


def voice_features(sounds: Sequence[Audio]) -> Floats:
    """(N, 38): mean and spread over time of mel cepstra 1 to 19, where the sound is louder than its median."""
    return np.stack([_voice(cepstra(s)) for s in sounds])


def _voice(mfcc: Floats) -> Floats:
    loud = mfcc[mfcc[:, 0] >= np.median(mfcc[:, 0]), 1:]
    return np.concatenate([loud.mean(0), loud.std(0)])


def clip_features(clips: Sequence[Video], frames: int = 4, side: int = 16) -> Floats:
    """(N, D): grey frames, evenly chosen, and how each differs from the one before."""
    out = []
    for clip in clips:
        chosen = np.linspace(0, len(clip.frames) - 1, frames).round().astype(int)
        grey = np.stack([resize(Image(clip.frames[i]), side).pixels.mean(-1) for i in chosen])
        out.append(np.concatenate([grey.ravel(), np.diff(grey, axis=0).ravel()]))
    return np.stack(out)
