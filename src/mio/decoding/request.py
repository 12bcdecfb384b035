"""What is asked of the engine, and what it says back. Sees ids only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mio.decoding.grammar import Grammar
from mio.decoding.sampling import BeamSearch, Sampling
from mio.types import MioError


@dataclass(frozen=True)
class Scored:
    """The log-probability of an id among all ids, before any mask, and the likeliest ids with theirs, best first."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclass
class Request:
    """One prompt with its grammar. `sampling` by row name, "text" for text; one seed makes one answer.

    Beams are searched where all of `sampling` asks for them; otherwise their places are decoded greedily. `plain` is
    the prompt without its condition, from which guidance leads away. `logprobs`: how many of the likeliest ids are
    noted with each id of the answer; None notes nothing.
    """

    prompt: Sequence[int]
    grammar: Grammar
    sampling: Mapping[str, Sampling] = field(default_factory=dict)
    seed: int = 0
    plain: Sequence[int] = ()
    logprobs: int | None = None
    out: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)  # of each id of `out`
    ranked: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)  # answers of beams, best first
    error: MioError | None = None  # what ended it

    @property
    def beams(self) -> int:
        return min((s.beams if isinstance(s, BeamSearch) else 1 for s in self.sampling.values()), default=1)

    @property
    def guided(self) -> bool:
        return any(s.guidance != 1 for s in self.sampling.values())

    @property
    def lanes(self) -> int:
        """Rows of the cache that it may take at once."""
        return max(self.beams, 1 + self.guided)

    @property
    def positions(self) -> int:
        """Positions that the prompt and its answer may take."""
        return max(len(self.prompt), len(self.plain)) + self.grammar.limits.tokens

    def take(self, id: int) -> None:
        self.grammar.take(id)
        self.out.append(id)

    def copies(self, count: int) -> list[Request]:
        """The same request with `count` seeds, this one's first."""
        return [
            replace(self, grammar=self.grammar.copy(), seed=self.seed + n, out=[], scores=[], ranked=[], error=None)
            for n in range(count)
        ]


@dataclass(frozen=True)
class Event:
    """What a step brought to one request: new ids, its end, or the error that ended it."""

    ticket: int
    ids: tuple[int, ...] = ()
    finished: bool = False
    error: MioError | None = None
