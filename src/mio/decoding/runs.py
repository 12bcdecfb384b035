"""A stretch of an answer in which the same ids may come: what a back end is asked for that knows nothing of grammars.

Written in llguidance's dialect of Lark, where <[3,7-9]> is any of these ids, a run is all that an unpatched vLLM needs
to be told. An answer is a few of them: text is one, an image is one, speech one for each codebook and one more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mio.decoding.grammar import Grammar, Limits
from mio.decoding.pattern import TEXT, One, Repeat
from mio.types import DataError

NONE = np.empty(0, np.int64)
NO_ID = -1  # forced where an answer is over; the model never sees it


@dataclass(frozen=True)
class Run:
    """At most `most` ids, all of `stay`; one of `leave`, where there are any, ends it sooner."""

    stay: NDArray[np.int64]
    leave: NDArray[np.int64]
    most: int

    @property
    def lark(self) -> str:
        """Complete only where it must be: a back end may end an answer wherever its grammar is."""
        if not len(self.leave):
            return f"start: {written(self.stay)}{{{self.most}}}"
        before = f"{written(self.stay)}* " if len(self.stay) else ""
        return f"start: {before}{written(self.leave)}"

    @staticmethod
    def read(lark: str, most: int, vocabulary: int) -> Run:
        """The inverse of `lark`, for ids below `vocabulary`.

        Raises:
            DataError: it is no run, or a shorter one.
        """
        found = _RUN.fullmatch(lark)
        if found is None or not 1 <= most <= int(found["count"] or (1 if found["only"] else most)):
            raise DataError("The grammar is no run of so many ids.", fix="Write it as in 'start: <[0-9]>* <[10]>'.")
        stay, leave = found["all"] or found["stay"], found["leave"] or found["only"]
        return Run(_read(stay, vocabulary), _read(leave, vocabulary), most)

    def grammar(self) -> Grammar:
        """Its ids as an automaton, to which they are text. One id comes at its end that is not part of it, unless one
        of `leave` was there before."""
        if not len(self.leave):
            limits = Limits(self.most + 1, Repeat(One(TEXT), self.most, self.most))
            return Grammar([], self.stay, NO_ID, limits)
        stop, *stops = map(int, self.leave)
        limits = Limits(self.most + 1, Repeat(One(TEXT), 0, None), stops=frozenset(stops))
        return Grammar([], np.concatenate([self.stay, self.leave[1:]]), stop, limits)


def run_of(grammar: Grammar) -> Run:
    """What may come next, for as long as that does not change."""
    allowed, most = grammar.allowed(), 1
    stay, leave = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for ids in grammar.choices():
        count = _lasting(grammar, int(ids[0]), allowed)
        (stay if count > 1 else leave).append(ids)
        most = max(most, count)
    return Run(np.concatenate([NONE, *stay]), np.concatenate([NONE, *leave]), most)


def _lasting(grammar: Grammar, id: int, allowed: NDArray[np.int64]) -> int:
    """How often an id can come until something else may be next. Masks are shared, so the same one is the same."""
    twin, count = grammar.copy(), 0
    while not twin.finished and twin.allowed() is allowed:
        twin.take(id)
        count += 1
    return count


# ------------------------------------------------------------------------------------------------------ sets of ids

_SET = r"<\[[\d,-]+\]>"
_RUN = re.compile(
    rf"start: (?:(?P<all>{_SET})\{{(?P<count>\d{{1,7}})\}}|(?P<stay>{_SET})\* (?P<leave>{_SET})|(?P<only>{_SET}))"
)
_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7}))?")


def written(ids: NDArray[np.int64]) -> str:
    """A set of ids as ranges: <[3,7-9]>."""
    ids = np.unique(ids)
    runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return f"<[{','.join(str(r[0]) if len(r) == 1 else f'{r[0]}-{r[-1]}' for r in runs)}]>"


def _read(words: str | None, vocabulary: int) -> NDArray[np.int64]:
    """The inverse of `written`: in order, so that a short text cannot ask for much memory."""
    ranges = [NONE]
    for word in words[2:-2].split(",") if words else ():
        found, least = _RANGE.fullmatch(word), int(ranges[-1][-1]) + 1 if len(ranges[-1]) else 0
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if not least <= low <= high < vocabulary:
            raise DataError(f"{word!r} is no range of ids from {least} to {vocabulary - 1}.")
        ranges.append(np.arange(low, high + 1))
    return np.concatenate(ranges)
