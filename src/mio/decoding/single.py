"""One answer, an id at a time: what decides on its ids, with guidance inside the spans that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mio.decoding.request import Request, Scored
from mio.decoding.sampling import GREEDY, Sampling, choose, guided


class Single:
    """`opens`: the prompt of a second lane, which is to go on beside the first from the next id on, if one begins."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.generator = torch.Generator().manual_seed(request.seed)
        self.seen = dict.fromkeys(request.prompt)  # the prompt counts, as in transformers
        self.opens: Sequence[int] = ()

    def advance(self, logits: Tensor) -> list[int]:
        """Logits (lanes, V) -> the numbers of the lanes that go on: none at the end."""
        setting = self._setting()
        scores = guided(logits, setting.guidance) if len(logits) == 2 else logits[0]
        id = self._choose(scores, setting)
        if self.request.logprobs is not None:
            self.request.scores.append(_scored(scores, id, self.request.logprobs))
        self.request.take(id)
        self.seen[id] = None
        if self.request.grammar.finished:
            return []
        return self._lanes(len(logits))

    @property
    def next(self) -> list[int]:
        """The id that each lane takes next."""
        return self.request.out[-1:] * (2 if self.request.grammar.span and self._setting().guidance != 1 else 1)

    def _setting(self) -> Sampling:
        return self.request.sampling.get(self.request.grammar.where, GREEDY)

    def _choose(self, scores: Tensor, setting: Sampling) -> int:
        seen = torch.tensor([*self.seen], device=scores.device) if setting.repetition_penalty != 1.0 else None
        allowed = torch.from_numpy(self.request.grammar.allowed()).to(scores.device)
        return choose(scores, allowed, setting, self.generator, seen)

    def _lanes(self, before: int) -> list[int]:
        """One lane, or two inside a span with guidance."""
        wanted = len(self.next)
        self.opens = self.request.plain if wanted > before else ()
        return list(range(min(wanted, before)))


def _scored(logits: Tensor, id: int, count: int) -> Scored:
    scores = logits.float().log_softmax(-1)
    best, ids = scores.topk(min(count, len(scores)))
    return Scored(float(scores[id]), tuple(zip(ids.tolist(), best.tolist(), strict=True)))
