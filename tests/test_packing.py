"""data/packing.py: no sample is lost, doubled or cut, packs are full, and tasks come in their shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mio.data.packing import Draw, best_fit, cuts, fill, in_turns, mixture, pieces, turns
from mio.types import MioError

lengths_of = st.lists(st.integers(1, 50), min_size=1, max_size=40).map(np.array)


def numbers(draws: Iterable[Draw]) -> list[int]:
    return [draw.number for draw in draws]


def endless(lengths: np.ndarray, seed: int = 0) -> Iterator[Draw]:
    return mixture({"all": np.arange(len(lengths))}, lengths, {"all": 1.0}, seed)


def grouped(count: int, groups: int) -> dict[str, np.ndarray]:
    return {f"task{g}": np.arange(count)[np.arange(count) % groups == g] for g in range(groups)}


@given(lengths_of, st.integers(0, 99), st.integers(1, 3))
def test_every_sample_comes_once_per_epoch(lengths: np.ndarray, seed: int, epochs: int) -> None:
    drawn = numbers(islice(endless(lengths, seed), epochs * len(lengths)))
    for epoch in range(epochs):
        assert sorted(drawn[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))


@given(lengths_of, st.integers(2, 4), st.integers(0, 99))
def test_every_sample_of_a_group_comes_once_per_epoch_of_its_group(lengths: np.ndarray, count: int, seed: int) -> None:
    groups = grouped(len(lengths), count)
    shares = {name: float(n + 1) for n, name in enumerate(groups)}
    drawn = numbers(islice(mixture(groups, lengths, shares, seed), 300))
    for members in groups.values():
        mine = [s for s in drawn if s in members]
        for start in range(0, len(mine) - len(members) + 1, max(1, len(members))):
            assert sorted(mine[start : start + len(members)]) == members.tolist()


@given(lengths_of, st.integers(50, 120), st.integers(1, 30), st.integers(1, 70))
def test_packing_takes_samples_in_turn_and_loses_and_doubles_none(
    lengths: np.ndarray, capacity: int, packs: int, buffer: int
) -> None:
    drawn: list[Draw] = []

    def draws() -> Iterator[Draw]:
        for draw in endless(lengths):
            drawn.append(draw)
            yield draw

    out = list(islice(best_fit(draws(), lengths, capacity, buffer), packs))
    waiting = sorted(drawn)
    for draw in sorted(d for pack in out for d in pack):
        waiting.remove(draw)  # raises if it was packed more often than drawn
    assert len(waiting) <= buffer
    assert len(out) == packs
    assert all(pack for pack in out)
    assert max(int(lengths[numbers(pack)].sum()) for pack in out) <= capacity


@given(lengths_of, st.integers(50, 120), st.integers(1, 3), st.integers(1, 70), st.integers(0, 9))
def test_no_epoch_of_a_group_is_packed_before_the_one_before_it_ends(
    lengths: np.ndarray, capacity: int, count: int, buffer: int, seed: int
) -> None:
    groups = grouped(len(lengths), count)
    drawn = mixture(groups, lengths, dict.fromkeys(groups, 1.0), seed)
    packed = [draw for pack in islice(best_fit(drawn, lengths, capacity, buffer), 40) for draw in pack]
    for name, members in groups.items():
        mine = numbers(draw for draw in packed if draw.group == name)
        for start in range(0, len(mine), max(1, len(members))):
            epoch = mine[start : start + len(members)]
            assert len(set(epoch)) == len(epoch) and set(epoch) <= set(members.tolist())


@given(lengths_of, st.integers(50, 120), st.integers(1, 70))
def test_draws_that_end_are_all_packed(lengths: np.ndarray, capacity: int, buffer: int) -> None:
    drawn = list(islice(endless(lengths), 2 * len(lengths)))
    packed = [draw for pack in best_fit(drawn, lengths, capacity, buffer) for draw in pack]
    assert sorted(packed) == sorted(drawn)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=1))
def test_a_turn_holds_every_kind_as_often_as_asked_and_spread_evenly(counts: dict[str, int]) -> None:
    turn = turns(counts)
    assert {name: turn.count(name) for name in counts} == counts
    for name, count in counts.items():
        for half in range(1, len(turn)):
            assert abs(turn[:half].count(name) - count * half / len(turn)) < len(counts)


def test_kinds_take_turns_with_packs_of_their_own() -> None:
    lengths = np.array([3, 5])
    groups = {"a": np.array([0]), "b": np.array([1])}
    streams = {name: best_fit(mixture(groups, lengths, {name: 1.0}, 0), lengths, 10) for name in groups}
    out = list(islice(in_turns(streams, {"a": 2, "b": 1}), 9))
    assert [pack[0].group for pack in out].count("b") == 3
    assert all(len({draw.group for draw in pack}) == 1 for pack in out)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=30), st.integers(6, 40))
def test_cuts_cover_a_sample_and_fall_into_no_span(spans: list[tuple[int, int]], capacity: int) -> None:
    inside = np.concatenate([np.r_[np.zeros(text, bool), np.ones(span, bool)] for text, span in spans])
    found = cuts(inside, capacity)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == len(inside)
    assert not any(inside[start] for start, _ in found)
    assert max(stop - start for start, stop in found) <= capacity
    for (start, stop), (_, after) in pairwise(found):
        free = np.flatnonzero(~inside[stop + 1 : after + 1]) + stop + 1
        assert not len(free) or free[0] - start > capacity  # no more would have fitted


def test_a_span_longer_than_a_pack_is_not_cut() -> None:
    assert cuts(np.array([0, 1, 1, 1, 0], bool), 3) == []
    assert cuts(np.array([0, 1, 1, 1, 0], bool), 4) == [(0, 4), (4, 5)]


def test_a_sample_gives_its_pieces_in_order_and_one_left_out_gives_none() -> None:
    drawn = [Draw(n, "all", 0) for n in range(3)]
    assert numbers(pieces(drawn, {0: range(7, 9), 1: ()})) == [7, 8, 2]


@pytest.mark.parametrize("seed", range(3))
def test_packs_of_2800_are_97_per_cent_full_on_lengths_from_50_to_800(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(50, 801, 3000)
    packs = list(islice(best_fit(endless(lengths, seed), lengths, 2800), 200))
    assert fill(packs, lengths, 2800) >= 0.97


def test_no_sample_waits_for_ever() -> None:
    lengths = np.array([7, *[5] * 999])  # sevens fit only where a pack begins
    packs = best_fit((Draw(n, "all", 0) for n in range(1000)), lengths, 10)
    assert 0 in numbers(next(packs))


@given(st.lists(st.floats(0.2, 5), min_size=2, max_size=4), st.integers(0, 99))
def test_tokens_come_out_in_the_shares_asked_for(weights: list[float], seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(5, 60, 400)
    groups = grouped(400, len(weights))
    shares = dict(zip(groups, weights, strict=True))
    drawn = np.array(numbers(islice(mixture(groups, lengths, shares, seed), 4000)))
    total = lengths[drawn].sum()
    for name, members in groups.items():
        got = lengths[drawn[np.isin(drawn, members)]].sum() / total
        assert got == pytest.approx(shares[name] / sum(weights), abs=0.02)


def test_packed_tokens_come_out_in_the_shares_asked_for() -> None:
    lengths = np.concatenate([np.full(300, 40), np.full(300, 400)])
    groups = {"short": np.arange(300), "long": np.arange(300, 600)}
    packs = islice(best_fit(mixture(groups, lengths, {"short": 1.0, "long": 3.0}, 0), lengths, 2800), 120)
    flat = np.array(numbers(draw for pack in packs for draw in pack))
    assert lengths[flat[flat < 300]].sum() / lengths[flat].sum() == pytest.approx(0.25, abs=0.02)


def test_a_group_that_has_no_share_or_no_samples_is_left_out() -> None:
    groups = {"a": np.array([0, 1]), "b": np.array([2]), "c": np.array([], int), "d": np.array([3])}
    drawn = islice(mixture(groups, np.ones(4, int), {"a": 1.0, "c": 1.0, "d": 0.0, "none": 2.0}, 0), 20)
    assert set(numbers(drawn)) == {0, 1}


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(MioError, match="No samples for b") as caught:
        mixture({"a": np.array([0])}, np.ones(1, int), {"b": 1.0}, 0)
    assert caught.value.fix == "Tasks with samples: a."


def test_plans_are_the_same_for_the_same_seed_and_differ_for_others() -> None:
    lengths = np.random.default_rng(0).integers(50, 801, 500)

    def plan(seed: int) -> list[list[Draw]]:
        groups = grouped(500, 3)
        return list(islice(best_fit(mixture(groups, lengths, dict.fromkeys(groups, 1.0), seed), lengths, 2800), 40))

    assert plan(1) == plan(1) != plan(2)


def test_a_groups_order_does_not_depend_on_the_other_shares() -> None:
    groups, lengths = grouped(30, 3), np.ones(30, int)

    def order_of(shares: dict[str, float]) -> list[int]:
        return numbers(d for d in islice(mixture(groups, lengths, shares, 5), 60) if d.group == "task1")[:10]

    assert order_of({"task1": 1.0}) == order_of({"task0": 2.0, "task1": 1.0, "task2": 1.0})


def test_a_sample_longer_than_a_pack_is_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match="Sample 1 has 11 tokens, a pack holds 10"):
        list(best_fit([Draw(0, "all", 0), Draw(1, "all", 0)], np.array([3, 11]), 10))
