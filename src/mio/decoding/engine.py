"""Prompts of ids in, answers of ids out: prefill, then one step at a time for a whole batch with a KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mio.decoding.beam import Search, search
from mio.decoding.grammar import Grammar
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling, choose
from mio.models.backbone import Backbone, Cache


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

    def take(self, id: int) -> None:
        self.grammar.take(id)
        self.out.append(id)


def generate(model: Backbone, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """Decode requests; yields (request number, id) as they come and fills `Request.out`.

    Those without beams are one batch. Those with beams follow, each a batch of its own, whose ids come at its end.

    Raises:
        ValueError: a prompt and its budget exceed the model's positions, with the numbers.
    """
    need = max((_need(r) for r in requests), default=0)
    if need > model.config.positions:
        raise ValueError(f"Prompt and answer may take {need} positions; the model has {model.config.positions}.")
    single = [n for n, r in enumerate(requests) if r.beams == 1]
    for place, id in _together(model, [requests[n] for n in single]):
        yield single[place], id
    for number, request in enumerate(requests):
        if request.beams > 1:
            yield from ((number, id) for id in _alone(model, request))


def _need(request: Request) -> int:
    """Positions that a prompt and its answer may take."""
    return len(request.prompt) + request.grammar.limits.tokens


def _alone(model: Backbone, request: Request) -> Iterator[int]:
    for id in search(model, Search(request.prompt, request.grammar, request.sampling, request.beams)):
        request.take(id)
        yield id


@torch.inference_mode()
def _together(model: Backbone, requests: Sequence[Request]) -> Iterator[tuple[int, int]]:
    """One batch, one id for each request at a time; what is finished leaves it."""
    if not requests:
        return
    need = max(_need(r) for r in requests)
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
    allowed = torch.from_numpy(request.grammar.allowed())
    seen = None
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*request.prompt, *request.out}))  # the prompt counts, as in transformers
    id = choose(logits, allowed, sampling, generator, seen)
    request.take(id)
    return id
