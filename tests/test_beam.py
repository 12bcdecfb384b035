"""decoding/beam.py: the answer of transformers, the best of all where nothing is left out, and only what decodes."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mio.decoding.beam import Search, search
from mio.decoding.engine import Request, generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import any_order
from mio.decoding.sampling import GREEDY, BeamSearch, Sampling, penalised
from mio.layers import Segments
from mio.models.backbone import Backbone, BackboneConfig
from mio.types import DataError, MioError
from mio.vocab import Vocabulary

TINY = BackboneConfig(18, 2, 16, 2, 1, 8, 24, 10_000.0, positions=64)
STOP = 1
PROMPT = [5, 9, 3, 5]
WORDS = np.array([i for i in range(18) if i != STOP])


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    """Random weights whose predictions differ, and in which an answer may end soon."""
    torch.manual_seed(4)
    model = Backbone(TINY).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(6 if parameter.ndim > 1 else 1)
    return model


@pytest.fixture(scope="module")
def twin(tiny: Backbone) -> Any:
    """The same model in transformers."""
    transformers, c = importlib.import_module("transformers"), TINY
    config = transformers.LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.width,
        intermediate_size=c.hidden,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        max_position_embeddings=c.positions,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(tiny.state_dict())
    return model


def words(tokens: int) -> Grammar:
    return Grammar([], WORDS, STOP, Limits(tokens))


def ours(model: Backbone, prompt: list[int], tokens: int, setting: BeamSearch) -> list[int]:
    return search(model, Search(prompt, words(tokens), {"text": setting}, setting.beams))


def theirs(model: Any, prompt: list[int], tokens: int, setting: BeamSearch) -> list[int]:
    """transformers' answer of at most `tokens` ids, the last of which must be the stop, as our grammar has it."""
    last = len(prompt) + tokens - 1

    def follow(_: int, ids: Tensor) -> list[int]:
        return [STOP] if len(ids) == last else list(range(TINY.vocabulary))

    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=setting.beams,
        do_sample=False,
        max_new_tokens=tokens,
        repetition_penalty=setting.repetition_penalty,
        length_penalty=setting.length_penalty,
        prefix_allowed_tokens_fn=follow,
    )
    answer: list[int] = out[0, len(prompt) :].tolist()
    return answer[: answer.index(STOP) + 1]


@pytest.mark.parametrize("penalty", [1.0, 1.15, 2.0])
@pytest.mark.parametrize("length", [1.0, 0.0, 1.5])
def test_beams_find_the_answer_that_transformers_finds(
    tiny: Backbone, twin: Any, penalty: float, length: float
) -> None:
    for beams, first in ((5, 0), (5, 4), (5, 7), (3, 11), (2, 16)):
        setting = BeamSearch(repetition_penalty=penalty, beams=beams, length_penalty=length)
        assert ours(tiny, [first, *PROMPT], 12, setting) == theirs(twin, [first, *PROMPT], 12, setting)


def test_answers_of_beams_have_many_lengths_and_differ_from_greedy_ones(tiny: Backbone) -> None:
    greedy = [Request([first, *PROMPT], words(12), {"text": GREEDY}) for first in range(18)]
    for _ in generate(tiny, greedy):
        pass
    beams = [ours(tiny, list(r.prompt), 12, BeamSearch()) for r in greedy]
    assert len({len(answer) for answer in beams}) > 2
    assert any(r.out != answer for r, answer in zip(greedy, beams, strict=True))


# ------------------------------------------------------------------------------------------------ against brute force

RULE = SpanRule("image", 6, 7, np.array([[8, 9]]), "sequential", 2)
SPOKEN = SpanRule("speech", 10, 11, np.array([[12, 13], [14, 15]]), "sequential", 0)
SPANS = Limits(7, any_order({"image": (0, 1), "speech": (0, 1)}), 2)


def mixed(limits: Limits = SPANS) -> Grammar:
    return Grammar([RULE, SPOKEN], np.array([2, 3]), STOP, limits)


def chances(ids: tuple[int, ...]) -> Tensor:
    """Logits (V,) after any ids: random, but always the same."""
    return 2 * torch.randn(18, generator=torch.Generator().manual_seed(hash(ids) % 2**31))


def answers(grammar: Grammar, ids: tuple[int, ...], score: float) -> dict[tuple[int, ...], float]:
    """Every answer that the grammar allows, with its log-probability."""
    if grammar.finished:
        return {ids: score}
    out, step = {}, chances(ids).log_softmax(0)
    for id in grammar.allowed().tolist():
        after = deepcopy(grammar)
        after.take(id)
        out |= answers(after, (*ids, id), score + float(step[id]))
    return out


def searched(grammar: Grammar, width: int, setting: BeamSearch) -> tuple[int, ...]:
    places = dict.fromkeys(("text", "image", "speech"), setting)
    found = Search([0], grammar, places, width)
    while found.beams:
        found.advance(torch.stack([chances(beam.ids) for beam in found.beams]))
    return found.answers[0][1]


