"""decoding/engine.py: a request is answered the same alone and in company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mio.decoding import engine
from mio.decoding.engine import Request, generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import any_order
from mio.decoding.sampling import Sampling, choose
from mio.layers import Segments
from mio.models.backbone import Backbone
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


def test_finished_requests_leave_the_batch(
    backbone: Backbone, vocab: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, real = [], Backbone.extend

    def extend(self: Backbone, ids: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(ids))
        return real(self, ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "extend", extend)
    out = answers(backbone, [request(vocab, n, tokens) for n, tokens in enumerate((3, 30, 8, 20))])
    lengths = [len(answer) for answer in out]
    assert len(set(lengths)) > 1
    assert sizes == [4, *(sum(n > step for n in lengths) for step in range(1, max(lengths)))]


def test_the_repetition_penalty_is_told_the_ids_of_the_prompt_and_the_answer_so_far(
    backbone: Backbone, vocab: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []

    def note(logits: torch.Tensor, allowed: torch.Tensor, c: Sampling, g: torch.Generator, seen: torch.Tensor) -> int:
        told.append(seen.tolist())
        return choose(logits, allowed, c, g, seen)

    monkeypatch.setattr(engine, "choose", note)
    penal = dict.fromkeys(("text", "image", "speech"), Sampling(temperature=0.0, repetition_penalty=1.1))
    out = answers(backbone, [request(vocab, 1, sampling=penal)])[0]
    assert told == [sorted({*PROMPTS[1], *out[:n]}) for n in range(len(out))]


def test_a_request_beyond_the_models_positions_is_refused_with_numbers(backbone: Backbone, vocab: Vocabulary) -> None:
    with pytest.raises(ValueError, match="may take 513 positions; the model has 512"):
        answers(backbone, [request(vocab, 0), request(vocab, 1, tokens=506)])
    assert len(answers(backbone, [request(vocab, 1, tokens=505)])) == 1
