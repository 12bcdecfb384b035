"""An automaton over ids that lets only decodable output through. Rows and budgets in, allowed ids out.

A span is `begin codes end`. How many codes, and of which codebook next, follows from the row's layout; budgets are
spent before a span begins, so that none is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SpanRule:
    """What decoding must know of a modality row. `codes` (codebooks, codebook_size): ids of its codes."""

    name: str
    begin: int
    end: int
    codes: NDArray[np.int64]
    layout: str = "sequential"
    steps: int = 0  # 0: free length


@dataclass(frozen=True)
class Limits:
    """Budgets of one answer: ids in all, spans of each row (`spans`, minimum and maximum), steps of a free span."""

    tokens: int
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    steps: int = 250
    text: bool = True


class Grammar:
    """The state of one answer. `allowed()` gives the ids that may follow, `take(id)` moves on.

    Raises:
        ValueError: the budget of ids is too small for the spans that must appear; says how many are needed.
    """

    def __init__(self, rules: Sequence[SpanRule], text: NDArray[np.int64], stop: int, limits: Limits) -> None:
        rules = [replace(r, codes=r.codes[:1]) if r.layout == "content" else r for r in rules]  # level 0 only
        self.rules, self.text, self.stop, self.limits = rules, text, stop, limits
        self.left = limits.tokens
        self.counts = {r.name: 0 for r in rules}
        self.span: _Span | None = None
        self.finished = False
        self.by_begin = {r.begin: r for r in rules if limits.spans.get(r.name, (0, 0))[1]}
        if self._needed() + 1 > self.left:
            raise ValueError(f"{self.left} ids are too few: what must appear needs {self._needed() + 1}.")

    def _minimum(self, rule: SpanRule) -> int:
        return 2 + len(rule.codes) * (rule.steps or 1)

    def _needed(self) -> int:
        """Ids that spans still owed take at least."""
        owed = ((r, self.limits.spans.get(r.name, (0, 0))[0] - self.counts[r.name]) for r in self.rules)
        return sum(max(0, n) * self._minimum(r) for r, n in owed)

    def allowed(self) -> list[NDArray[np.int64]]:
        """Arrays of ids, disjoint, of which any may come next; empty when finished."""
        if self.finished:
            return []
        if self.span is not None:
            return self.span.allowed()
        out = [np.array([r.begin]) for r in self.by_begin.values() if self._may_begin(r)]
        needed = self._needed()
        if not needed:
            out.append(np.array([self.stop]))
        if self.limits.text and self.left > needed + 1:
            out.append(self.text)
        return out

    def _may_begin(self, rule: SpanRule) -> bool:
        least, most = self.limits.spans[rule.name]
        others = self._needed() - (self._minimum(rule) if self.counts[rule.name] < least else 0)
        return self.counts[rule.name] < most and self.left >= others + self._minimum(rule) + 1

    def take(self, id: int) -> None:
        """Move on by one id, which must be allowed."""
        self.left -= 1
        if self.span is not None:
            if self.span.take(id):
                self.span = None
        elif id in self.by_begin:
            rule = self.by_begin[id]
            self.counts[rule.name] += 1
            room = self.left - self._needed() - 2  # this span's end and the stop
            self.span = _Span(rule, min(self.limits.steps, room // len(rule.codes)))
        elif id == self.stop:
            self.finished = True

    def copy(self) -> Grammar:
        """The same state, to be moved on apart from this one."""
        twin = copy(self)
        twin.counts = dict(self.counts)
        twin.span = self.span and self.span.copy()
        return twin

    @property
    def where(self) -> str:
        """Name of the row whose span is open, or "text"."""
        return self.span.rule.name if self.span else "text"


class _Span:
    """One open span of at most `most` steps: how many codes of each codebook it has so far."""

    def __init__(self, rule: SpanRule, most: int) -> None:
        self.rule = rule
        self.most = rule.steps or most
        self.least = rule.steps or 1
        self.counts = [0] * len(rule.codes)

    def allowed(self) -> list[NDArray[np.int64]]:
        levels = LAYOUTS[self.rule.layout](self.counts, self.least, self.most)
        return [np.array([self.rule.end]) if level < 0 else self.rule.codes[level] for level in levels]

    def take(self, id: int) -> bool:
        """Count a code; True when the span is closed."""
        if id == self.rule.end:
            return True
        self.counts[int(np.flatnonzero((self.rule.codes == id).any(axis=1))[0])] += 1
        return False

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
