"""Scores: known values, judges that answer by their scores, and what counts as a story's structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mio.data.scenes import BACKGROUNDS, Scene, draw_scene
from mio.data.tasks import INSTRUCT
from mio.evals.judges import Convolutions, Judge, as_clips, as_pictures, as_sounds, blur, train_judge
from mio.evals.metrics import Share, exact, normal, wilson
from mio.evals.tasks import MEASURES, nearest_background, takes_turns
from mio.pipeline import Reply
from mio.types import Image, Text

PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (50, 100, 0.4038, 0.5962), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=2e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share(pair: tuple[int, int]) -> None:
    low, high = Share(*pair).interval
    assert 0 <= low <= Share(*pair).value + 1e-12 and Share(*pair).value <= high + 1e-12 <= 1 + 2e-12


def test_exact_ignores_case_spaces_and_a_full_stop() -> None:
    assert exact([" A  fox.", "cat", "dog"], ["a fox", "cat", "cat"]) == Share(2, 3)
    assert normal("Seven .") == "seven "


def test_exact_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError):
        exact(["a"], ["a", "b"])


@pytest.mark.parametrize("colour", list(BACKGROUNDS))
def test_the_background_of_a_drawn_scene_is_read_back(colour: str) -> None:
    scene = Scene("fox", colour, "noto", count=1)
    assert nearest_background(draw_scene(scene, np.full((9, 9, 3), 90, np.uint8), None, 0).pixels) == colour


@pytest.mark.parametrize(
    ("kinds", "fine"),
    [("titi", True), ("itit", True), ("tit", False), ("tiit", False), ("ttii", False), ("", False)],
)
def test_a_story_is_pictures_and_texts_in_turn(kinds: str, fine: bool) -> None:
    parts = tuple(Text("page") if k == "t" else Image(PIXELS) for k in kinds)
    assert takes_turns(Reply(parts, ())) is fine
    assert not takes_turns(Reply(parts, (), ("A image span has no end token.",)))


class Brightness(nn.Module):
    """Scores class k by how near the mean input is to k."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(x.mean((1, 2, 3))[:, None] - torch.arange(3.0)).abs()


def test_a_judge_names_the_best_class_and_ranks_the_truth_among_others() -> None:
    judge = Judge(Brightness(), ("dark", "grey", "light"))  # type: ignore[arg-type]
    inputs = torch.tensor([0.1, 1.2, 1.9]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    assert judge.says(inputs) == ["dark", "grey", "light"]
    assert judge.among(inputs, ["dark", "light", "light"], 2) == [True, False, True]


def test_a_judge_learns_and_resumes_what_it_learned(tmp_path: Path) -> None:
    pixels = [np.full((16, 16, 3), 255 * (n % 2), np.uint8) for n in range(40)]
    labels = [("black", "white")[n % 2] for n in range(40)]
    judge = train_judge(as_pictures(pixels), labels, 8, tmp_path / "judge", "judge")
    again = train_judge(as_pictures(pixels), labels, 8, tmp_path / "judge", "judge")
    for mine, theirs in zip(judge.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_media_become_inputs_of_the_stated_shapes() -> None:
    assert as_pictures([PIXELS] * 2).shape == (2, 3, 4, 4)
    assert as_clips([np.stack([PIXELS] * 5)] * 2).shape == (2, 15, 4, 4)
    assert as_sounds([np.ones(300, np.float32), np.ones(20000, np.float32)]).shape == (2, 1, 40, 100)


def test_blur_keeps_the_mean_of_a_constant_and_lowers_the_variance() -> None:
    x = torch.randn(1, 1, 12, 12)
    assert torch.allclose(blur(torch.ones(1, 1, 5, 5), 2), torch.ones(1, 1, 5, 5))
    assert blur(x, 2).var() < x.var()


def test_every_measure_names_a_task_and_scores_any_size() -> None:
    assert {m.task for m in MEASURES} <= set(INSTRUCT)
    assert Convolutions(3, 7)(torch.randn(2, 3, 33, 20)).shape == (2, 7)
