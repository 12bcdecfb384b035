"""Logits in, one id out per row: masks, repetition penalty, temperature, top-k, top-p, a generator per request."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mio.types import DataError


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. Defaults are the paper's for sampled output (Table 10), without its penalty."""

    temperature: float = 1.0
    top_p: float = 0.7
    top_k: int = 0
    repetition_penalty: float = 1.0


GREEDY = Sampling(temperature=0.0, top_p=1.0)


def choose(logits: Tensor, allowed: Tensor, c: Sampling, generator: torch.Generator, seen: Tensor | None = None) -> int:
    """One id among `allowed` (M,) for logits (V,).

    Raises:
        DataError: no allowed id has a finite logit.
    """
    scores = logits.float()
    if seen is not None and c.repetition_penalty != 1.0 and len(seen):
        scores = scores.clone()
        old = scores[seen]
        scores[seen] = torch.where(old > 0, old / c.repetition_penalty, old * c.repetition_penalty)
    scores = scores[allowed]
    if not torch.isfinite(scores.max()):
        raise DataError("The model's logits are not finite: its weights are damaged, or bf16 overflowed.")
    if c.temperature == 0 or len(allowed) == 1:
        return int(allowed[scores.argmax()])
    probabilities = _nucleus((scores / c.temperature).softmax(0), c)
    return int(allowed[torch.multinomial(probabilities, 1, generator=generator)])


def _nucleus(probabilities: Tensor, c: Sampling) -> Tensor:
    """Zero what lies outside the top k and the smallest set that holds top_p; multinomial renormalises."""
    if c.top_p >= 1 and not c.top_k:
        return probabilities
    ranked, order = probabilities.sort(descending=True)
    keep = ranked.cumsum(0) - ranked < c.top_p
    keep[0] = True  # even with top_p 0
    if c.top_k:
        keep[c.top_k :] = False
    return torch.zeros_like(probabilities).scatter(0, order, ranked * keep)
