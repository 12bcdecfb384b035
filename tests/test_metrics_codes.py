"""evals/metrics/codes.py: likeness, probes and purity on codes made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mio.evals.metrics.codes import (
    Codes,
    features_likeness,
    histograms,
    likeness,
    linear_probe,
    nearest_label,
    purity,
    unit,
)

BATCHES = arrays(np.int64, st.tuples(*[st.integers(1, 4)] * 4), elements=st.integers(0, 5))


def media(count: int, seed: int = 0) -> tuple[list[Codes], list[str]]:
    """Two codebooks of 8; only the first knows the class, and only by the order of two codes."""
    rng = np.random.default_rng(seed)
    labels = [("up", "down")[i % 2] for i in range(count)]
    ends = {"up": [1] * 4 + [2] * 4, "down": [2] * 4 + [1] * 4}
    noise = rng.integers(0, 8, (count, 1, 1, 8))
    return [np.concatenate([np.array([[ends[b]]]), n], 1) for b, n in zip(labels, noise, strict=True)], labels


@given(BATCHES)
def test_likeness_is_a_gram_matrix_of_unit_vectors(batch: Codes) -> None:
    gram = likeness(list(batch))
    assert np.allclose(gram, gram.T) and np.allclose(np.diag(gram), 1)
    assert gram.min() >= 0 and gram.max() <= 1 + 1e-9
    assert np.linalg.eigvalsh(gram).min() > -1e-9


def test_likeness_by_hand() -> None:
    codes = [np.array([[[0, 1]]]), np.array([[[1, 0]]]), np.array([[[2, 3]]])]
    assert likeness(codes) == pytest.approx(np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))


def test_media_of_any_length_are_compared_third_by_third() -> None:
    short, long = np.array([[[0, 1, 2]]]), np.array([[[0, 0, 1, 1, 2, 2]]])
    assert likeness([short, long]) == pytest.approx(np.ones((2, 2)))
    assert likeness([short, long[..., ::-1]])[0, 1] == pytest.approx((1 + 1 / 3) / 2)


def test_histograms_count_codes_of_huge_codebooks() -> None:
    assert histograms([np.array([5, 5, 2**40]), np.array([], np.int64)]).tolist() == [[2, 1], [0, 0]]


def test_a_zero_vector_is_like_nothing() -> None:
    assert unit(np.zeros((2, 2))).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("read", [linear_probe, nearest_label])
def test_probes_read_the_order_of_codes(read: object) -> None:
    codes, labels = media(40)
    assert read(likeness(codes), labels[:30]) == labels[30:]  # type: ignore[operator]


def test_the_probe_is_ridge_regression_with_the_best_left_out_error() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5))
    labels = ["a" if v[0] + 0.3 * n > 0 else "b" for v, n in zip(x, rng.normal(size=60), strict=True)]
    gram = x @ x.T
    wanted = np.eye(2)[np.unique(labels[:40], return_inverse=True)[1]]
    centred, found = wanted - wanted.mean(0), []
    for strength in np.logspace(-4, 2, 13) * np.maximum(np.linalg.eigvalsh(gram[:40, :40]), 0).mean():
        errors = []
        for i in range(40):  # brute force: fit without item i, in the primal
            rest = [j for j in range(40) if j != i]
            w = np.linalg.solve(x[rest].T @ x[rest] + strength * np.eye(5), x[rest].T @ centred[rest])
            errors.append(((x[i] @ w - centred[i]) ** 2).mean())
        w = np.linalg.solve(x[:40].T @ x[:40] + strength * np.eye(5), x[:40].T @ centred)
        found.append((np.mean(errors), [("a", "b")[k] for k in (x[40:] @ w + wanted.mean(0)).argmax(1)]))
    assert linear_probe(gram, labels[:40]) == min(found, key=lambda pair: pair[0])[1]


def test_standard_features_are_compared_by_cosine() -> None:
    features = np.array([[1.0, 100, 7], [3, 300, 7], [2, 200, 7], [4, 400, 7]])
    assert features_likeness(features, 3)[0, 1] == pytest.approx(-1)
    assert features_likeness(features, 3)[1, 3] == pytest.approx(1)


def test_purity_by_hand() -> None:
    codes = [np.array([0, 0, 1]), np.array([1, 1, 2]), np.array([0, 1, 9]), np.array([2, 2])]
    score = purity(codes, ["a", "b", "a", "b"], 2)
    assert score.value == pytest.approx((1 + 2) / 5) and score.n == 2  # code 9 was never met


def test_purity_is_that_of_manning_raghavan_and_schutze() -> None:
    """Introduction to Information Retrieval, 2008, figure 16.4: seventeen things in three clusters, 0.71."""
    clusters = np.array([0] * 6 + [1] * 6 + [2] * 5)
    codes, labels = [np.array([c]) for c in clusters], list("xxxxxo" + "xoooo#" + "xx###")
    assert purity(codes * 2, labels * 2, 17).value == pytest.approx(12 / 17)


def test_purity_of_codes_that_say_nothing_is_chance() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 400, 20) for _ in range(400)]
    labels = [str(i % 10) for i in range(400)]
    assert purity(codes, labels, 200).value == pytest.approx(0.1, abs=0.02)
