"""One prompt in, the likeliest of several answers side by side out. Sees ids and scores only.

Rules are those of transformers' beam search with `early_stopping=False`, so that a released model's own script finds
the same answer: scores are log-probabilities over the whole vocabulary, repetition penalty included; of twice as many
candidates as beams the unfinished ones go on; what ends among the best candidates is an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mio.decoding.grammar import Grammar
from mio.decoding.request import Request
from mio.decoding.sampling import BeamSearch, Sampling, allowed_scores, penalised


@dataclass(frozen=True)
class Beam:
    """An unfinished answer, the log-probability of its ids, and the state of the grammar after them."""

    ids: tuple[int, ...]
    score: float
    grammar: Grammar


@dataclass(frozen=True)
class Candidate:
    """What would become of a beam (its number) with one more id."""

    score: float
    parent: int
    id: int


class Search:
    """Beams and answers of one request, which takes the best of them."""

    opens: Sequence[int] = ()  # no beam asks for another prompt

    def __init__(self, request: Request) -> None:
        self.request, self.width = request, request.beams
        self.beams = [Beam((), 0.0, request.grammar.copy())]
        self.answers: list[tuple[float, tuple[int, ...]]] = []  # best first

    def advance(self, logits: Tensor) -> list[int]:
        """Logits (beams, V) after each beam -> the number of the one each new beam goes on from; none at the end."""
        ranked = sorted(self._candidates(logits), key=lambda c: -c.score)[: 2 * self.width]
        self._keep([c for c in ranked[: self.width] if self._ends(c)])
        going = [c for c in ranked if not self._ends(c)][: self.width]
        self.beams = [self._longer(c) for c in going]
        if self._hopeful():
            return [c.parent for c in going]
        self._end()
        return []

    @property
    def next(self) -> list[int]:
        """The newest id of each beam."""
        return [beam.ids[-1] for beam in self.beams]

    def _candidates(self, logits: Tensor) -> list[Candidate]:
        return [c for number, row in enumerate(logits.float().log_softmax(-1)) for c in self._after(number, row)]

    def _after(self, number: int, scores: Tensor) -> list[Candidate]:
        """The best continuations of one beam; as many as could win if all others were worse."""
        beam = self.beams[number]
        penalty = self._setting(beam).repetition_penalty
        if penalty != 1.0:
            scores = penalised(
                scores, torch.tensor(sorted({*self.request.prompt, *beam.ids}), device=scores.device), penalty
            )
        allowed = torch.from_numpy(beam.grammar.allowed()).to(scores.device)
        scores = allowed_scores(scores, allowed)
        best, places = scores.topk(min(2 * self.width, len(scores)))
        pairs = zip(best.tolist(), allowed[places].tolist(), strict=True)
        return [Candidate(beam.score + s, number, id) for s, id in pairs if s > -torch.inf]

    def _end(self) -> None:
        self.beams, self.request.ranked = [], self.answers
        for id in self.answers[0][1]:
            self.request.take(id)

    def _setting(self, beam: Beam) -> Sampling:
        return self.request.sampling.get(beam.grammar.where) or BeamSearch()

    def _ends(self, c: Candidate) -> bool:
        return self.beams[c.parent].grammar.ends(c.id)

    def _longer(self, c: Candidate) -> Beam:
        grammar = self.beams[c.parent].grammar.copy()
        grammar.take(c.id)
        return Beam((*self.beams[c.parent].ids, c.id), c.score, grammar)

    def _keep(self, ended: list[Candidate]) -> None:
        new = [(self._rank(self._longer(c)), (*self.beams[c.parent].ids, c.id)) for c in ended]
        self.answers = sorted([*self.answers, *new], key=lambda a: -a[0])[: self.width]

    def _rank(self, beam: Beam) -> float:
        """The log-probability of an answer, or of what may become one, by its length."""
        setting = self._setting(beam)
        penalty = setting.length_penalty if isinstance(setting, BeamSearch) else 1.0
        return beam.score / len(beam.ids) ** penalty

    def _hopeful(self) -> bool:
        """Whether the best beam, were it to end now, would be among the answers kept."""
        full = len(self.answers) == self.width
        return bool(self.beams) and not (full and self._rank(self.beams[0]) <= self.answers[-1][0])
