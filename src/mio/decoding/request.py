"""What is asked of the engine, and what it says back. Sees ids only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mio.decoding.grammar import Grammar
from mio.decoding.sampling import BeamSearch, Sampling
from mio.types import MioError


@dataclass
class Request:
    """One prompt with its grammar. `sampling` by row name, "text" for text; one seed makes one answer.

    Beams are searched where all of `sampling` asks for them; otherwise their places are decoded greedily.
    """

    prompt: Sequence[int]
    grammar: Grammar
    sampling: Mapping[str, Sampling] = field(default_factory=dict)
    seed: int = 0
    out: list[int] = field(default_factory=list)

    @property
    def beams(self) -> int:
        return min((s.beams if isinstance(s, BeamSearch) else 1 for s in self.sampling.values()), default=1)

    @property
    def lanes(self) -> int:
        """Rows of the cache that it may take at once."""
        return self.beams

    @property
    def positions(self) -> int:
        """Positions that the prompt and its answer may take."""
        return len(self.prompt) + self.grammar.limits.tokens

    def take(self, id: int) -> None:
        self.grammar.take(id)
        self.out.append(id)


@dataclass(frozen=True)
class Event:
    """What a step brought to one request: new ids, its end, or the error that ended it."""

    ticket: int
    ids: tuple[int, ...] = ()
    finished: bool = False
    error: MioError | None = None