@pytest.mark.parametrize("length", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("spans", [{}, {"image": (1, 1)}, {"speech": (1, 1)}, {"image": (0, 1), "speech": (0, 1)}])
def test_with_beams_enough_the_answer_is_the_best_of_all(spans: Mapping[str, tuple[int, int]], length: float) -> None:
    limits = Limits(7, any_order(spans), 2)
    every = answers(mixed(limits), (), 0.0)
    best = max(every, key=lambda ids: every[ids] / len(ids) ** length)
    assert len(every) > 10
    assert searched(mixed(limits), 2 * len(every), BeamSearch(length_penalty=length)) == best


@pytest.mark.parametrize("width", [2, 3, 5])
def test_every_answer_of_few_beams_is_one_that_the_grammar_allows(width: int) -> None:
    every = answers(mixed(), (), 0.0)
    assert searched(mixed(), width, BeamSearch()) in every


def test_a_beam_leaves_the_grammar_that_it_began_with_as_it_was() -> None:
    grammar = mixed(Limits(7, any_order({"speech": (1, 1)}), 2))
    start = grammar.place
    searched(grammar, 3, BeamSearch())
    assert (grammar.left, grammar.place, grammar.span) == (7, start, None)


# ------------------------------------------------------------------------------------------------ in the engine


def requests(vocab: Vocabulary) -> list[Request]:
    rows = [r for r in vocab.rows if r.size]
    rules = [SpanRule(r.name, *vocab.bounds(r.name), vocab.level_ids(r.name), r.output_layout, r.steps) for r in rows]
    places = ("text", "image", "speech")
    settings = (GREEDY, BeamSearch(beams=3), Sampling(1.0, 0.9), BeamSearch(beams=5, repetition_penalty=1.2))
    limits = (
        Limits(12),
        Limits(30, any_order({"image": (1, 1)})),
        Limits(20, any_order({"speech": (1, 1)}), 3),
        Limits(9),
    )
    words, stop = np.arange(vocab.text_size), vocab.id("<|im_end|>")
    return [
        Request([40 + n] * (n + 1), Grammar(rules, words, stop, limits[n]), dict.fromkeys(places, setting), n)
        for n, setting in enumerate(settings)
    ]


def test_requests_with_beams_are_answered_in_company_as_if_alone(backbone: Backbone, vocab: Vocabulary) -> None:
    alone = [list(generate(backbone, [r])) for r in requests(vocab)]
    company = requests(vocab)
    streamed: list[list[int]] = [[] for _ in company]
    for number, id in generate(backbone, company):
        streamed[number].append(id)
    assert streamed == [[id for _, id in pairs] for pairs in alone] == [r.out for r in company]
    assert all(r.grammar.finished for r in company)


def test_cached_beams_score_as_the_model_without_a_cache(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[int, ...], Tensor]] = []
    advance = Search.advance

    def note(self: Search, logits: Tensor) -> list[int]:
        seen.extend((beam.ids, row.clone()) for beam, row in zip(self.beams, logits, strict=True))
        return advance(self, logits)

    monkeypatch.setattr(Search, "advance", note)
    ours(tiny, PROMPT, 8, BeamSearch(beams=4))
    for ids, logits in seen:
        whole = torch.tensor([*PROMPT, *ids])
        hidden = tiny(whole, torch.arange(len(whole)), Segments.of((len(whole),)))
        assert_close(logits, tiny.logits(hidden[-1]), atol=1e-4, rtol=1e-4)


def test_beams_are_searched_only_where_every_place_asks_for_them() -> None:
    def beams(**settings: Sampling) -> int:
        return Request(PROMPT, words(5), settings).beams

    assert beams(text=BeamSearch(beams=5), image=BeamSearch(beams=3)) == 3
    assert beams(text=BeamSearch(), image=Sampling()) == beams(text=GREEDY) == beams() == 1


def test_one_beam_is_the_greedy_answer(tiny: Backbone) -> None:
    found = [Request(PROMPT, words(12), {"text": s}) for s in (GREEDY, BeamSearch(beams=1))]
    for _ in generate(tiny, found):
        pass
    assert found[0].out == found[1].out


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.15, 2.0])
def test_the_repetition_penalty_is_transformers(penalty: float) -> None:
    process = importlib.import_module("transformers").RepetitionPenaltyLogitsProcessor(penalty)
    logits, seen = torch.randn(50), torch.tensor([3, 3, 7, 49, 0])
    assert_close(penalised(logits, seen, penalty), process(seen[None], logits[None].clone())[0], atol=0, rtol=0)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        Search([0], words(5), {}, 2).advance(torch.full((1, 18), float("nan")))


@pytest.mark.parametrize("bad", [{"beams": 0}, {"temperature": 1.0}])
def test_beams_that_make_no_search_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(MioError):
        BeamSearch(**bad)  # type: ignore[arg-type]
