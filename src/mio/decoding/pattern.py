"""What an answer is made of, in which order: a small language of kinds of parts, and how far an answer has come in it.

    image                     one span               text image         one after the other
    (text image){4}           four times             text | speech      one or the other
    image{2,3}  image{2,}     two to three, or more  text? image* text+ at most one, any number, at least one
    text, image{2}            the two mixed in any order

A step is one span or one id of text, so `text` is a run of one id or more. Places in a pattern are sets of what may
still follow (partial derivatives: Antimirov, 1996), made when they are first reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

from mio.config import suggest
from mio.types import MioError

TEXT = "text"


@dataclass(frozen=True)
class One:
    """One span of a row, or one id of text."""

    kind: str


@dataclass(frozen=True)
class Then:
    """All, one after the other; without any, the empty answer."""

    parts: tuple[Pattern, ...]


@dataclass(frozen=True)
class Either:
    parts: tuple[Pattern, ...]


@dataclass(frozen=True)
class Mixed:
    """All, their steps in any order."""

    parts: tuple[Pattern, ...]


@dataclass(frozen=True)
class Repeat:
    part: Pattern
    least: int
    most: int | None  # None: any number


Pattern: TypeAlias = One | Then | Either | Mixed | Repeat
NOTHING = Then(())


def then(*parts: Pattern) -> Pattern:
    flat = tuple(q for p in parts for q in (p.parts if isinstance(p, Then) else (p,)))
    return flat[0] if len(flat) == 1 else Then(flat)


def any_order(spans: Mapping[str, tuple[int, int]], text: bool = True) -> Pattern:
    """So many spans of each row, minimum and maximum, and text between them if it may be there."""
    words: list[Pattern] = [Repeat(One(TEXT), 0, None)] if text else []
    return Mixed((*(Repeat(One(name), *bounds) for name, bounds in spans.items()), *words))


def may_end(p: Pattern) -> bool:
    """Whether the empty answer is one."""
    match p:
        case One():
            return False
        case Either(parts):
            return any(map(may_end, parts))
        case Then(parts) | Mixed(parts):
            return all(map(may_end, parts))
        case Repeat(part, least, _):
            return least == 0 or may_end(part)


def cost(p: Pattern, ids: Mapping[str, int]) -> int:
    """Ids that the shortest answer takes, where a step of each kind takes `ids`."""
    match p:
        case One(kind):
            return ids[kind]
        case Either(parts):
            return min(cost(q, ids) for q in parts)
        case Then(parts) | Mixed(parts):
            return sum(cost(q, ids) for q in parts)
        case Repeat(part, least, _):
            return least * cost(part, ids) if least else 0


def kinds(p: Pattern) -> Iterator[str]:
    """What stands in a pattern, in order, as often as it stands there."""
    match p:
        case One(kind):
            yield kind
        case Then(parts) | Either(parts) | Mixed(parts):
            for q in parts:
                yield from kinds(q)
        case Repeat(part, _, _):
            yield from kinds(part)


def after(p: Pattern, kind: str) -> frozenset[Pattern]:
    """What may follow a first step of this kind; empty where there can be none."""
    match p:
        case One(own):
            return frozenset([NOTHING] if own == kind else [])
        case Either(parts):
            return frozenset(d for q in parts for d in after(q, kind))
        case Then(()):
            return frozenset()
        case Then((first, *others)):
            rest = then(*others)
            out = frozenset(then(d, rest) for d in after(first, kind))
            return out | after(rest, kind) if may_end(first) else out
        case Mixed(parts):
            return frozenset(
                Mixed((*parts[:n], d, *parts[n + 1 :])) for n, q in enumerate(parts) for d in after(q, kind)
            )
        case Repeat(part, least, most):
            if most == 0:
                return frozenset()
            left = Repeat(part, max(least - 1, 0), None if most is None else most - 1)
            return frozenset(then(d, left) for d in after(part, kind))
    raise AssertionError(p)


class Place:
    """How far an answer has come: the patterns one of which the rest of it must follow. `ids` of a step by kind."""

    def __init__(self, rests: frozenset[Pattern], ids: Mapping[str, int], known: dict[frozenset[Pattern], Place]):
        self.rests, self.ids, self.known = rests, ids, known
        self.may_end = any(map(may_end, rests))
        self.need = min(cost(p, ids) for p in rests)  # ids of the shortest rest, without the stop
        known[rests] = self

    @cached_property
    def ways(self) -> Mapping[str, Place]:
        """Where a step of each kind that may be next leads."""
        found = {kind: frozenset(d for p in self.rests for d in after(p, kind)) for kind in self.ids}
        return {k: self.known.get(rests) or Place(rests, self.ids, self.known) for k, rests in found.items() if rests}


@lru_cache(maxsize=64)
def start(pattern: Pattern, ids: tuple[tuple[str, int], ...]) -> Place:
    """The place before an answer, where a step of each kind takes so many ids. Answers of equal patterns share it."""
    return Place(frozenset([pattern]), dict(ids), {})


# ------------------------------------------------------------------------------------------------------- reading

SIGN = re.compile(r"\s*([A-Za-z_][\w-]*|[()|,?*+]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})")
NAME = re.compile(r"[A-Za-z_][\w-]*")
REPEATS: Mapping[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}
LONGEST, DEEPEST, MOST = 500, 20, 1000  # characters, brackets, repeats


def names(text: str) -> tuple[str, ...]:
    """The names that stand in a pattern, each once, in order."""
    return tuple(dict.fromkeys(NAME.findall(text)))


def read(text: str, meaning: Mapping[str, Pattern]) -> Pattern:
    """The pattern that `text` writes, its names replaced by what they mean.

    Raises:
        MioError: a name without meaning, or a text that is no pattern, with the place.
    """
    reader = _Reader(text, meaning)
    found = reader.mixed(0)
    if reader.sign:
        raise reader.wrong()
    return found


class _Reader:
    """`sign` is the next one, "" at the end."""

    def __init__(self, text: str, meaning: Mapping[str, Pattern]) -> None:
        self.text, self.meaning, self.sign, self.end = text, meaning, "", 0
        if len(text) > LONGEST:
            raise MioError(f"The pattern has {len(text)} characters.", fix=f"Write it in {LONGEST}.")
        self.move()

    def move(self) -> str:
        """On to the next sign; returns the one before."""
        old = self.sign
        found = SIGN.match(self.text, self.end)
        left = self.text[self.end :]
        self.begin = found.start(1) if found else self.end + len(left) - len(left.lstrip())
        if not found and left.strip():
            raise self.wrong()
        self.sign, self.end = (found.group(1), found.end()) if found else ("", len(self.text))
        return old

    def wrong(self) -> MioError:
        what = f"The pattern {self.text!r} cannot be read from {self.text[self.begin :].strip() or 'its end'!r} on."
        return MioError(
            what, at=f"character {self.begin + 1}", fix='Write it as in "(text image){4}" or "text | image?".'
        )

    def mixed(self, depth: int) -> Pattern:
        parts = [self.either(depth)]
        while self.sign == ",":
            self.move()
            parts.append(self.either(depth))
        return parts[0] if len(parts) == 1 else Mixed(tuple(parts))

    def either(self, depth: int) -> Pattern:
        parts = [self.sequence(depth)]
        while self.sign == "|":
            self.move()
            parts.append(self.sequence(depth))
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def sequence(self, depth: int) -> Pattern:
        parts = [self.repeated(depth)]
        while self.sign == "(" or NAME.match(self.sign):
            parts.append(self.repeated(depth))
        return then(*parts)

    def repeated(self, depth: int) -> Pattern:
        part = self.single(depth)
        while self.sign in REPEATS or self.sign.startswith("{"):
            part = Repeat(part, *self.bounds())
        return part

    def single(self, depth: int) -> Pattern:
        if self.sign == "(" and depth < DEEPEST:
            self.move()
            part = self.mixed(depth + 1)
            if self.sign != ")":
                raise self.wrong()
            self.move()
            return part
        if not NAME.match(self.sign):
            raise self.wrong()
        if self.sign not in self.meaning:
            raise MioError(f"This model cannot answer in {self.sign!r}.", fix=suggest(self.sign, self.meaning))
        return self.meaning[self.move()]

    def bounds(self) -> tuple[int, int | None]:
        sign = self.sign
        numbers: Iterable[str] = sign.strip("{}").replace(" ", "").split(",")
        low, high = REPEATS.get(sign) or _range(*numbers)
        if low > MOST or (high is not None and not max(low, 1) <= high <= MOST):
            fix = f"Let the first number be at most the second, and that from 1 to {MOST}."
            raise MioError(f"No part can come {sign} times in the pattern {self.text!r}.", fix=fix)
        self.move()
        return low, high


def _range(least: str, most: str | None = None) -> tuple[int, int | None]:
    """{2}, {2,3} and {2,} by what stands between the commas."""
    return int(least), int(least) if most is None else int(most) if most else None
