"""An automaton over ids that lets only decodable output through. Rows and budgets in, allowed ids out.

A span is `begin codes end`. How many codes, and of which codebook next, follows from the row's layout; budgets are
spent before a span begins, so that none is ever cut.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mio.decoding.constraint import Constraint
from mio.decoding.pattern import TEXT, Pattern, Place, any_order, kinds, start
from mio.types import MioError


@dataclass(frozen=True)
class SpanRule:
    """What decoding must know of a modality row. `codes` (codebooks, codebook_size): ids of its codes."""

    name: str
    begin: int
    end: int
    codes: NDArray[np.int64]
    layout: str = "sequential"
    steps: int = 0  # 0: free length

    @property
    def least(self) -> int:
        """Ids of the shortest span."""
        return 2 + len(self.codes) * (self.steps or 1)


@dataclass(frozen=True)
class Limits:
    """What one answer may be: ids in all, its parts and their order, steps of a span of free length, ids of text that
    end it, too, where it may end; and what every run of text must follow, if anything, which then ends by itself."""

    tokens: int
    pattern: Pattern = field(default_factory=lambda: any_order({}))
    steps: int = 250
    stops: frozenset[int] = frozenset()
    text: Constraint | None = None


class Grammar:
    """The state of one answer. `allowed()` gives the ids that may follow, `take(id)` moves on.

    Raises:
        MioError: the budget of ids is too small for what must appear, with the numbers; or nothing could make a part.
    """

    def __init__(self, rules: Sequence[SpanRule], text: NDArray[np.int64], stop: int, limits: Limits) -> None:
        rules = [replace(r, codes=r.codes[:1]) if r.layout == "content" else r for r in rules]  # level 0 only
        self.stop, self.limits = stop, limits
        self.left = limits.tokens
        self.by_begin = {r.begin: r for r in rules}
        self.place = _start(rules, limits)
        self.masks = _Masks(rules, text, stop)
        self.span: _Span | None = None
        self.run: Constraint | None = None  # the text under way, where it must follow something
        self.finished = False

    def allowed(self) -> NDArray[np.int64]:
        """Ids of which any may come next; none when finished. Never written to: answers share it."""
        text = self._shape()
        return self.masks.of(self._next()) if text is None else self._shaped(text)

    def choices(self) -> list[NDArray[np.int64]]:
        """The same ids, apart where they mean different things: codes of a level, text, a begin, an end, the stop.
        Together where text must follow something: there each id decides on those after it."""
        return [self.allowed()] if self._shape() else [self.masks.pieces[key] for key in self._next()]

    def _shape(self) -> Constraint | None:
        """What the next id must follow, if it may be text."""
        return None if self.finished or self.span is not None else self.limits.text

    def _next(self) -> tuple[Hashable, ...]:
        if self.finished:
            return ()
        if self.span is not None:
            return self.span.allowed()
        return self._parts(self.place.ways)

    def take(self, id: int) -> None:
        """Move on by one id, which must be allowed."""
        self.finished = self.ends(id)
        self.left -= 1
        if self.span is not None:
            if self.span.take(id):
                self.span = None
        elif id == self.stop:
            return
        elif id in self.by_begin:
            rule, self.run = self.by_begin[id], None
            self.place = self.place.ways[rule.name]
            room = self.left - self.place.need - 2  # this span's end and the stop
            self.span = _Span(rule, min(self.limits.steps, room // len(rule.codes)))
        else:
            self._write(id)

    def _parts(self, kinds: Iterable[str]) -> tuple[Hashable, ...]:
        """Those of these kinds that fit what is left, and the stop where it may come."""
        ids, ways, room = self.place.ids, self.place.ways, self.left - 1  # the stop
        fit = [kind for kind in kinds if ids[kind] + ways[kind].need <= room]
        return (*fit, self.stop) if self.place.may_end else tuple(fit)

    def _shaped(self, text: Constraint) -> NDArray[np.int64]:
        """The same where text must follow something: none is left before it may end."""
        own = self._text(text)
        if self.run is not None and not self.run.may_end:
            return own
        rest = self.masks.of(self._parts(kind for kind in self.place.ways if kind != TEXT))
        if not len(own) + len(rest):
            raise MioError(
                "Nothing can follow this text, which is whole.", fix="Ask for one text, or raise the budget."
            )
        return np.concatenate([own, rest]) if len(own) else rest

    def _text(self, text: Constraint) -> NDArray[np.int64]:
        """Ids that go on with the text under way, or begin one that fits."""
        way = self.place.ways.get(TEXT)
        if way is None or (self.run is None and TEXT not in self._parts([TEXT])):
            return NO_IDS
        return (self.run or text).allowed(self.left - 1 - way.need)

    def _write(self, id: int) -> None:
        """An id of text."""
        self.place = self.place.ways[TEXT]
        if self.limits.text is not None:
            self.run = self.run or self.limits.text.copy()
            self.run.take(id)

    def ends(self, id: int) -> bool:
        """Whether the answer is finished with this id."""
        if id == self.stop:
            return True
        if self.span is not None or self.limits.text is not None:
            return False
        return id in self.limits.stops and self.place.ways[TEXT].may_end

    def copy(self) -> Grammar:
        """The same state, to be moved on apart from this one."""
        twin = copy(self)
        twin.span = self.span and self.span.copy()
        twin.run = self.run and self.run.copy()
        return twin

    @property
    def where(self) -> str:
        """Name of the row whose span is open, or "text"."""
        return self.span.rule.name if self.span else TEXT


def _start(rules: Sequence[SpanRule], limits: Limits) -> Place:
    costs = {r.name: r.least for r in rules} | {TEXT: len(limits.text.way) or 1 if limits.text else 1}
    for kind in kinds(limits.pattern):
        if kind not in costs:
            raise MioError(f"No rule says how {kind!r} is written.", fix=f"Ask for {', '.join(costs)}.")
    if limits.steps < 1:
        raise MioError(f"A span of {limits.steps} steps holds nothing.", fix="Allow 1 step or more.")
    place = start(limits.pattern, tuple(costs.items()))
    if place.need + 1 > limits.tokens:
        what = f"{limits.tokens} ids are too few: what must appear needs {place.need + 1}."
        raise MioError(what, fix="Raise the budget of tokens, or ask for less.")
    return place


NO_IDS = np.empty(0, np.int64)


class _Masks:
    """Ids of what may come next, joined once for each combination: a step of decoding allocates none."""

    def __init__(self, rules: Sequence[SpanRule], text: NDArray[np.int64], stop: int) -> None:
        self.pieces: dict[Hashable, NDArray[np.int64]] = {r.name: np.array([r.begin]) for r in rules}
        self.pieces |= {(r.name, END): np.array([r.end]) for r in rules}
        self.pieces |= {(r.name, level): codes for r in rules for level, codes in enumerate(r.codes)}
        self.pieces |= {stop: np.array([stop]), TEXT: text}
        self.joined: dict[tuple[Hashable, ...], NDArray[np.int64]] = {(): NO_IDS}

    def of(self, keys: tuple[Hashable, ...]) -> NDArray[np.int64]:
        """A row's name is its begin token; with a level, the codes of that; "text" and the stop are themselves."""
        if keys not in self.joined:
            self.joined[keys] = np.concatenate([self.pieces[key] for key in keys])
        return self.joined[keys]


