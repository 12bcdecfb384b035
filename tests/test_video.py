"""tokenizers/video.py: frames in time order within a budget, and clips that keep their frames' codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.tokenizers.video import VideoTokenizer, scene_frames, scene_middles, uniform_frames
from mio.types import Codes, Image, Modality, Tokenizer, Video

ROW = Modality("video", spans_of="image", rate=4.0)
COLOURS = ((250, 40, 40), (10, 10, 30), (240, 240, 240), (20, 90, 20))


class CornerTokenizer:
    """An image's three corner values are its codes."""

    modality = Modality("image", 1, 256, 3, "<image>", "</image>", "<img{}>")
    calls = 0

    def encode(self, media: Sequence[Image]) -> list[Codes]:
        self.calls += 1
        return [m.pixels[0, 0].astype(np.int64)[None, None] for m in media]

    def decode(self, codes: Sequence[Codes]) -> list[Image]:
        return [Image(np.broadcast_to(c[0, 0].astype(np.uint8), (2, 2, 3))) for c in codes]

    def fingerprint(self) -> str:
        return "corner"


def clip(*frames: int) -> Video:
    """Frames of one grey each."""
    return Video(np.array(frames, np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3), 8.0)


def film(scene: int, *colours: int) -> np.ndarray:
    """Scenes of `scene` frames, each in one colour with a little noise."""
    rng = np.random.default_rng(0)
    frames = np.repeat(np.array(COLOURS, int)[list(colours)], scene, axis=0)[:, None, None]
    return np.clip(frames + rng.integers(-3, 4, (len(frames), 32, 32, 3)), 0, 255).astype(np.uint8)


@given(st.integers(1, 200), st.integers(1, 20))
def test_uniform_frames_rise_from_first_to_last_within_the_budget(count: int, budget: int) -> None:
    frames = uniform_frames(count, budget)
    assert len(frames) == min(count, budget)
    assert frames[0] == 0
    assert frames[-1] == (count - 1 if budget > 1 else 0)
    gaps = np.diff(frames)
    assert (gaps > 0).all()
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("count", "budget", "expected"), [(8, 4, [0, 2, 5, 7]), (3, 4, [0, 1, 2]), (100, 3, [0, 50, 99]), (1, 4, [0])]
)
def test_uniform_frames_of_a_few_clips(count: int, budget: int, expected: list[int]) -> None:
    assert uniform_frames(count, budget).tolist() == expected


def test_scenes_are_shown_by_their_middle_frames() -> None:
    assert scene_frames(film(10, 0, 1, 2), budget=4).tolist() == [5, 15, 25]


def test_more_scenes_than_the_budget_are_thinned_evenly_in_time_order() -> None:
    assert scene_frames(film(6, 0, 1, 2, 3, 0, 1), budget=2).tolist() == [3, 33]


def test_a_clip_without_cuts_is_sampled_uniformly() -> None:
    assert scene_frames(film(12, 2), budget=3).tolist() == uniform_frames(12, 3).tolist()


def test_a_clip_without_cuts_has_no_scenes_and_short_ones_are_joined() -> None:
    assert scene_middles(film(12, 2)).tolist() == []
    assert scene_middles(film(20, 0, 1, 2), shortest=15).tolist() == [10, 30, 50]
    assert len(scene_middles(film(6, 0, 1, 2, 3, 0, 1), shortest=15)) < 6


def test_a_clip_is_encoded_as_the_spans_of_its_frames() -> None:
    image = CornerTokenizer()
    tokenizer = VideoTokenizer(image, ROW, budget=3)
    codes = tokenizer.encode([clip(10, 11, 12, 13, 14), clip(7), clip(1, 2)])
    assert isinstance(tokenizer, Tokenizer)
    assert [c[:, 0, 0].tolist() for c in codes] == [[10, 12, 14], [7], [1, 2]]
    assert [c.shape for c in codes] == [(3, 1, 3), (1, 1, 3), (2, 1, 3)]
    assert image.calls == 1  # frames of all clips in one batch


def test_decode_inverts_encode_at_the_rows_rate() -> None:
    tokenizer = VideoTokenizer(CornerTokenizer(), ROW, budget=4)
    clips = [clip(1, 2, 3), clip(9)]
    for video, back in zip(clips, tokenizer.decode(tokenizer.encode(clips)), strict=True):
        assert_array_equal(back.frames, video.frames)
        assert back.fps == 4.0


def test_scenes_are_chosen_when_asked_for() -> None:
    tokenizer = VideoTokenizer(CornerTokenizer(), ROW, budget=4, choice="scenes")
    assert tokenizer.frames(Video(film(10, 0, 1, 2), 8.0)).tolist() == [5, 15, 25]


def test_no_clips_are_no_codes() -> None:
    assert VideoTokenizer(CornerTokenizer(), ROW).encode([]) == []


def test_the_fingerprint_changes_with_how_frames_are_chosen() -> None:
    image = CornerTokenizer()
    others = [VideoTokenizer(image, ROW, 4, "scenes"), VideoTokenizer(image, ROW, 5)]
    assert len({t.fingerprint() for t in (VideoTokenizer(image, ROW, 4), *others)}) == 3
