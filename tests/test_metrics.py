"""Numbers of other people's papers, tools and closed forms, reproduced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mio.evals.metrics.images import frechet_distance, psnr, ssim
from mio.evals.metrics.speech import cer, log_spectral_distance, mel_cepstral_distance, speaker_similarity, wer
from mio.evals.metrics.statistics import (
    average_ranks,
    kendall_tau,
    mean,
    paired_bootstrap,
    percentage_agreement,
    permutation,
)
from mio.evals.metrics.text import choice_by_letter, choice_by_likelihood, letter, vqa_accuracy, vqa_normal


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [  # jiwer's tests
        ("This is a test", "This test", 0.5, 5 / 14),
        ("This is a test", "", 1, 1),
        ("X", "X X Y Y", 3, 6),
        ("X Y X", "X Z", 2 / 3, 0.6),
        ("X", "Y Z", 2, 3),
    ],
)
def test_error_rates_are_jiwers(reference: str, hypothesis: str, words: float, characters: float) -> None:
    assert wer([hypothesis], [reference]).value == pytest.approx(words)
    assert cer([hypothesis], [reference]).value == pytest.approx(characters)


def test_error_rates_of_a_corpus_pool_errors_before_dividing() -> None:
    assert wer(["i am", "i good"], ["i", "am i good"]).value == 0.5
    assert cer(["i am", "i good"], ["i", "am i good"]).value == pytest.approx(0.6)
    with pytest.raises(ValueError, match="empty"):
        wer(["a"], [""])


@pytest.mark.parametrize(
    ("raw", "normal"),
    [("The Two dogs.", "2 dogs"), ("dont", "don't"), ("1,000", "1000"), ("black/white", "black white"), ("2.5", "2.5")],
)
def test_vqa_answers_lose_what_the_official_code_drops(raw: str, normal: str) -> None:
    assert vqa_normal(raw) == normal


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_of_ten_people(agreeing: int, accuracy: float) -> None:
    people = ["yes"] * agreeing + ["no"] * (10 - agreeing)
    assert vqa_accuracy(["Yes."], [people]).value == pytest.approx(accuracy)


@pytest.mark.parametrize(
    ("answer", "named"), [("B", "B"), ("(c) no", None), ("(C) no", "C"), ("The answer is D.", "D"), ("A cat", None)]
)
def test_letter_of_an_answer(answer: str, named: str | None) -> None:
    assert letter(answer, 4) == named


def test_multiple_choice() -> None:
    assert choice_by_likelihood([[-3, -1], [-1, -2]], [1, 1]).value == 0.5
    assert choice_by_letter(["B.", "none"], ["B", "A"], 4).value == 0.5


def test_spectral_distances_have_their_closed_form() -> None:
    ones = np.ones((3, 4))
    assert log_spectral_distance(10 * ones, ones) == pytest.approx(10)
    assert mel_cepstral_distance(np.array([[9.0, 1.0]]), np.array([[0.0, 0.0]])) == pytest.approx(
        6.141851
    )  # 10√2/ln 10
    assert speaker_similarity(np.eye(2), np.array([[2.0, 0], [1, 1]])).value == pytest.approx((1 + 0.5**0.5) / 2)


def test_picture_distances_have_their_closed_form() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 200, (24, 20, 3)).astype(np.uint8)
    assert psnr(a, a + np.uint8(5)) == pytest.approx(34.1514, abs=1e-4)  # 20 log10(255 / 5)
    assert psnr(a, a) == float("inf") and ssim(a, a) == pytest.approx(1)
    flat = np.full((16, 16), 100, np.uint8)
    expected = (2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025)
    assert ssim(flat, flat + np.uint8(20)) == pytest.approx(expected)


def test_frechet_distance_of_scaled_and_shifted_features() -> None:
    a = np.random.default_rng(0).normal(size=(50, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 3) == pytest.approx(36)
    assert frechet_distance(a - a.mean(0), 2 * (a - a.mean(0))) == pytest.approx(np.trace(np.cov(a.T)))


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(size=400)
    score, half = mean(values), 1.96 * values.std() / 20
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), abs=0.02)


def test_sign_flips_give_the_exact_p_value() -> None:
    """All of six differences positive: two of 64 sign patterns are as extreme."""
    assert permutation([1, 2, 3, 4, 5, 6], [0] * 6) == pytest.approx(2 / 64)
    ones: Sequence[float] = [1.0] * 40
    assert permutation(ones, [0.0] * 40) < 0.001 and permutation(ones, ones) == 1
    assert paired_bootstrap(ones, [0.0] * 40).low == 1


def test_agreement_of_people() -> None:
    assert percentage_agreement(np.array([[0, 1, 2], [0, 1, 1], [0, 2, 1]])) == pytest.approx((3 + 1 + 1) / 9)
    assert average_ranks(np.array([[[1, 2], [2, 1]], [[1, 2], [1, 2]]])).tolist() == [1.25, 1.75]
    assert kendall_tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452)  # SciPy's documentation
