"""What a sample must be to be trained on, and an account of what was dropped. Plain numpy; knows no model, no file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mio.types import Audio, Image

T = TypeVar("T")


@dataclass
class Filter(Generic[T]):
    """Keeps what has no reason to go. `reason` says why a thing goes, or "" when it stays."""

    name: str
    reason: Callable[[T], str]
    most_examples: int = 5
    seen: int = 0
    dropped: int = 0
    examples: list[tuple[T, str]] = field(default_factory=list)  # the first few that went, and why

    def __call__(self, things: Iterable[T]) -> Iterator[T]:
        for thing in things:
            self.seen += 1
            if not (why := self.reason(thing)):
                yield thing
                continue
            self.dropped += 1
            if len(self.examples) < self.most_examples:
                self.examples.append((thing, why))


def aspect(most: float = 2.0) -> Callable[[Image], str]:
    """MIO drops images longer than 2:1."""

    def reason(image: Image) -> str:
        height, width = image.pixels.shape[:2]
        ratio = max(height, width) / min(height, width)
        return f"aspect {ratio:.2f}:1 > {most:g}:1" if ratio > most else ""

    return reason


def side(least: int = 224) -> Callable[[Image], str]:
    """MIO drops images whose shorter side is below 224 pixels."""

    def reason(image: Image) -> str:
        shorter = min(image.pixels.shape[:2])
        return f"side {shorter} < {least}" if shorter < least else ""

    return reason


def score(scorer: Callable[[T], float], least: float) -> Callable[[T], str]:
    """Keeps what scores `least` or more (CLIP: .27 for pairs, .25 interleaved); a score of NaN goes."""

    def reason(thing: T) -> str:
        value = scorer(thing)
        return "" if value >= least else f"score {value:.3f} < {least:g}"

    return reason


def seconds(most: float = 15.0) -> Callable[[Audio], str]:
    """MIO trains on speech of at most 15 s."""
    return lambda audio: f"{audio.seconds:.2f} s > {most:g} s" if audio.seconds > most else ""


def length(least: int, most: int) -> Callable[[str], str]:
    """In words."""

    def reason(text: str) -> str:
        count = len(text.split())
        return "" if least <= count <= most else f"{count} words, not {least} to {most}"

    return reason


def repetition(most: float = 0.3, words: int = 3) -> Callable[[str], str]:
    """The share of runs of `words` words that stood there before."""

    def reason(text: str) -> str:
        runs = shingles(text, words)
        share = 1 - len(set(runs)) / len(runs)
        return f"{share:.0%} repeated > {most:.0%}" if share > most else ""

    return reason


def shingles(text: str, words: int = 3) -> list[str]:
    """Runs of `words` words, in lower case; at least one, maybe shorter."""
    found = re.findall(r"\w+", text.lower())
    return [" ".join(found[n : n + words]) for n in range(max(1, len(found) - words + 1))]


_PRIME = np.uint64(2**31 - 1)  # products of two numbers below it fit 64 bits


def minhash(text: str, hashes: int = 128, seed: int = 0) -> NDArray[np.uint64]:
    """(hashes,): equal entries of two texts estimate the Jaccard similarity of their shingles (Broder, 1997)."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(1, int(_PRIME), (2, hashes, 1), dtype=np.uint64)
    digests = [hashlib.blake2b(s.encode(), digest_size=8).digest() for s in sorted(set(shingles(text)))]
    keys = np.array([int.from_bytes(d) % int(_PRIME) for d in digests], np.uint64)
    return ((a * keys + b) % _PRIME).min(axis=1)  # (hashes, shingles) -> (hashes,)


def similarity(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    return float((first == second).mean())


def near_duplicate(most: float = 0.8, rows: int = 4) -> Callable[[str], str]:
    """Drops a text nearly the same as an earlier, kept one; bands of `rows` hashes find candidates (LSH)."""
    kept: list[NDArray[np.uint64]] = []
    buckets: dict[tuple[int, bytes], list[int]] = {}

    def reason(text: str) -> str:
        mine = minhash(text)
        bands = [(n, mine[n : n + rows].tobytes()) for n in range(0, len(mine), rows)]
        near = Counter(other for band in bands for other in buckets.get(band, ()))
        closest = max((similarity(mine, kept[other]) for other in near), default=0.0)
        if closest > most:
            return f"{closest:.0%} the same as an earlier text"
        for band in bands:
            buckets.setdefault(band, []).append(len(kept))
        kept.append(mine)
        return ""

    return reason
