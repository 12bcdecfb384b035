"""evals/features.py: the same for everyone, blind to what should not count, and never blind to what should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mio.evals import features
from mio.types import Audio, Image, Video

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8)


def sound(hertz: float, seconds: float = 0.5, level: float = 0.3, rate: int = 16000) -> Audio:
    time = np.arange(int(seconds * rate)) / rate
    return Audio((level * np.sin(2 * np.pi * hertz * time)).astype(np.float32), rate)


def test_the_random_network_is_the_same_whatever_was_drawn_before() -> None:
    features.random_network.cache_clear()
    torch.manual_seed(5)
    first, after = features.random_network().down[0].weight.clone(), torch.rand(3)
    features.random_network.cache_clear()
    torch.manual_seed(5)
    torch.rand(1)
    assert torch.equal(features.random_network().down[0].weight, first)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)  # nobody else's chance was touched


def test_a_picture_is_at_no_distance_from_itself_and_further_the_more_it_is_spoiled() -> None:
    noisy = [np.clip(PICTURE + RNG.normal(0, s, PICTURE.shape), 0, 255).astype(np.uint8) for s in (0, 10, 60)]
    distance = features.perceptual_distances([PICTURE] * 3, noisy)
    assert distance[0] == pytest.approx(0, abs=1e-6)
    assert distance[0] < distance[1] < distance[2]


def test_pictures_of_all_sizes_have_features_of_one() -> None:
    found = features.picture_features([Image(PICTURE), Image(PICTURE[:20])], batch=1)
    assert found.shape == (2, 64 * 16)
    assert features.picture_statistics([PICTURE]).shape == (1, 64 + 128)


def test_words_are_features_without_loudness_and_length() -> None:
    quiet, slow = sound(440, level=0.1), sound(440, seconds=1.0)
    first, same, other = features.spoken_features([sound(440), quiet, sound(2000)])
    assert np.abs(first - same).max() < 0.3 * np.abs(first - other).max()
    assert features.spoken_features([slow]).shape == features.spoken_features([quiet]).shape


def test_cepstra_are_an_orthonormal_transform() -> None:
    noise = Audio(RNG.normal(0, 0.1, 4000).astype(np.float32), 16000)
    mel, whole = features.log_mel(noise, 512, 160, 40), features.cepstra(noise, 40)
    whole[:, 0] /= np.sqrt(2)  # c0 is left at the scale of the others
    assert np.linalg.norm(whole, axis=1) == pytest.approx(np.linalg.norm(mel, axis=0))


def test_voices_are_features_without_loudness() -> None:
    loud, quiet, other = features.voice_features([sound(300), sound(300, level=0.15), sound(900)])
    assert loud.shape == (38,)
    assert np.abs(loud - quiet).max() < 0.2 * np.abs(loud - other).max()


def test_power_is_the_square_of_the_amplitude() -> None:
    once, twice = (features.power(sound(1000, level=level)).sum() for level in (0.1, 0.2))
    assert twice / once == pytest.approx(4, rel=1e-4)
    peak = features.power(sound(1000)).sum(0).argmax()
    assert peak == round(1000 / (16000 / 512))


def test_clips_are_features_of_what_moves() -> None:
    still = np.repeat(PICTURE[None], 8, 0)
    features_of = features.clip_features([Video(still, 8.0), Video(still[::2], 8.0)])
    assert features_of.shape == (2, 7 * 256)
    assert not features_of[:, 4 * 256 :].any()
