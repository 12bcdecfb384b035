"""decoding/grammar.py: what it lets through is exactly what can be decoded, in any budget, from any model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import get_args

import numpy as np
import pytest
from conftest import ROWS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.decoding.engine import Request, generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, any_order
from mio.decoding.sampling import Sampling
from mio.models.backbone import Backbone
from mio.sequence import order, parse
from mio.tokenizers.text import TextTokenizer
from mio.types import Encoded, Layout, Text
from mio.vocab import Vocabulary

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
BEGIN, END, STOP = 90, 91, 92
NO_TEXT = np.empty(0, np.int64)


def language(grammar: Grammar) -> set[tuple[int, ...]]:
    """Every sequence the grammar allows."""
    if grammar.finished:
        return {()}
    out = set()
    for id in grammar.allowed().tolist():
        after = deepcopy(grammar)
        after.take(id)
        out |= {(id, *rest) for rest in language(after)}
    return out


def rules_of(vocab: Vocabulary) -> list[SpanRule]:
    rows = [r for r in vocab.rows if r.size]
    return [SpanRule(r.name, *vocab.bounds(r.name), vocab.level_ids(r.name), r.output_layout, r.steps) for r in rows]


def grammar_of(vocab: Vocabulary, limits: Limits) -> Grammar:
    return Grammar(rules_of(vocab), np.arange(vocab.text_size), vocab.id("<|im_end|>"), limits)


def with_speech(text_tokens: list[str], layout: Layout, steps: int = 0) -> Vocabulary:
    return Vocabulary.build(text_tokens, (ROWS[0], replace(ROWS[1], output_layout=layout, steps=steps)))


def walk(grammar: Grammar, seed: int) -> list[int]:
    """Random ids that the grammar allows, the last of them (an end, or text) as likely as all others together."""
    rng, out = np.random.default_rng(seed), []
    while not grammar.finished:
        options = grammar.allowed()
        out.append(int(rng.choice(options[rng.integers(2) * -8 :])))
        grammar.take(out[-1])
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("books", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_span_is_allowed_if_and_only_if_it_follows_its_layout(
    layout: Layout, books: int, most: int, fixed: bool
) -> None:
    rule = SpanRule("x", BEGIN, END, np.arange(books)[:, None], layout, most if fixed else 0)
    limits = Limits(100, One("x"), steps=most)
    expected = {
        (BEGIN, *order(layout, books, steps)[0].tolist(), END, STOP)
        for steps in ([most] if fixed else range(1, most + 1))
    }
    assert language(Grammar([rule], NO_TEXT, STOP, limits)) == expected


def test_every_code_of_the_level_that_is_next_is_allowed() -> None:
    rule = SpanRule("x", BEGIN, END, np.arange(20).reshape(2, 10), "alternating", 2)
    grammar = Grammar([rule], NO_TEXT, STOP, Limits(100, any_order({"x": (1, 1)})))
    grammar.take(BEGIN)
    for level, id in ((0, 3), (1, 17), (0, 0), (1, 10)):
        assert_array_equal(grammar.allowed(), rule.codes[level])
        grammar.take(id)
    assert_array_equal(grammar.allowed(), [END])


def test_where_names_the_open_span() -> None:
    rule = SpanRule("x", BEGIN, END, np.arange(3)[None], steps=1)
    grammar = Grammar([rule], np.array([50]), STOP, Limits(9, any_order({"x": (0, 1)})))
    seen = []
    for id in (50, BEGIN, 1, END, STOP):
        seen.append(grammar.where)
        grammar.take(id)
    assert seen == ["text", "text", "x", "x", "text"]
    assert not len(grammar.allowed())


spans = st.tuples(st.integers(0, 2), st.integers(0, 2)).map(lambda p: (min(p), max(p)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("steps", [0, 2])
def test_budgets_never_cut_a_span_and_owed_spans_appear(
    text_tokens: list[str], text: TextTokenizer, layout: Layout, steps: int
) -> None:
    vocab = with_speech(text_tokens, layout, steps)

    @settings(max_examples=150)
    @given(st.integers(1, 60), spans, spans, st.booleans(), st.integers(1, 5), st.integers(0, 9))
    def check(
        tokens: int, images: tuple[int, int], speeches: tuple[int, int], words: bool, most: int, seed: int
    ) -> None:
        limits = Limits(tokens, any_order({"image": images, "speech": speeches}, words), most)
        least = 1 + images[0] * 6 + speeches[0] * (2 + (1 if layout == "content" else 3) * (steps or 1))
        if least > tokens:
            with pytest.raises(ValueError, match=f"{tokens} ids are too few: what must appear needs {least}"):
                grammar_of(vocab, limits)
            return
        ids = walk(grammar_of(vocab, limits), seed)
        parsed = parse(np.array(ids), vocab, text.decode)
        assert len(ids) <= tokens
        assert ids[-1] == vocab.id("<|im_end|>")
        assert parsed.faults == ()
        for name, (low, high) in (("image", images), ("speech", speeches)):
            assert low <= sum(isinstance(p, Encoded) and p.modality == name for p in parsed.parts) <= high
        assert words or not any(isinstance(p, Text) for p in parsed.parts)
        free = [p for p in parsed.parts if isinstance(p, Encoded) and p.modality == "speech" and not steps]
        assert all(p.codes.shape[2] <= most for p in free)

    check()


def test_the_least_budget_that_is_enough_is_accepted(vocab: Vocabulary) -> None:
    ids = walk(grammar_of(vocab, Limits(7, any_order({"image": (1, 1)}))), 0)
    assert [vocab.tokens[i] for i in (ids[0], *ids[-2:])] == ["<image>", "</image>", "<|im_end|>"]


def test_text_alone_may_fill_the_whole_budget(vocab: Vocabulary) -> None:
    grammar = grammar_of(vocab, Limits(5))
    for _ in range(4):
        assert vocab.text_size - 1 in grammar.allowed()
        grammar.take(0)
    assert_array_equal(grammar.allowed(), [vocab.id("<|im_end|>")])


def test_a_row_that_is_not_asked_for_never_begins(vocab: Vocabulary) -> None:
    grammar = grammar_of(vocab, Limits(50, any_order({"image": (0, 1)})))
    assert vocab.bounds("speech")[0] not in grammar.allowed()
    assert vocab.bounds("image")[0] in grammar.allowed()


ASKED = {
    "text": ({}, True),
    "image": ({"image": (1, 1)}, False),
    "speech": ({"speech": (1, 1)}, False),
    "both": ({"image": (1, 2), "speech": (1, 2)}, False),
    "interleaved": ({"image": (0, 2), "speech": (0, 2)}, True),
    "clip": ({"image": (2, 3)}, False),
    "spoken text": ({"speech": (1, 1)}, True),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_random_model_at_high_temperature_writes_only_what_can_be_parsed(
    text_tokens: list[str], text: TextTokenizer, backbone: Backbone, layout: Layout
) -> None:
    vocab, wild = with_speech(text_tokens, layout), Sampling(temperature=2.0, top_p=1.0)
    requests = []
    for seed, (wanted, words) in product(range(72), ASKED.values()):
        grammar = grammar_of(vocab, Limits(21 + seed % 12, any_order(wanted, words), 1 + seed % 4))
        requests.append(Request([seed, 1], grammar, dict.fromkeys(("text", "image", "speech"), wild), seed))
    for _ in generate(backbone, requests):
        pass
    assert len(requests) == 504  # 2,016 answers over the four layouts
    for request, (wanted, _) in zip(requests, list(ASKED.values()) * 72, strict=True):
        parsed = parse(np.array(request.out), vocab, text.decode)
        assert parsed.faults == ()
        for name, (low, high) in wanted.items():
            assert low <= sum(isinstance(p, Encoded) and p.modality == name for p in parsed.parts) <= high
