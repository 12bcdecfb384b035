"""One prompt in, the likeliest of several answers side by side out. Sees ids and scores only.

Rules are those of transformers' beam search with `early_stopping=False`, so that a released model's own script finds
the same answer: scores are log-probabilities over the whole vocabulary, repetition penalty included; of twice as many
candidates as beams the unfinished ones go on; what ends among the best candidates is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mio.decoding.grammar import Grammar
from mio.decoding.sampling import BeamSearch, Sampling, allowed_scores, penalised
from mio.models.backbone import Backbone, Cache


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


@dataclass
class Search:
    """Beams and answers of one prompt. `settings` by row name, "text" for text."""

    prompt: Sequence[int]
    grammar: Grammar
    settings: Mapping[str, Sampling]
    width: int
    beams: list[Beam] = field(init=False)
    answers: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)  # best first

    def __post_init__(self) -> None:
        self.beams = [Beam((), 0.0, self.grammar.copy())]

    def advance(self, logits: Tensor) -> list[int]:
        """Logits (beams, V) after each beam -> the number of the beam that each new beam goes on from."""
        ranked = sorted(self._candidates(logits), key=lambda c: -c.score)[: 2 * self.width]
        self._keep([c for c in ranked[: self.width] if self._ends(c)])
        going = [c for c in ranked if not self._ends(c)][: self.width]
        self.beams = [self._longer(c) for c in going]
        if not self._hopeful():
            self.beams = []
        return [c.parent for c in going]

    def _candidates(self, logits: Tensor) -> list[Candidate]:
        return [c for number, row in enumerate(logits.float().log_softmax(-1)) for c in self._after(number, row)]

    def _after(self, number: int, scores: Tensor) -> list[Candidate]:
        """The best continuations of one beam; as many as could win if all others were worse."""
        beam = self.beams[number]
        penalty = self._setting(beam).repetition_penalty
        if penalty != 1.0:
            scores = penalised(scores, torch.tensor(sorted({*self.prompt, *beam.ids})), penalty)
        allowed = torch.from_numpy(beam.grammar.allowed())
        scores = allowed_scores(scores, allowed)
        best, places = scores.topk(min(2 * self.width, len(scores)))
        pairs = zip(best.tolist(), allowed[places].tolist(), strict=True)
        return [Candidate(beam.score + s, number, id) for s, id in pairs if s > -torch.inf]

    def _setting(self, beam: Beam) -> Sampling:
        return self.settings.get(beam.grammar.where) or BeamSearch()

    def _ends(self, c: Candidate) -> bool:
        return c.id == self.beams[c.parent].grammar.stop

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


@torch.inference_mode()
def search(model: Backbone, found: Search) -> list[int]:
    """Run a search to its end: the ids of the best answer.

    Raises:
        DataError: no id that may follow has a finite score.
    """
    start = len(found.prompt)
    cache = Cache(model.config, 1, start + found.grammar.limits.tokens, model.model.embed_tokens.weight)
    hidden = model.extend(torch.tensor([[*found.prompt]]), torch.arange(start)[None], cache)
    whole = cache.tensor.repeat(1, 1, found.width, 1, 1, 1)
    parents = found.advance(model.logits(hidden[:, -1]))
    while found.beams:
        length = start + len(found.beams[0].ids) - 1  # keys held: all but the newest id's
        cache.tensor = _reordered(whole, parents, start, length)
        new = torch.tensor([[beam.ids[-1]] for beam in found.beams])
        hidden = model.extend(new, torch.full((len(new), 1), length), cache)
        parents = found.advance(model.logits(hidden[:, 0]))
    return list(found.answers[0][1])


def _reordered(whole: Tensor, parents: list[int], start: int, length: int) -> Tensor:
    """Keys and values (layers, 2, B, H, P, D) of the beams that go on. The prompt's are the same in every beam."""
    grown = whole[..., start:length, :]
    grown[:, :, : len(parents)] = grown[:, :, parents]
    return whole[:, :, : len(parents)]
