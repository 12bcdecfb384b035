"""Prompts of ids in, answers of ids out: prefill, then one step at a time for a whole batch with a KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mio.decoding.grammar import Grammar
from mio.decoding.sampling import GREEDY, Sampling, choose
from mio.models.backbone import Backbone, Cache


@dataclass
class Request:
    """One prompt with its grammar. `sampling` by row name, "text" for text; one seed makes one answer."""

    prompt: Sequence[int]
    grammar: Grammar
    sampling: Mapping[str, Sampling] = field(default_factory=dict)
    seed: int = 0
    out: list[int] = field(default_factory=list)


@torch.inference_mode()
def generate(model: Backbone, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Decode all requests as one batch; yields (request number, id) as they come and fills `Request.out`.

    Raises:
        ValueError: a prompt and its budget exceed the model's positions, with the numbers.
    """
    if not requests:
        return
    need = max(len(r.prompt) + r.grammar.limits.tokens for r in requests)
    if need > model.config.positions:
        raise ValueError(f"Prompt and answer may take {need} positions; the model has {model.config.positions}.")
    cache = Cache(model.config, len(requests), need, model.model.embed_tokens.weight)
    generators = [torch.Generator().manual_seed(r.seed) for r in requests]
    logits = _prefill(model, requests, cache)
    lengths = torch.tensor([len(r.prompt) for r in requests])
    live = list(range(len(requests)))
    while live:
        ids = [_next(requests[n], row, generators[n]) for n, row in zip(live, logits, strict=True)]
        yield from zip(live, ids, strict=True)
        keep = [place for place, n in enumerate(live) if not requests[n].grammar.finished]
        if not keep:
            return
        if len(keep) < len(live):
            cache.tensor = cache.tensor[:, :, keep]
        live = [live[place] for place in keep]
        new = torch.tensor([ids[place] for place in keep])[:, None]
        logits = model.logits(model.extend(new, lengths[live][:, None], cache)[:, 0])
        lengths[live] += 1


def _prefill(model: Backbone, requests: Sequence[Request], cache: Cache) -> Tensor:
    """All prompts at once, padded on the right: (B, vocabulary) logits after each prompt's last id."""
    longest = max(len(r.prompt) for r in requests)
    ids = torch.tensor([[*r.prompt, *[0] * (longest - len(r.prompt))] for r in requests])
    hidden = model.extend(ids, torch.arange(longest).expand(len(requests), -1), cache)
    last = torch.tensor([len(r.prompt) - 1 for r in requests])
    return model.logits(hidden[torch.arange(len(requests)), last])


def _next(request: Request, logits: Tensor, generator: torch.Generator) -> int:
    sampling = request.sampling.get(request.grammar.where, GREEDY)
    allowed = torch.from_numpy(np.concatenate(request.grammar.allowed()))
    seen = torch.tensor(sorted(set(request.out)), dtype=torch.long)
    id = choose(logits, allowed, sampling, generator, seen)
    request.grammar.take(id)
    request.out.append(id)
    return id
