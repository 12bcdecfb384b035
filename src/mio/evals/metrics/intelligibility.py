"""How well noisy or made speech is understood beside the clean recording: STOI (Taal et al., 2011)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mio.evals.metrics.statistics import Floats

RATE = 10_000  # Hz
FRAME, HOP, FFT = 256, 128, 512  # samples
BANDS, LOWEST = 15, 150.0  # of a third of an octave, from this centre in Hz
SEGMENT = 30  # frames, 384 ms
RANGE = 40.0  # dB: frames of the clean speech that far below its loudest are silence
CLIP = 10 ** (15 / 20)  # a band counts as at most 15 dB of distortion
_TINY = np.finfo(np.float64).eps


def stoi(clean: NDArray[np.floating], heard: NDArray[np.floating]) -> float:
    """Aligned speech (n,) and (n,) at 10 kHz -> mean correlation of short-time envelopes, 1 for equal ones.

    Raises:
        ValueError: the lengths differ, or less than 0.4 s of the clean speech is not silence.
    """
    if clean.shape != heard.shape or clean.ndim != 1:
        raise ValueError(f"speech of shape {clean.shape} is compared with {heard.shape}")
    voiced = _voiced(_frames(clean), _frames(heard))
    x, y = (_envelopes(frames) for frames in voiced)
    if len(x) < SEGMENT:
        raise ValueError(f"{len(x)} frames are not silent; {SEGMENT} are needed")
    x, y = (sliding_window_view(e, SEGMENT, axis=0) for e in (x, y))  # (frames, BANDS) -> (M, BANDS, SEGMENT)
    scaled = y * (_norm(x) / (_norm(y) + _TINY))
    return float((_unit(x) * _unit(np.minimum(scaled, x * (1 + CLIP)))).sum(-1).mean())


def _norm(x: Floats) -> Floats:
    out: Floats = np.linalg.norm(x, axis=-1, keepdims=True)
    return out


def _unit(x: Floats) -> Floats:
    """Without its mean, at length 1."""
    centred = x - x.mean(-1, keepdims=True)
    out: Floats = centred / (_norm(centred) + _TINY)
    return out


def _frames(samples: NDArray[np.floating]) -> Floats:
    """(n,) -> (T, FRAME) under a Hann window without its zeros; as in the authors' code, a frame that ends with the
    last sample is left out."""
    if len(samples) <= FRAME:
        raise ValueError(f"{len(samples)} samples make no frame of {FRAME}")
    out: Floats = sliding_window_view(samples[:-1].astype(np.float64), FRAME)[::HOP] * np.hanning(FRAME + 2)[1:-1]
    return out


def _voiced(clean: Floats, heard: Floats) -> tuple[Floats, Floats]:
    """Frames where the clean speech is not silent, laid over one another and cut again."""
    level = 20 * np.log10(np.linalg.norm(clean, axis=1) + _TINY)
    kept = level > level.max() - RANGE
    return _frames(_overlaid(clean[kept])), _frames(_overlaid(heard[kept]))


def _overlaid(frames: Floats) -> Floats:
    """(T, FRAME) -> samples; two halves of neighbours add up."""
    out = np.zeros((len(frames) + 1, HOP))
    out[:-1] += frames[:, :HOP]
    out[1:] += frames[:, HOP:]
    return out.reshape(-1)


def _envelopes(frames: Floats) -> Floats:
    """(T, FRAME) -> (T, BANDS) root energies."""
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2
    out: Floats = np.sqrt(power @ _bands().T)
    return out


def _bands() -> Floats:
    """(BANDS, bins): which bins lie between the nearest ones to a band's edges."""
    bins, k = np.arange(FFT // 2 + 1), np.arange(BANDS)
    edges = LOWEST * 2 ** (np.stack([2 * k - 1, 2 * k + 1]) / 6) * FFT / RATE
    low, high = np.abs(bins - edges[..., None]).argmin(-1)[..., None]
    return ((bins >= low) & (bins < high)).astype(np.float64)
