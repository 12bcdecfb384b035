"""STOI agrees with pystoi, and has the properties that its paper claims."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mio.evals.metrics.intelligibility import FRAME, HOP, RATE, _bands, _frames, _overlaid, stoi

Wave = NDArray[np.float64]


def speech(seed: int = 0, seconds: float = 2.0) -> Wave:
    """Harmonics under a syllabic envelope, with a pause."""
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    tone = sum(rng.uniform(0.2, 1) * np.sin(2 * np.pi * 130 * k * t + rng.uniform(0, 6)) for k in range(1, 30))
    loud = np.maximum(0, np.sin(2 * np.pi * 3 * t)) ** 2 * (np.abs(t - 1.0) > 0.2)
    return np.asarray(tone * loud + rng.normal(0, 1e-4, len(t)))


NOISE: dict[str, Callable[[Wave], Wave]] = {
    "none": lambda x: x,
    "a little": lambda x: x + np.random.default_rng(1).normal(0, 0.3, len(x)),
    "much": lambda x: x + np.random.default_rng(1).normal(0, 3, len(x)),
    "clipped": lambda x: np.clip(x, -0.3, 0.3),
    "another speaker": lambda x: speech(9, len(x) / RATE),
    "an echo": lambda x: x + 0.6 * np.roll(x, 900),
}


@pytest.mark.parametrize("kind", NOISE)
@pytest.mark.parametrize("seconds", [2.0, 1.2345])
def test_values_are_those_of_pystoi(kind: str, seconds: float) -> None:
    reference = pytest.importorskip("pystoi").stoi
    clean = speech(3, seconds)
    heard = NOISE[kind](clean)
    assert stoi(clean, heard) == pytest.approx(reference(clean, heard, RATE), abs=1e-9)


GOLDEN = {
    "none": 1.0,
    "a little": 0.97192941,
    "much": 0.55940935,
    "clipped": 0.65556476,
    "another speaker": 0.99926141,
    "an echo": 0.94505482,
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_values_are_those_that_pystoi_gave(kind: str) -> None:
    """pystoi 0.4.1, kept for where it is not installed."""
    assert stoi(speech(), NOISE[kind](speech())) == pytest.approx(GOLDEN[kind], abs=1e-6)


@settings(max_examples=10)
@given(st.floats(0.01, 50))
def test_loudness_does_not_matter(gain: float) -> None:
    assert stoi(speech(), gain * NOISE["a little"](speech())) == pytest.approx(
        stoi(speech(), NOISE["a little"](speech())), abs=1e-9
    )


def test_more_noise_is_less_understood() -> None:
    rng = np.random.default_rng(0).normal(0, 1, len(speech()))
    values = [stoi(speech(), speech() + level * rng) for level in (0, 0.1, 0.5, 2, 8)]
    assert values == sorted(values, reverse=True) and values[0] == pytest.approx(1)


def test_frames_laid_over_one_another_are_the_samples_but_for_the_edges() -> None:
    wave = speech()[: FRAME + 8 * HOP + 1]
    inner = slice(HOP, 9 * HOP)
    scale = np.hanning(FRAME + 2)[1:-1][:HOP] + np.hanning(FRAME + 2)[1:-1][HOP:]
    assert _overlaid(_frames(wave))[inner] == pytest.approx(wave[inner] * np.tile(scale, 8))


def test_bands_do_not_overlap_and_leave_no_gap() -> None:
    bands = _bands()
    taken = np.flatnonzero(bands.sum(0))
    assert bands.sum(0).max() == 1 and np.array_equal(taken, np.arange(taken[0], taken[-1] + 1))
    assert taken[0] * RATE / 512 == pytest.approx(150 / 2 ** (1 / 6), abs=RATE / 512)


@pytest.mark.parametrize(
    ("clean", "heard", "what"), [(9000, 8000, "compared"), (200, 200, "no frame"), (3000, 3000, "30")]
)
def test_what_cannot_be_measured_is_refused(clean: int, heard: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        stoi(np.ones(clean), np.ones(heard))
