"""Logits in, one id out per row: masks, guidance, repetition penalty, temperature, top-k, top-p, min-p, a generator
per request."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mio.types import DataError, MioError


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. Defaults are the paper's for sampled output (Table 10), without its penalty.

    `min_p`: the least probability, as a share of the likeliest's. `guidance`: how far to go from what the prompt
    without its condition says towards what the prompt says (classifier-free guidance); 1 is the prompt alone.

    Raises:
        MioError: a value that means nothing.
    """

    temperature: float = 1.0
    top_p: float = 0.7
    top_k: int = 0
    repetition_penalty: float = 1.0
    min_p: float = 0.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = self.__getattribute__(name)
            if not low <= value <= high:
                raise MioError(f"A {name} of {value} means nothing.", at=name, fix=f"Choose from {low} to {high}.")


RANGES = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (0, 10**9),
    "repetition_penalty": (0.01, 100),
    "min_p": (0, 1),
    "guidance": (0, 100),
}
GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclass(frozen=True)
class BeamSearch(Sampling):
    """No sampling: the likeliest answer that `beams` unfinished ones side by side lead to.

    Answers are ranked by their log-probability over their length to the power of `length_penalty`.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 5
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beams < 1 or self.temperature:
            what = f"{self.beams} beams at temperature {self.temperature}"
            raise MioError(f"{what} make no search.", fix="Take 1 beam or more at temperature 0, or sample without.")
        if self.guidance != 1:
            raise MioError("Beams are searched without guidance.", fix="Sample, or leave the guidance at 1.")


def choose(logits: Tensor, allowed: Tensor, c: Sampling, generator: torch.Generator, seen: Tensor | None = None) -> int:
    """One id among `allowed` (M,) for logits (V,).

    Raises:
        DataError: no allowed id has a finite logit.
    """
    scores = logits.float()
    scores = allowed_scores(scores if seen is None else penalised(scores, seen, c.repetition_penalty), allowed)
    if c.temperature == 0 or len(allowed) == 1:
        return int(allowed[scores.argmax()])
    probabilities = _nucleus((scores / c.temperature).softmax(0), c)
    drawn = torch.multinomial(probabilities.cpu(), 1, generator=generator)  # one seed draws alike on every device
    return int(allowed[int(drawn)])


def guided(logits: Tensor, guidance: float) -> Tensor:
    """Logits (2, V) with the condition and without it -> (V,) (Ho and Salimans, 2022; as in transformers)."""
    told, untold = logits.float().log_softmax(-1)
    return untold + guidance * (told - untold)


def penalised(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Scores (V,) with those of the ids in `seen` made less by `penalty` (Keskar et al., 2019; as in transformers)."""
    if penalty == 1.0 or not len(seen):
        return scores
    old = scores[seen]
    return scores.scatter(0, seen, torch.where(old > 0, old / penalty, old * penalty))


def allowed_scores(scores: Tensor, allowed: Tensor) -> Tensor:
    """Scores (V,) of the ids `allowed` (M,).

    Raises:
        DataError: none of them is finite.
    """
    scores = scores[allowed]
    if not torch.isfinite(scores.max()):
        raise DataError("The model's logits are not finite: its weights are damaged, or bf16 overflowed.")
    return scores


def _nucleus(probabilities: Tensor, c: Sampling) -> Tensor:
    """Zero what lies outside the top k, the smallest set that holds top_p, or min_p; multinomial renormalises."""
    if c.min_p:
        probabilities = probabilities * (probabilities >= c.min_p * probabilities.max())
    if c.top_p >= 1 and not c.top_k:
        return probabilities
    ranked, order = probabilities.sort(descending=True)
    keep = ranked.cumsum(0) - ranked < c.top_p
    keep[0] = True  # even with top_p 0
    if c.top_k:
        keep[c.top_k :] = False
    return torch.zeros_like(probabilities).scatter(0, order, ranked * keep)
