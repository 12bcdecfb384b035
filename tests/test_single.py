"""decoding/single.py: guidance inside spans, noted log-probabilities, stop ids and copies, against the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mio.decoding.engine import Engine, generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, Repeat, then
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling, choose, guided
from mio.layers import Segments
from mio.models.backbone import Backbone
from mio.vocab import Vocabulary

PROMPT, PLAIN = [5, 9, 11, 40, 7], [5, 7]
TEXT = Repeat(One("text"), 2, 2)
STORY = then(TEXT, One("image"), TEXT, One("speech"))  # two guided spans and text around them


def grammar(vocab: Vocabulary, limits: Limits) -> Grammar:
    rows = [r for r in vocab.rows if r.size]
    rules = [SpanRule(r.name, *vocab.bounds(r.name), vocab.level_ids(r.name), r.output_layout, r.steps) for r in rows]
    return Grammar(rules, np.arange(vocab.text_size), vocab.id("<|im_end|>"), limits)


def logits(model: Backbone, ids: list[int]) -> Tensor:
    hidden = model(torch.tensor(ids), torch.arange(len(ids)), Segments.of((len(ids),)))
    return model.logits(hidden[-1])


def reference(model: Backbone, request: Request) -> Iterator[int]:
    """The answer without engine, lanes and cache; a span's own ids follow the plain prompt."""
    generator = torch.Generator().manual_seed(request.seed)
    out: list[int] = []
    begin, again = 0, request.grammar.copy()
    while not again.finished:
        setting = request.sampling.get(again.where, GREEDY)
        scores = logits(model, [*PROMPT, *out])
        if again.span is not None and setting.guidance != 1:
            scores = guided(torch.stack([scores, logits(model, [*PLAIN, *out[begin:]])]), setting.guidance)
        out.append(choose(scores, torch.from_numpy(again.allowed()), setting, generator))
        begin = begin if again.span is not None else len(out) - 1
        again.take(out[-1])
        yield out[-1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("places", [("image",), ("speech",), ("image", "speech")])
def test_guidance_acts_inside_the_spans_that_ask_for_it(
    backbone: Backbone, vocab: Vocabulary, temperature: float, places: tuple[str, ...]
) -> None:
    own = Sampling(temperature, 0.9)
    sampling = {p: replace(own, guidance=3.0 if p in places else 1.0) for p in ("text", "image", "speech")}
    asked = Request(PROMPT, grammar(vocab, Limits(40, STORY, 3)), sampling, 3, PLAIN)
    expected = list(reference(backbone, asked))
    without = Request(PROMPT, grammar(vocab, Limits(40, STORY, 3)), dict.fromkeys(sampling, own), 3)
    assert [id for _, id in generate(backbone, [asked, without]) if _ == 0] == expected
    assert without.out != expected


def test_guidance_takes_a_second_lane_inside_its_span_only(backbone: Backbone, vocab: Vocabulary) -> None:
    engine = Engine(backbone, 2, 80)
    sampling = {"text": GREEDY, "image": replace(GREEDY, guidance=2.0), "speech": GREEDY}
    asked = Request(PROMPT, grammar(vocab, Limits(40, STORY, 3)), sampling, plain=PLAIN)
    engine.submit(asked)
    begin, end = vocab.bounds("image")
    while engine.busy:
        engine.step()
        inside = begin in asked.out and end not in asked.out
        assert len(engine.lanes.used) == (2 if inside else 0 if asked.grammar.finished else 1)


def test_log_probabilities_are_the_models_own(backbone: Backbone, vocab: Vocabulary) -> None:
    warm = dict.fromkeys(("text", "image", "speech"), Sampling(1.0, 0.9))
    asked = Request(PROMPT, grammar(vocab, Limits(30, STORY, 2)), warm, 4, logprobs=3)
    for _ in generate(backbone, [asked]):
        pass
    assert len(asked.scores) == len(asked.out) > 10
    for n, (id, noted) in enumerate(zip(asked.out, asked.scores, strict=True)):
        scores = logits(backbone, [*PROMPT, *asked.out[:n]]).log_softmax(-1)
        best, ids = scores.topk(3)
        assert_close(noted.logprob, float(scores[id]), atol=1e-4, rtol=1e-4)
        assert [i for i, _ in noted.likeliest] == ids.tolist()
        assert_close([p for _, p in noted.likeliest], best.tolist(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", [GREEDY, Sampling(1.5, 1.0), BeamSearch(beams=3)], ids=["greedy", "sampled", "beams"])
def test_an_answer_ends_with_a_stop_id_where_it_may(backbone: Backbone, vocab: Vocabulary, way: Sampling) -> None:
    """The stops are half of the text, so that most answers end with one; but never before the image that is owed."""
    stops = frozenset(range(0, vocab.text_size, 2))
    ends = set()
    for seed in range(12):
        limits = Limits(24, then(TEXT, One("image"), Repeat(One("text"), 1, None)), stops=stops)
        asked = Request([seed, 3], grammar(vocab, limits), dict.fromkeys(("text", "image"), way), seed)
        for _ in generate(backbone, [asked]):
            pass
        assert vocab.bounds("image")[1] in asked.out
        after = asked.out[asked.out.index(vocab.bounds("image")[1]) + 1 :]
        assert not stops.intersection(after[:-1])
        ends.add(after[-1] in stops)
    assert True in ends


def test_copies_have_seeds_of_their_own_and_the_first_has_this_one(backbone: Backbone, vocab: Vocabulary) -> None:
    warm = dict.fromkeys(("text", "image", "speech"), Sampling(1.5, 1.0))
    asked = Request(PROMPT, grammar(vocab, Limits(30, STORY, 2)), warm, 4)
    copies = asked.copies(4)
    for _ in generate(backbone, [*copies, asked]):
        pass
    assert copies[0].out == asked.out
    assert len({tuple(c.out) for c in copies}) == 4
