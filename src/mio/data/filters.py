"""What a sample must be to be trained on, and an account of what was dropped. Plain numpy; knows no model, no file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mio.types import Audio, Image, MioError

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
        return (thing for thing in things if self.keeps(thing))

    def keeps(self, thing: T) -> bool:
        """Whether a thing stays; counted either way."""
        self.seen += 1
        if not (why := self.reason(thing)):
            return True
        self.dropped += 1
        if len(self.examples) < self.most_examples:
            self.examples.append((thing, why))
        return False


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


def letters(least: float = 0.8) -> Callable[[str], str]:
    """The share of words with a letter in them; Gopher's rule (Rae et al., 2021)."""

    def reason(text: str) -> str:
        found = text.split()
        share = sum(any(map(str.isalpha, word)) for word in found) / max(len(found), 1)
        return f"{share:.0%} of the words have letters < {least:.0%}" if share < least else ""

    return reason


def word_length(least: float = 3.0, most: float = 10.0) -> Callable[[str], str]:
    """The mean length of words in characters; Gopher's rule."""

    def reason(text: str) -> str:
        found = text.split()
        mean = sum(map(len, found)) / max(len(found), 1)
        return "" if least <= mean <= most else f"words of {mean:.1f} characters, not {least:g} to {most:g}"

    return reason


COMMON: Mapping[str, str] = {  # common words of each language that few of the others here have
    "de": "der die das und ist nicht ein eine zu den mit sich auf für von dem er sie es ich wir auch",
    "en": "the of and to is was that it for with as his he she on are this but they you had not at by",
    "es": "el los las y que en una por con para su es del lo como más pero sus le ya era fue muy",
    "fr": "le les et des est dans une du pour qui pas au sur il elle ne se sont avec plus nous vous",
    "it": "il di che è per un gli non con del della sono nel ma anche alla più questo ha era lo",
    "nl": "de het een en van niet dat te zijn met voor op aan hij ze was ook maar er naar bij uit",
    "pt": "o os as e que em uma um por com não para do da no na mas mais foi ele ela seu sua ao",
}


def language(wanted: str) -> Callable[[str], str]:
    """Whose common words a text has most of; one with none of them stays. Knows the languages of `COMMON`."""
    if wanted not in COMMON:
        raise MioError(f"No words of {wanted!r} are known.", fix=f"Known are {', '.join(COMMON)}.")

    common = {name: frozenset(words.split()) for name, words in COMMON.items()}

    def reason(text: str) -> str:
        found = re.findall(r"\w+", text.lower())
        counts = {name: sum(word in words for word in found) for name, words in common.items()}
        likely = max(counts, key=counts.__getitem__)
        return f"reads like {likely}, not {wanted}" if counts[likely] > counts[wanted] else ""

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
