"""decoding/engine.py: a request is answered the same alone and in company."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mio.decoding import single
from mio.decoding.engine import Engine, generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import any_order
from mio.decoding.request import Request
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling, choose
from mio.layers import Segments
from mio.models.backbone import Backbone
from mio.models.steps import Steps
from mio.types import DataError, MioError
from mio.vocab import Vocabulary

PROMPTS = ([5], [9, 8, 7, 6, 5, 4, 3], [40, 41], list(range(60, 80)))
WARM = dict.fromkeys(("text", "image", "speech"), Sampling(1.0, 0.9))


def request(vocab: Vocabulary, number: int, tokens: int = 30, **kwargs: object) -> Request:
    rows = [r for r in vocab.rows if r.size]
    rules = [SpanRule(r.name, *vocab.bounds(r.name), vocab.level_ids(r.name), r.output_layout, r.steps) for r in rows]
    limits = Limits(tokens, any_order({"image": (number % 2, 2), "speech": (0, 1)}), 3)
    grammar = Grammar(rules, np.arange(vocab.text_size), vocab.id("<|im_end|>"), limits)
    return Request(PROMPTS[number], grammar, **kwargs)  # type: ignore[arg-type]


def answers(model: Backbone, requests: list[Request]) -> list[list[int]]:
    for _ in generate(model, requests):
        pass
    return [r.out for r in requests]


@pytest.mark.parametrize("sampling", [{}, WARM], ids=["greedy", "sampled"])
def test_a_request_in_a_batch_is_answered_as_if_alone(
    backbone: Backbone, vocab: Vocabulary, sampling: dict[str, Sampling]
) -> None:
    def fresh() -> list[Request]:
        sizes = (12, 30, 20, 30)
        return [request(vocab, n, size, sampling=sampling, seed=n) for n, size in enumerate(sizes)]

    alone = [answers(backbone, [r])[0] for r in fresh()]
    assert answers(backbone, fresh()) == alone
    assert answers(backbone, fresh()[::-1]) == alone[::-1]


def test_greedy_ids_are_those_of_the_uncached_model(backbone: Backbone, vocab: Vocabulary) -> None:
    out = answers(backbone, [request(vocab, n) for n in range(4)])
    for number, answer in enumerate(out):
        ids, again = list(PROMPTS[number]), request(vocab, number)
        while not again.grammar.finished:
            hidden = backbone(torch.tensor(ids), torch.arange(len(ids)), Segments.of((len(ids),)))
            allowed = again.grammar.allowed()
            ids.append(int(allowed[backbone.logits(hidden[-1])[allowed].argmax()]))
            again.grammar.take(ids[-1])
        assert answer == ids[len(PROMPTS[number]) :]


def test_the_same_seed_makes_the_same_answer_and_another_one_another(backbone: Backbone, vocab: Vocabulary) -> None:
    first, second, other = (answers(backbone, [request(vocab, 1, sampling=WARM, seed=s)]) for s in (1, 1, 2))
    assert first == second != other


def test_ids_stream_in_the_order_they_are_kept(backbone: Backbone, vocab: Vocabulary) -> None:
    requests = [request(vocab, n) for n in range(3)]
    streamed: list[list[int]] = [[], [], []]
    for number, id in generate(backbone, requests):
        streamed[number].append(id)
        assert requests[number].out[: len(streamed[number])] == streamed[number]
    assert streamed == [r.out for r in requests]


def test_a_step_is_one_batch_of_what_is_under_way(
    backbone: Backbone, vocab: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, real = [], Steps.extend

    def extend(self: Steps, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(tuple(ids.shape))
        return real(self, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Steps, "extend", extend)
    out = answers(backbone, [request(vocab, n, tokens) for n, tokens in enumerate((3, 30, 8, 20))])
    lengths = [len(answer) for answer in out]
    assert len(set(lengths)) > 1
    prefills = [(1, len(prompt)) for prompt in PROMPTS]
    assert sizes == [*prefills, *((sum(n > step for n in lengths), 1) for step in range(1, max(lengths)))]


def test_the_repetition_penalty_is_told_the_ids_of_the_prompt_and_the_answer_so_far(
    backbone: Backbone, vocab: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []

    def note(logits: torch.Tensor, allowed: torch.Tensor, c: Sampling, g: torch.Generator, seen: torch.Tensor) -> int:
        told.append(sorted(seen.tolist()))
        return choose(logits, allowed, c, g, seen)

    monkeypatch.setattr(single, "choose", note)
    penal = dict.fromkeys(("text", "image", "speech"), Sampling(temperature=0.0, repetition_penalty=1.1))
    out = answers(backbone, [request(vocab, 1, sampling=penal)])[0]
    assert told == [sorted({*PROMPTS[1], *out[:n]}) for n in range(len(out))]


def test_a_request_beyond_the_models_positions_is_refused_with_numbers(backbone: Backbone, vocab: Vocabulary) -> None:
    asked = [request(vocab, 1, tokens) for tokens in (506, 30, 505)]
    long = "A prompt of 7 ids and an answer of 506 may take 513 positions; the model has 512."
    assert all(answers(backbone, asked)[1:])
    assert [str(r.error) for r in asked] == [long, "None", "None"]
    with pytest.raises(MioError, match=long):
        Engine(backbone).submit(asked[0])


# ------------------------------------------------------------------------------------------------ joining and leaving


def random_request(vocab: Vocabulary, seed: int) -> Request:
    """A prompt, a pattern, a budget and a way of decoding, all drawn."""
    draw = random.Random(seed)
    ways: list[Sampling] = [
        GREEDY,
        Sampling(1.0, 0.9),
        Sampling(1.5, 1.0, 5, 1.2),
        BeamSearch(beams=draw.randint(2, 4)),
    ]
    asked = request(vocab, draw.randrange(2), draw.randint(8, 40))
    asked.prompt = [draw.randrange(vocab.text_size) for _ in range(draw.randint(1, 40))]
    asked.sampling = dict.fromkeys(("text", "image", "speech"), draw.choice(ways))
    asked.seed = seed
    return asked


def run(engine: Engine, plan: dict[int, list[Request]]) -> None:
    """Submit what `plan` has for each step, and go on until all is done."""
    step = 0
    while engine.busy or step <= max(plan):
        for asked in plan.get(step, []):
            engine.submit(asked)
        engine.step()
        step += 1


@pytest.mark.parametrize("way", [GREEDY, Sampling(1.0, 0.9), BeamSearch(beams=3)], ids=["greedy", "seeded", "beams"])
def test_ids_are_those_of_the_request_alone_whoever_joins_and_leaves(
    backbone: Backbone, vocab: Vocabulary, way: Sampling
) -> None:
    def one(number: int) -> Request:
        return request(vocab, number, 30, sampling=dict.fromkeys(("text", "image", "speech"), way), seed=number)

    for number in (1, 2):
        alone = answers(backbone, [one(number)])[0]
        for trial in range(2):
            draw, asked = random.Random(10 * number + trial), one(number)
            plan: dict[int, list[Request]] = {draw.randrange(6): [asked]}
            for neighbour in range(7):
                plan.setdefault(draw.randrange(12), []).append(random_request(vocab, 100 * trial + neighbour))
            run(Engine(backbone, 8, 80), plan)
            assert asked.out == alone
            assert all(r.grammar.finished for rs in plan.values() for r in rs)


def test_logits_in_company_are_those_of_the_request_alone(backbone: Backbone, vocab: Vocabulary) -> None:
    """Moving, forking and dropping lanes must never show in what the model sees."""
    seen: dict[str, list[torch.Tensor]] = {"alone": [], "company": []}
    for way, neighbours in (("alone", 0), ("company", 7)):
        engine = Engine(backbone, 8, 80)
        asked = request(vocab, 1, 30, sampling=WARM)
        ticket = engine.submit(asked)
        for n in range(neighbours):
            engine.submit(random_request(vocab, n))
        note, advance = seen[way], engine._advance

        def watched(
            flight: Any, logits: torch.Tensor, note: Any = note, advance: Any = advance, t: int = ticket
        ) -> Any:
            note += [logits.clone()] if flight.ticket == t else []
            return advance(flight, logits)

        engine._advance = watched  # type: ignore[method-assign]
        while engine.busy:
            engine.step()
    assert_close(seen["company"], seen["alone"], atol=1e-4, rtol=1e-5)


def test_a_request_joins_a_full_engine_when_there_is_room(backbone: Backbone, vocab: Vocabulary) -> None:
    engine = Engine(backbone, 2, 80)
    first, second, third = request(vocab, 3, 30), request(vocab, 1, 7), request(vocab, 2, 12)
    for asked in (first, second, third):
        engine.submit(asked)
    while not second.grammar.finished:
        assert third.out == []
        engine.step()
    engine.step()
    assert len(third.out) == 1
    assert len(first.out) == 8


def test_beams_wait_for_lanes_and_give_them_back(backbone: Backbone, vocab: Vocabulary) -> None:
    engine = Engine(backbone, 4, 80)
    plan = [random_request(vocab, seed) for seed in range(12)]
    for asked in plan:
        engine.submit(asked)
    while engine.busy:
        engine.step()
        assert [lane.place for lane in engine.lanes.used] == list(range(len(engine.lanes.used)))
        assert len(engine.lanes.used) <= 4
    assert engine.lanes.free == 4
    assert all(asked.grammar.finished for asked in plan)


def test_events_tell_every_id_and_the_end(backbone: Backbone, vocab: Vocabulary) -> None:
    engine, asked = Engine(backbone, 8, 80), [random_request(vocab, seed) for seed in range(6)]
    tickets = [engine.submit(r) for r in asked]
    heard: dict[int, list[int]] = {t: [] for t in tickets}
    ended = []
    while engine.busy:
        for event in engine.step():
            assert event.ticket not in ended
            heard[event.ticket] += event.ids
            ended += [event.ticket] if event.finished else []
    assert sorted(ended) == tickets
    assert [heard[t] for t in tickets] == [r.out for r in asked]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_cancelled_request_has_no_further_step_and_others_go_on(
    backbone: Backbone, vocab: Vocabulary, steps: int
) -> None:
    alone = answers(backbone, [request(vocab, 1, 30, sampling=WARM)])[0]
    engine, left, other = Engine(backbone, 2, 80), request(vocab, 3, 30), request(vocab, 1, 30, sampling=WARM)
    ticket, _ = engine.submit(left), engine.submit(other)
    for _ in range(steps):
        engine.step()
    engine.cancel(ticket)
    engine.cancel(ticket)
    while engine.busy:
        assert ticket not in [event.ticket for event in engine.step()]
    assert len(left.out) == steps
    assert other.out == alone


def test_nan_logits_end_their_own_request_by_name(backbone: Backbone, vocab: Vocabulary) -> None:
    well, ill = [request(vocab, n, 30) for n in range(4)], copy.deepcopy(backbone)
    expected = answers(backbone, [request(vocab, n, 30) for n in range(4)])
    bad = min(set(range(vocab.text_size)).difference(*PROMPTS, *expected))
    ill.model.embed_tokens.weight[bad] = float("nan")
    sick = request(vocab, 2, 30)
    sick.prompt = [40, bad]
    engine = Engine(ill, 8, 80)
    tickets = [engine.submit(r) for r in (*well, sick)]
    errors = {}
    while engine.busy:
        errors |= {event.ticket: event.error for event in engine.step() if event.error}
    assert list(errors) == tickets[-1:]
    assert isinstance(errors[tickets[-1]], DataError)
    assert [r.out for r in well] == expected
    assert sick.out == []
    later = [request(vocab, n, 30) for n in range(4)]  # where the sick one's keys lay
    run(engine, {0: later})
    assert [r.out for r in later] == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "one or more"),
        ({"prompt": [3, 10**6]}, "ids from 0 to"),
        ({"prompt": [-1]}, "ids from 0 to"),
        ({"prompt": [3] * 60}, "A prompt of 60 ids and an answer of 30 may take 90 positions; the model has 80"),
        ({"sampling": {"text": BeamSearch(beams=9)}}, "9 beams do not fit into 8 lanes"),
        ({"sampling": {"image": Sampling(guidance=3)}}, "Guidance needs the prompt without its condition"),
        ({"seed": -1}, "Seed -1 is not from 0"),
        ({"sampling": {"text": BeamSearch()}, "logprobs": 1}, "noted without beams"),
    ],
)
def test_a_bad_request_is_refused_by_name_at_once(
    backbone: Backbone, vocab: Vocabulary, change: dict[str, Any], message: str
) -> None:
    engine, good = Engine(backbone, 8, 80), request(vocab, 1)
    engine.submit(good)
    with pytest.raises(MioError, match=message):
        engine.submit(replace(request(vocab, 0), **change))
    run(engine, {0: []})
    assert good.grammar.finished