class _Span:
    """One open span of at most `most` steps: how many codes of each codebook it has so far."""

    def __init__(self, rule: SpanRule, most: int) -> None:
        self.rule = rule
        self.most = rule.steps or most
        self.least = rule.steps or 1
        self.counts = [0] * len(rule.codes)

    def allowed(self) -> tuple[tuple[str, int], ...]:
        """Levels of which a code may come next, or `END`, each with the row's name."""
        levels = LAYOUTS[self.rule.layout](self.counts, self.least, self.most)
        return tuple((self.rule.name, level) for level in levels)

    def take(self, id: int) -> bool:
        """Count a code, which must be allowed; True when the span is closed."""
        if id == self.rule.end:
            return True
        levels = [level for _, level in self.allowed() if level != END]
        self.counts[levels[0] if len(levels) == 1 else self._level(id, levels)] += 1
        return False

    def _level(self, id: int, levels: Sequence[int]) -> int:
        return next(level for level in levels if (self.rule.codes[level] == id).any())

    def copy(self) -> _Span:
        twin = copy(self)
        twin.counts = self.counts.copy()
        return twin


END = -1


def _sequential(counts: Sequence[int], least: int, most: int) -> Iterator[int]:
    """All of level 0, then as many of each other level."""
    open_level = max((k for k, n in enumerate(counts) if n), default=0)
    if open_level == 0:
        if counts[0] < most:
            yield 0
        if counts[0] >= least:
            yield END if len(counts) == 1 else 1
    elif counts[open_level] < counts[0]:
        yield open_level
    else:
        yield END if open_level == len(counts) - 1 else open_level + 1


def _alternating(counts: Sequence[int], least: int, most: int) -> Iterator[int]:
    """All levels of a step, step by step."""
    if counts[-1] < counts[0]:
        yield next(k for k, n in enumerate(counts) if n < counts[0])
        return
    if counts[0] < most:
        yield 0
    if counts[0] >= least:
        yield END


def _delay(counts: Sequence[int], least: int, most: int) -> Iterator[int]:
    """Level k runs k steps behind; when level 0 stops, the others catch up."""
    steps, books = counts[0], len(counts)
    behind = [max(0, steps - k) for k in range(books)]  # after a whole step of the open part
    late = [k for k in range(1, books) if counts[k] < behind[k]]
    if late:
        yield late[0]
        return
    tail = sum(counts) - sum(behind)  # codes of the closing steps, in which level 0 has stopped
    if tail == 0 and steps < most:
        yield 0
    if steps >= least:
        yield _closing(tail, steps, books)


def _closing(tail: int, steps: int, books: int) -> int:
    """The level of closing code number `tail`: step j of the tail holds levels j.. that still have codes."""
    for j in range(1, books):
        here = [k for k in range(1, books) if 0 <= steps - 1 + j - k < steps]
        if tail < len(here):
            return here[tail]
        tail -= len(here)
    return END


LAYOUTS = {"sequential": _sequential, "content": _sequential, "alternating": _alternating, "delay": _delay}
