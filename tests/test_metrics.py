"""Numbers of other people's papers, tools and closed forms, reproduced."""

from __future__ import annotations

import numpy as np
import pytest

from mio.evals.metrics.images import frechet_distance, psnr, ssim
from mio.evals.metrics.speech import (
    cer,
    log_spectral_distance,
    mel_cepstral_distance,
    speaker_similarity,
    spoken_words,
    wer,
)
from mio.evals.metrics.statistics import (
    kendall_tau,
    mean,
    paired,
    percentage_agreement,
    ratio,
)
from mio.evals.metrics.text import letter, vqa_accuracy, vqa_normal


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
    [
        ("The Two dogs.", "2 dogs"),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("black/white", "black white"),
        ("2.5", "2.5"),
        ("U.S. , none", "us 0"),
        ("t-shirt", "t shirt"),
        ("red ;blue", "red blue"),
        ("couldn'tve", "couldn't've"),
        ("Im", "im"),
        ("shes", "shes"),
        ("somebody'd", "somebodyd"),
        ("yall'd've", "y'all'd've"),
        ("'ow'sat", "'ow's'at"),
    ],
)
def test_vqa_answers_lose_what_the_official_code_drops(raw: str, normal: str) -> None:
    """What vqaEval.py of the VQA challenge gives."""
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


def test_spectral_distances_have_their_closed_form() -> None:
    ones = np.ones((3, 4))
    assert log_spectral_distance(10 * ones, ones) == pytest.approx(10)
    once = mel_cepstral_distance(np.array([[9.0, 1.0]]), np.array([[0.0, 0.0]]))
    assert once == pytest.approx(6.141851)  # Kubichek's constant, 10√2/ln 10
    a, b = np.array([[1.0, 0, 0], [100, 0, 0], [1, 1, 0]]), np.array([[0.0, 1, 0]] * 3)
    found = [speaker_similarity(x[None], y[None]).value for x, y in zip(a, b, strict=True)]
    assert found == pytest.approx([0, 0, 1 - 0.29289321881345254])  # SciPy's documentation, distance.cosine


def test_picture_distances_have_their_closed_form() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 200, (24, 20, 3)).astype(np.uint8)
    assert psnr(a, a + np.uint8(5)) == pytest.approx(34.1514, abs=1e-4)  # 20 log10(255 / 5)
    assert psnr(a, a) == float("inf") and ssim(a, a) == pytest.approx(1)
    flat = np.full((16, 16), 100, np.uint8)
    expected = (2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025)
    assert ssim(flat, flat + np.uint8(20)) == pytest.approx(expected)


def test_picture_distances_are_those_of_scikit_image() -> None:
    """Version 0.26; structural_similarity with Gaussian weights, sigma 1.5, and the population's covariance."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :52]
    waves = np.sin(x / 5)[..., None] * np.cos(y / 7)[..., None] * np.array([1, 0.5, -0.8])
    a = (120 + 100 * waves).astype(np.uint8)
    b = (a + rng.normal(0, 25, a.shape)).clip(0, 255).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(20.23290112943635)
    assert ssim(a, b) == pytest.approx(0.3865884286869375)
    assert ssim(a[..., 0], b[..., 0]) == pytest.approx(0.49785334568707107)


def test_frechet_distance_is_that_of_a_matrix_root() -> None:
    """By scipy.linalg.sqrtm, as the published FID code has it (SciPy 1.17)."""
    rng = np.random.default_rng(0)
    rng.normal(0, 25, (40, 52, 3))
    u, v = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(80, 5)) * 2 + 1
    assert frechet_distance(u, v) == pytest.approx(12.841246880655454)


def test_frechet_distance_of_scaled_and_shifted_features() -> None:
    a = np.random.default_rng(0).normal(size=(50, 4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 3) == pytest.approx(36)
    assert frechet_distance(a - a.mean(0), 2 * (a - a.mean(0))) == pytest.approx(np.trace(np.cov(a.T)))


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(size=400)
    score, half = mean(values), 1.96 * values.std() / 20
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), abs=0.02)


DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]  # crossed less self-fertilised maize, 1/8 inch


def test_exchanging_gives_fishers_p_value() -> None:
    """1,726 of 32,768 ways are as extreme (R. A. Fisher, The Design of Experiments, 1935, section 21)."""
    heights = np.stack([np.array(DARWIN, np.float64), np.ones(15)], axis=1)
    found = paired(heights, heights * [0, 1], draws=2**15)
    assert found.p == 1726 / 32768 and found.value == pytest.approx(314 / 15)


def test_people_agree_as_published() -> None:
    coder = [*["stat"] * 46, *["ireq"] * 32, *["chck"] * 10, *["stat"] * 12]
    other = [*coder[:88], *["ireq"] * 12]
    both = np.unique([coder, other], return_inverse=True)[1].reshape(2, -1)
    assert percentage_agreement(both) == pytest.approx(0.88)  # Artstein and Poesio, 2008, table 1
    assert percentage_agreement(np.array([[0, 1, 2], [0, 1, 1], [0, 2, 1]])) == pytest.approx((3 + 1 + 1) / 9)
    assert kendall_tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452)  # SciPy's documentation


def points(count: int, seed: int) -> np.ndarray:
    """Items that do not count alike: some points of up to nine each."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 10, count)
    return np.stack([rng.integers(0, weights + 1), weights], axis=1).astype(np.float64)


def test_a_quotient_of_sums_is_the_error_rate_of_the_corpus() -> None:
    texts, references = ["a b c", "x", "one two"], ["a b d", "x y", "one two"]
    rows = np.array([(1, 3), (1, 2), (0, 2)], np.float64)
    assert ratio(rows).value == pytest.approx(wer(texts, references).value) == pytest.approx(2 / 7)
    assert ratio(rows).low <= 2 / 7 <= ratio(rows).high


def test_exchanges_by_chance_are_near_all_of_them() -> None:
    heights = np.stack([np.array(DARWIN, np.float64), np.ones(15)], axis=1)
    assert paired(heights, heights * [0, 1], draws=8000).p == pytest.approx(0.0527, abs=0.01)


def quotient(rows: np.ndarray) -> float:
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def test_exchanges_of_items_that_do_not_count_alike_are_all_tried() -> None:
    a, b = points(8, 0), points(8, 1)
    found = paired(a, b)
    ways = [[(n >> k) & 1 for k in range(8)] for n in range(256)]
    mixed = [np.where(np.array(w)[:, None] == 1, a, b) for w in ways]
    others = [np.where(np.array(w)[:, None] == 1, b, a) for w in ways]
    beyond = [abs(quotient(m) - quotient(o)) >= abs(found.value) - 1e-12 for m, o in zip(mixed, others, strict=True)]
    assert found.p == pytest.approx(np.mean(beyond)) and found.value == pytest.approx(quotient(a) - quotient(b))


def test_a_difference_is_the_other_way_round_when_systems_are() -> None:
    a, b = points(60, 2), points(60, 3)
    one, other = paired(a, b, draws=500), paired(b, a, draws=500)
    assert one.value == -other.value and (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert paired(a, a, draws=500).p == 1
    with pytest.raises(ValueError, match="are paired with"):
        paired(a, b[:5])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("SAY SEVEN", "say seven"),
        ("Um, it's \"Mr. O'Brien's\" dog -- isn’t it?", "it's mr o'brien's dog isn't it"),
        ("well [laughs] (coughs) yes", "well yes"),
        ("'quoted' words'", "quoted words"),
        ("...", ""),
    ],
)
def test_spoken_words_are_compared_without_what_nobody_says(said: str, words: str) -> None:
    assert spoken_words(said) == words.split()
