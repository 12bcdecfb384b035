"""data/packing.py: no sample is lost, doubled or cut, packs are full, and tasks come in their shares."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio.data.packing import best_fit, fill, mixture
from mio.types import MioError

lengths_of = st.lists(st.integers(1, 50), min_size=1, max_size=40).map(np.array)


def grouped(count: int, groups: int) -> dict[str, np.ndarray]:
    return {f"task{g}": np.arange(count)[np.arange(count) % groups == g] for g in range(groups)}


@given(lengths_of, st.integers(0, 99), st.integers(1, 3))
def test_every_sample_comes_once_per_epoch(lengths: np.ndarray, seed: int, epochs: int) -> None:
    drawn = list(islice(mixture({"all": np.arange(len(lengths))}, lengths, {"all": 1.0}, seed), epochs * len(lengths)))
    for epoch in range(epochs):
        assert sorted(drawn[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))


@given(lengths_of, st.integers(2, 4), st.integers(0, 99))
def test_every_sample_of_a_group_comes_once_per_epoch_of_its_group(lengths: np.ndarray, count: int, seed: int) -> None:
    groups = grouped(len(lengths), count)
    shares = {name: float(n + 1) for n, name in enumerate(groups)}
    drawn = list(islice(mixture(groups, lengths, shares, seed), 300))
    for members in groups.values():
        mine = [s for s in drawn if s in members]
        for start in range(0, len(mine) - len(members) + 1, max(1, len(members))):
            assert sorted(mine[start : start + len(members)]) == members.tolist()


@given(lengths_of, st.integers(50, 120), st.integers(1, 30), st.integers(1, 70))
def test_packing_takes_samples_in_turn_and_loses_and_doubles_none(
    lengths: np.ndarray, capacity: int, packs: int, buffer: int
) -> None:
    drawn: list[int] = []

    def samples():
        for sample in mixture({"all": np.arange(len(lengths))}, lengths, {"all": 1.0}, 0):
            drawn.append(sample)
            yield sample

    out = best_fit(samples(), lengths, capacity, packs, buffer)
    packed, waiting = sorted(s for pack in out for s in pack), sorted(drawn)
    for sample in packed:
        waiting.remove(sample)  # raises if it was packed more often than drawn
    assert len(waiting) <= buffer
    assert len(out) == packs
    assert all(pack for pack in out)
    assert max(int(lengths[pack].sum()) for pack in out) <= capacity


@pytest.mark.parametrize("seed", range(3))
def test_packs_of_2800_are_97_per_cent_full_on_lengths_from_50_to_800(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(50, 801, 3000)
    packs = best_fit(mixture({"all": np.arange(3000)}, lengths, {"all": 1.0}, seed), lengths, 2800, 200)
    assert fill(packs, lengths, 2800) >= 0.97


def test_no_sample_waits_for_ever() -> None:
    lengths = np.array([7, *[5] * 999])  # sevens fit only where a pack begins
    packs = best_fit(iter(range(1000)), lengths, 10, 80)
    assert 0 in packs[0]


@given(st.lists(st.floats(0.2, 5), min_size=2, max_size=4), st.integers(0, 99))
def test_tokens_come_out_in_the_shares_asked_for(weights: list[float], seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(5, 60, 400)
    groups = grouped(400, len(weights))
    shares = dict(zip(groups, weights, strict=True))
    drawn = np.array(list(islice(mixture(groups, lengths, shares, seed), 4000)))
    total = lengths[drawn].sum()
    for name, members in groups.items():
        got = lengths[drawn[np.isin(drawn, members)]].sum() / total
        assert got == pytest.approx(shares[name] / sum(weights), abs=0.02)


def test_packed_tokens_come_out_in_the_shares_asked_for() -> None:
    lengths = np.concatenate([np.full(300, 40), np.full(300, 400)])
    groups = {"short": np.arange(300), "long": np.arange(300, 600)}
    packs = best_fit(mixture(groups, lengths, {"short": 1.0, "long": 3.0}, 0), lengths, 2800, 120)
    flat = np.concatenate(packs)
    assert lengths[flat[flat < 300]].sum() / lengths[flat].sum() == pytest.approx(0.25, abs=0.02)


def test_a_group_that_has_no_share_or_no_samples_is_left_out() -> None:
    groups = {"a": np.array([0, 1]), "b": np.array([2]), "c": np.array([], int), "d": np.array([3])}
    drawn = list(islice(mixture(groups, np.ones(4, int), {"a": 1.0, "c": 1.0, "d": 0.0, "none": 2.0}, 0), 20))
    assert set(drawn) == {0, 1}


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(MioError, match="No samples for b") as caught:
        best_fit(mixture({"a": np.array([0])}, np.ones(1, int), {"b": 1.0}, 0), np.ones(1, int), 10, 1)
    assert caught.value.fix == "Tasks with samples: a."


def test_plans_are_the_same_for_the_same_seed_and_differ_for_others() -> None:
    lengths = np.random.default_rng(0).integers(50, 801, 500)

    def plan(seed: int) -> list[list[int]]:
        groups = grouped(500, 3)
        return best_fit(mixture(groups, lengths, dict.fromkeys(groups, 1.0), seed), lengths, 2800, 40)

    assert plan(1) == plan(1) != plan(2)


def test_a_groups_order_does_not_depend_on_the_other_shares() -> None:
    groups, lengths = grouped(30, 3), np.ones(30, int)

    def order_of(shares: dict[str, float]) -> list[int]:
        return [s for s in islice(mixture(groups, lengths, shares, 5), 60) if s in groups["task1"]][:10]

    assert order_of({"task1": 1.0}) == order_of({"task0": 2.0, "task1": 1.0, "task2": 1.0})


def test_a_sample_longer_than_a_pack_is_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match="Sample 1 has 11 tokens, a pack holds 10"):
        best_fit(iter([0, 1]), np.array([3, 11]), 10, 1)
