"""Which samples share a batch: a mixture drawn by weight, packed by best fit. Lengths in, plans out; plain numpy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mio.types import MioError


def mixture(
    groups: Mapping[str, NDArray[np.int64]], lengths: NDArray[np.int64], shares: Mapping[str, float], seed: int
) -> Iterator[int]:
    """Sample numbers without end: groups take turns so that tokens come out in `shares`; inside a group every sample
    comes once per epoch, in a new order each time. A group that `shares` does not name is left out."""
    names = [n for n in sorted(groups) if shares.get(n, 0) > 0 and len(groups[n])]
    rngs = {n: np.random.default_rng([seed, number]) for number, n in enumerate(sorted(groups))}
    queues: dict[str, list[int]] = {n: [] for n in names}
    spent = dict.fromkeys(names, 0.0)
    if not names:
        tasks = ", ".join(n for n in sorted(groups) if len(groups[n]))
        raise MioError(f"No samples for {', '.join(sorted(shares))}.", fix=f"Tasks with samples: {tasks or 'none'}.")
    while True:
        name = min(names, key=lambda n: spent[n])
        if not queues[name]:
            queues[name] = rngs[name].permutation(groups[name]).tolist()
        sample = queues[name].pop()
        spent[name] += float(lengths[sample]) / shares[name]
        yield sample


def best_fit(
    samples: Iterator[int], lengths: NDArray[np.int64], capacity: int, packs: int, buffer: int = 64
) -> list[list[int]]:
    """`packs` lists of samples of at most `capacity` tokens each.

    A bounded buffer of samples waits; each goes into the open pack as soon as it is the longest that still fits.

    Raises:
        ValueError: a sample longer than the capacity.
    """
    waiting: list[int] = []
    out: list[list[int]] = []
    while len(out) < packs:
        pack: list[int] = []
        room = capacity
        while True:
            while len(waiting) < buffer:
                waiting.append(_checked(next(samples), lengths, capacity))
            if not pack:  # the oldest goes first, so that no sample waits for ever
                choice = 0
            else:
                choice = max(range(len(waiting)), key=lambda i: _fit(int(lengths[waiting[i]]), room))
                if lengths[waiting[choice]] > room:
                    break
            sample = waiting.pop(choice)
            pack.append(sample)
            room -= int(lengths[sample])
        out.append(pack)
    return out


def _fit(length: int, room: int) -> int:
    return length if length <= room else -1


def _checked(sample: int, lengths: NDArray[np.int64], capacity: int) -> int:
    if lengths[sample] > capacity:
        raise ValueError(
            f"Sample {sample} has {lengths[sample]} tokens, a pack holds {capacity}. Cut or drop it first."
        )
    return sample


def fill(packs: Sequence[Sequence[int]], lengths: NDArray[np.int64], capacity: int) -> float:
    """Share of the packs' room that holds tokens."""
    used = sum(int(lengths[s]) for pack in packs for s in pack)
    return used / (capacity * max(len(packs), 1))
