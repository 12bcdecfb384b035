"""decoding/sampling.py: which ids can be chosen, and how often."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch.testing import assert_close

from mio.decoding.sampling import GREEDY, Sampling, choose, guided
from mio.types import MioError

ALL = torch.arange(5)
LOGITS = torch.log(torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]))


def draw(logits: Tensor, c: Sampling, allowed: Tensor = ALL, count: int = 400, seen: Tensor | None = None) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return [choose(logits, allowed, c, generator, seen) for _ in range(count)]


logits = hnp.arrays(np.float32, 12, elements=st.floats(-10, 10, width=32)).map(torch.from_numpy)
allowed = st.lists(st.integers(0, 11), min_size=1, unique=True).map(torch.tensor)


@given(logits, allowed)
def test_greedy_is_the_best_allowed_id(logits: Tensor, allowed: Tensor) -> None:
    best = choose(logits, allowed, GREEDY, torch.Generator())
    assert best in allowed
    assert logits[best] == logits[allowed].max()


@given(
    logits,
    allowed,
    st.just(0.0) | st.floats(1e-6, 3),
    st.floats(0, 1),
    st.integers(0, 12),
    st.floats(0.5, 2),
    st.integers(0, 99),
)
def test_only_allowed_ids_are_chosen(
    logits: Tensor, allowed: Tensor, temperature: float, top_p: float, top_k: int, penalty: float, seed: int
) -> None:
    c = Sampling(temperature, top_p, top_k, penalty)
    assert choose(logits, allowed, c, torch.Generator().manual_seed(seed), torch.tensor([0, 3])) in allowed


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.0, {1}),
        (0.39, {1}),
        (0.41, {1, 3}),
        (0.69, {1, 3}),
        (0.71, {1, 3, 4}),
        (0.96, {0, 1, 2, 3, 4}),
        (1.0, {0, 1, 2, 3, 4}),
    ],
)
def test_top_p_keeps_the_smallest_set_that_holds_p(top_p: float, expected: set[int]) -> None:
    assert set(draw(LOGITS, Sampling(top_p=top_p))) == expected


@pytest.mark.parametrize(("top_k", "expected"), [(0, set(range(5))), (1, {1}), (3, {1, 3, 4}), (9, set(range(5)))])
def test_top_k_keeps_the_k_likeliest(top_k: int, expected: set[int]) -> None:
    assert set(draw(LOGITS, Sampling(top_p=1.0, top_k=top_k))) == expected


@pytest.mark.parametrize(("min_p", "expected"), [(0.0, set(range(5))), (0.3, {1, 3, 4}), (0.5, {1, 3}), (1.0, {1})])
def test_min_p_keeps_what_has_that_share_of_the_likeliest(min_p: float, expected: set[int]) -> None:
    assert set(draw(LOGITS, Sampling(top_p=1.0, min_p=min_p))) == expected


def test_min_p_is_the_one_of_transformers() -> None:
    process = importlib.import_module("transformers").MinPLogitsWarper(0.15)
    logits = 3 * torch.randn(50)
    kept = torch.isfinite(process(torch.zeros(1, 1), logits[None].clone())[0])
    drawn = draw(logits, Sampling(top_p=1.0, min_p=0.15), torch.arange(50), 1000)
    assert set(drawn) == set(kept.nonzero()[:, 0].tolist())


def test_guidance_leads_away_from_what_is_said_without_the_condition() -> None:
    told, untold = LOGITS, LOGITS.flip(0)
    assert_close(guided(torch.stack([told, untold]), 1.0), told.log_softmax(0))
    assert_close(guided(torch.stack([told, untold]), 0.0), untold.log_softmax(0))
    assert_close(guided(torch.stack([told, untold]), 3.0), 3 * told.log_softmax(0) - 2 * untold.log_softmax(0))
    assert_close(guided(torch.stack([told, told]), 7.0), told.log_softmax(0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_p", 1.1),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
        ("min_p", 2.0),
        ("guidance", -1.0),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(MioError, match=f"A {name} of {value} means nothing"):
        Sampling(**{name: value})


def test_the_nucleus_is_taken_among_allowed_ids_only() -> None:
    assert set(draw(LOGITS, Sampling(top_p=0.5), torch.tensor([0, 2, 4]))) == {4}  # 0.5 of what is allowed


def test_shares_follow_probabilities_at_a_temperature() -> None:
    counts = np.bincount(draw(LOGITS, Sampling(temperature=2.0, top_p=1.0), count=2000), minlength=5) / 2000
    assert_close(torch.from_numpy(counts), (LOGITS / 2).softmax(0).double(), atol=0.04, rtol=0)


@pytest.mark.parametrize(
    ("scores", "penalty", "expected"),
    [
        ([2.0, 1.5, 0.0, 0.0, 0.0], 1.3, 0),  # 2 / 1.3 > 1.5
        ([2.0, 1.6, 0.0, 0.0, 0.0], 1.3, 1),  # 2 / 1.3 < 1.6
        ([-1.0, -1.4, -9.0, -9.0, -9.0], 1.3, 0),  # -1 * 1.3 > -1.4
        ([-1.0, -1.2, -9.0, -9.0, -9.0], 1.3, 1),  # -1 * 1.3 < -1.2
        ([2.0, 1.9, 0.0, 0.0, 0.0], 1.0, 0),
        ([1.6, 2.0, 0.0, 0.0, 0.0], 0.7, 0),  # 1.6 / 0.7 > 2
    ],
)
def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_not(
    scores: list[float], penalty: float, expected: int
) -> None:
    given_ = torch.tensor(scores)
    c = Sampling(temperature=0.0, repetition_penalty=penalty)
    assert choose(given_, ALL, c, torch.Generator(), torch.tensor([0])) == expected
    assert_close(given_, torch.tensor(scores), rtol=0, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("c", [GREEDY, Sampling()])
def test_logits_that_are_not_finite_are_refused(bad: float, c: Sampling) -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose(torch.tensor([0.0, bad, 1.0]), torch.arange(3), c, torch.Generator())


def test_a_lone_allowed_id_whose_logit_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose(torch.tensor([0.0, float("nan")]), torch.tensor([1]), Sampling(), torch.Generator())


def test_minus_infinity_is_never_chosen_but_refused_when_alone() -> None:
    masked = torch.tensor([float("-inf"), 0.0, float("-inf"), 1.0, 0.5])
    assert set(draw(masked, Sampling(top_p=1.0))) == {1, 3, 4}
    with pytest.raises(ValueError, match="not finite"):
        choose(masked, torch.tensor([0, 2]), GREEDY, torch.Generator())


def test_a_damaged_logit_of_a_forbidden_id_does_no_harm() -> None:
    assert choose(torch.tensor([float("nan"), 1.0]), torch.tensor([1]), Sampling(), torch.Generator()) == 1


def test_the_same_seed_makes_the_same_ids_and_another_one_others() -> None:
    flat = torch.zeros(1000)
    ids = [choose(flat, torch.arange(1000), Sampling(), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


def test_bf16_logits_are_sampled_in_fp32() -> None:
    assert set(draw(LOGITS.bfloat16(), Sampling(top_p=0.41))) == {1, 3}
