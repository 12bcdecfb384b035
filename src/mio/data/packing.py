"""Which samples share a batch: mixtures drawn by weight, packed by best fit, in turns. Lengths in, plans out; numpy."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mio.types import MioError


class Draw(NamedTuple):
    """A sample (or a piece of one) that a group gave in one of its epochs, counted from 0."""

    number: int
    group: str
    epoch: int


Sized = tuple[Draw, int]  # with its tokens


def mixture(
    groups: Mapping[str, NDArray[np.int64]], lengths: NDArray[np.int64], shares: Mapping[str, float], seed: int
) -> Iterator[Draw]:
    """Draws without end: groups take turns so that tokens come out in `shares`; inside a group every sample comes once
    per epoch, in a new order each time. A group that `shares` does not name is left out.

    Raises:
        MioError: no group has both samples and a share.
    """
    names = [n for n in sorted(groups) if shares.get(n, 0) > 0 and len(groups[n])]
    rngs = {n: np.random.default_rng([seed, number]) for number, n in enumerate(sorted(groups))}
    if not names:
        tasks = ", ".join(n for n in sorted(groups) if len(groups[n]))
        raise MioError(f"No samples for {', '.join(sorted(shares))}.", fix=f"Tasks with samples: {tasks or 'none'}.")
    return _mixed({name: groups[name] for name in names}, lengths, shares, rngs)


def _mixed(
    groups: Mapping[str, NDArray[np.int64]],
    lengths: NDArray[np.int64],
    shares: Mapping[str, float],
    rngs: Mapping[str, np.random.Generator],
) -> Iterator[Draw]:
    queues: dict[str, list[int]] = {n: [] for n in groups}
    epochs, spent = dict.fromkeys(groups, -1), dict.fromkeys(groups, 0.0)
    while True:
        name = min(spent, key=spent.__getitem__)
        if not queues[name]:
            queues[name] = rngs[name].permutation(groups[name]).tolist()
            epochs[name] += 1
        sample = queues[name].pop()
        spent[name] += float(lengths[sample]) / shares[name]
        yield Draw(sample, name, epochs[name])


def best_fit(
    draws: Iterable[Draw], lengths: NDArray[np.int64], capacity: int, buffer: int = 64
) -> Iterator[list[Draw]]:
    """Packs of at most `capacity` tokens, until the draws end.

    A bounded buffer of draws waits; each goes into the open pack as soon as it is the longest that still fits. No
    draw of a group's next epoch is packed before the last one of this epoch.

    Raises:
        ValueError: a draw longer than the capacity.
    """
    source, waiting = iter(draws), _Waiting(lengths)
    while True:
        waiting.fill(source, buffer, capacity)
        if not len(waiting):
            return
        found: Sized | None = waiting.oldest()  # first, so that none waits for ever
        pack, room = list[Draw](), capacity
        while found is not None:
            draw, length = found
            pack.append(draw)
            room -= length
            waiting.fill(source, buffer, capacity)
            found = waiting.longest(room)
        yield pack


class _Waiting:
    """Draws by length, the oldest of equal ones last; those of a group's next epoch stay apart until its turn comes."""

    def __init__(self, lengths: NDArray[np.int64]) -> None:
        self.lengths = lengths
        self.draws: dict[int, Sized] = {}  # by the negative of their place in the order of arrival
        self.ready: list[tuple[int, int]] = []  # (length, key in draws), sorted
        self.left: defaultdict[str, int] = defaultdict(int)  # ready ones of every group
        self.later: defaultdict[str, deque[int]] = defaultdict(deque)
        self.now: dict[str, int] = {}  # epoch of the ready ones
        self.came = 0

    def __len__(self) -> int:
        return len(self.draws)

    def fill(self, source: Iterator[Draw], most: int, capacity: int) -> None:
        while len(self.draws) < most and (draw := next(source, None)) is not None:
            length = int(self.lengths[draw.number])
            if length > capacity:
                raise ValueError(f"Sample {draw.number} has {length} tokens, a pack holds {capacity}. Cut or drop it.")
            self.came -= 1
            self.draws[self.came] = (draw, length)
            if self.left[draw.group] and draw.epoch != self.now[draw.group]:
                self.later[draw.group].append(self.came)
            else:
                self._make_ready(self.came)

    def _make_ready(self, key: int) -> None:
        draw, length = self.draws[key]
        self.now[draw.group] = draw.epoch
        self.left[draw.group] += 1
        insort(self.ready, (length, key))

    def oldest(self) -> Sized:
        """It is always ready: what would have to go before it is older still."""
        key = next(iter(self.draws))
        return self._take(bisect_left(self.ready, (self.draws[key][1], key)))

    def longest(self, room: int) -> Sized | None:
        place = bisect_right(self.ready, (room, 0)) - 1
        return self._take(place) if place >= 0 else None

    def _take(self, place: int) -> Sized:
        draw, length = self.draws.pop(self.ready.pop(place)[1])
        self.left[draw.group] -= 1
        held = self.later[draw.group]
        while held and (not self.left[draw.group] or self.draws[held[0]][0].epoch == self.now[draw.group]):
            self._make_ready(held.popleft())
        return draw, length


def turns(counts: Mapping[str, int]) -> list[str]:
    """One turn in which every name comes `counts` times, spread evenly: the nth of k stands at (n + 1/2) / k of it."""
    places = [((2 * n + 1) / (2 * count), name) for name, count in sorted(counts.items()) for n in range(count)]
    return [name for _, name in sorted(places)]


def in_turns(packs: Mapping[str, Iterator[list[Draw]]], counts: Mapping[str, int]) -> Iterator[list[Draw]]:
    """Packs of several kinds, `counts` of each in every turn."""
    order = turns(counts)
    while True:
        for name in order:
            yield next(packs[name])


def cuts(inside: NDArray[np.bool_], capacity: int) -> list[tuple[int, int]]:
    """Stretches of at most `capacity` that a sample splits into; `inside` (n,): where no stretch may begin.

    As many tokens as possible go into each stretch but the last. [] where a whole does not fit.
    """
    free = np.concatenate([[0], np.flatnonzero(~inside[1:]) + 1])
    out, start = list[tuple[int, int]](), 0
    while len(inside) - start > capacity:
        stop = int(free[np.searchsorted(free, start + capacity, side="right") - 1])
        if stop <= start:
            return []
        out.append((start, stop))
        start = stop
    return [*out, (start, len(inside))]


def pieces(draws: Iterable[Draw], split: Mapping[int, Sequence[int]]) -> Iterator[Draw]:
    """Draws of samples -> draws of their pieces, in order; a sample that `split` does not name is its own piece."""
    for draw in draws:
        if (numbers := split.get(draw.number)) is None:
            yield draw
        else:
            yield from (draw._replace(number=number) for number in numbers)


def fill(packs: Sequence[Sequence[Draw]], lengths: NDArray[np.int64], capacity: int) -> float:
    """Share of the packs' room that holds tokens."""
    used = sum(int(lengths[draw.number]) for pack in packs for draw in pack)
    return used / (capacity * max(len(packs), 1))
