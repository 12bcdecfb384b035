"""decoding/constraint.py: text of a wanted shape validates, whatever the model, the tokenizer or the budget."""

from __future__ import annotations

import json
import re
import sys
from itertools import product
from typing import Any

import jsonschema
import numpy as np
import pytest
from fabricate_release import train_text

from mio.decoding.constraint import Constraint, Regex, Schema, Shape, Spelling, constraint
from mio.decoding.engine import generate
from mio.decoding.grammar import Grammar, Limits, SpanRule
from mio.decoding.pattern import One, Pattern, Repeat, read
from mio.decoding.request import Request
from mio.decoding.runs import run_of
from mio.decoding.sampling import BeamSearch, Sampling
from mio.models.backbone import Backbone
from mio.sequence import parse
from mio.tokenizers.sentencepiece import SentencePieceTokenizer
from mio.tokenizers.text import TextCodec, TextTokenizer
from mio.types import MioError, MissingError, Text
from mio.vocab import Vocabulary

WORDS: Pattern = Repeat(One("text"), 1, None)
ANIMAL = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "legs": {"type": "integer", "minimum": 2, "maximum": 100},
        "tags": {"type": "array", "items": {"enum": ["wild", "tame"]}, "minItems": 1},
        "young": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "legs", "young"],
    "additionalProperties": False,
}
SCHEMAS: list[dict[str, Any]] = [ANIMAL, {}, {"type": "array", "items": {"type": "object"}}, {"type": "string"}]
STOP = 10**6


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece", "sentencepiece, converted"])
def codec(request: pytest.FixtureRequest, text: TextTokenizer) -> TextCodec:
    if request.param == "byte-level":
        return text
    released = SentencePieceTokenizer(train_text())
    return released if request.param == "sentencepiece" else TextTokenizer(released.to_json())


def spelling_of(codec: TextCodec) -> Spelling:
    return Spelling(codec.spelled(), codec.encode)


@pytest.fixture(scope="module")
def spelling(text: TextTokenizer) -> Spelling:
    return spelling_of(text)


def walk(text: Constraint, tokens: int, rng: np.random.Generator) -> bytes:
    """Random ids of an answer that is one text, as bytes."""
    grammar, out = Grammar([], np.arange(1), STOP, Limits(tokens, WORDS, text=text)), []
    while not grammar.finished:
        out.append(int(rng.choice(grammar.allowed())))
        grammar.take(out[-1])
    assert len(out) <= tokens
    return b"".join(text.spelling.data[id] for id in out[:-1])


@pytest.mark.parametrize("words", ["Two  foxes,\n\tnaïve 你好 ▁ 🦊", "<0x0A><|im_end|> {}", ""])
def test_what_ids_are_spelled_as_is_the_text_they_were_made_of(codec: TextCodec, words: str) -> None:
    told = words.replace("▁", "") if isinstance(codec, TextTokenizer) else words  # stands for a space there
    data = codec.spelled()
    assert len(data) == codec.size
    assert b"".join(data[id] for id in codec.encode(told)) == told.encode()


@pytest.mark.parametrize("schema", SCHEMAS, ids=["animal", "any", "objects", "string"])
def test_any_walk_in_any_budget_is_json_of_the_schema(codec: TextCodec, schema: dict[str, Any]) -> None:
    start, rng = constraint(spelling_of(codec), Schema.of(schema)), np.random.default_rng(0)
    for extra in (1, 2, 5, 20, 60, 150):
        jsonschema.validate(json.loads(walk(start, len(start.way) + extra, rng)), schema)


def test_free_walks_differ_and_short_budgets_take_the_way_out(spelling: Spelling) -> None:
    start, rng = constraint(spelling, Schema.of(ANIMAL)), np.random.default_rng(0)
    way = b"".join(spelling.data[id] for id in start.way)
    assert walk(start, len(start.way) + 1, rng) == way
    assert len({walk(start, 300, rng) for _ in range(4)} - {way}) == 4
    with pytest.raises(MioError, match=f"needs {len(start.way) + 1}"):
        walk(start, len(start.way), rng)


@pytest.mark.parametrize("pattern", ["(ab)+c", "[0-9]{3}-[0-9]{4}", "a+b|x{3}", "(yes|no)!?", "[^x]{2,5}x"])
def test_any_walk_matches_its_regular_expression(spelling: Spelling, pattern: str) -> None:
    start, rng = constraint(spelling, Regex(pattern)), np.random.default_rng(1)
    for extra in (1, 3, 30, 60):
        assert re.fullmatch(pattern, walk(start, len(start.way) + extra, rng).decode(), re.DOTALL)


def language(grammar: Grammar, data: list[bytes]) -> set[bytes]:
    if grammar.finished:
        return {b""}
    out = set()
    for id in grammar.allowed().tolist():
        after = grammar.copy()
        after.take(id)
        out |= {(b"" if id == STOP else data[id]) + rest for rest in language(after, data)}
    return out


def test_what_is_let_through_is_all_that_has_the_shape() -> None:
    data, pattern = [b"a", b"b", b"c", b"ab", b"bc"], "(a|bc){1,2}b?"
    start = constraint(Spelling(data, lambda text: ["abc".index(c) for c in text]), Regex(pattern))
    found = language(Grammar([], np.arange(1), STOP, Limits(60, WORDS, text=start)), data)
    strings = ("".join(s) for n in range(7) for s in product("abc", repeat=n))
    assert found == {s.encode() for s in strings if re.fullmatch(pattern, s)}


def test_a_back_end_is_asked_for_such_text_id_by_id(spelling: Spelling) -> None:
    grammar = Grammar([], np.arange(1), STOP, Limits(60, WORDS, text=constraint(spelling, Regex("[0-9]{2}"))))
    for _ in range(3):
        run = run_of(grammar)
        assert (run.most, run.stay.tolist(), run.leave.tolist()) == (1, [], grammar.allowed().tolist())
        grammar.take(int(run.leave[0]))
    assert grammar.finished


# ------------------------------------------------------------------------------------------------------- in answers


def request(vocab: Vocabulary, spelling: Spelling, out: str, shape: Shape, seed: int, tokens: int = 0) -> Request:
    """At temperature 2, in a budget that depends on the seed."""
    rules = [SpanRule("image", *vocab.bounds("image"), vocab.level_ids("image"), steps=4)]
    pattern = read(out, {"text": WORDS, "image": One("image")})
    limits = Limits(tokens or 120 + 9 * seed, pattern, text=constraint(spelling, shape))
    grammar = Grammar(rules, np.arange(vocab.text_size), vocab.id("<|im_end|>"), limits)
    return Request([seed, 1], grammar, dict.fromkeys(("text", "image"), Sampling(temperature=2.0, top_p=1.0)), seed)


def done(model: Backbone, requests: list[Request]) -> list[Request]:
    for _ in generate(model, requests):
        pass
    assert [r.error for r in requests] == [None] * len(requests)
    return requests


def test_every_text_of_a_random_model_validates_alone_and_in_company(
    vocab: Vocabulary, text: TextTokenizer, spelling: Spelling, backbone: Backbone
) -> None:
    kinds = ["text", "(text image){2}", "image | text", "image? text image"]
    asked = [(out, seed) for seed in range(6) for out in kinds]
    together = done(backbone, [request(vocab, spelling, out, Schema.of(ANIMAL), seed) for out, seed in asked])
    for r, (out, _) in zip(together, asked, strict=True):
        parsed = parse(np.array(r.out), vocab, text.decode)
        texts = [part.text for part in parsed.parts if isinstance(part, Text)]
        assert parsed.faults == ()
        assert len(texts) == {"(text image){2}": 2, "image | text": len(texts)}.get(out, 1)
        for one in texts:
            jsonschema.validate(json.loads(one), ANIMAL)
    for number in (0, 5, 23):
        alone = request(vocab, spelling, asked[number][0], Schema.of(ANIMAL), asked[number][1])
        assert done(backbone, [alone])[0].out == together[number].out


def test_beams_keep_to_the_shape(
    vocab: Vocabulary, text: TextTokenizer, spelling: Spelling, backbone: Backbone
) -> None:
    asked = request(vocab, spelling, "text", Regex("[0-9]{2,9}(,[0-9]{2,9})*"), 0, tokens=30)
    asked.sampling = {"text": BeamSearch(beams=3)}
    done(backbone, [asked])
    for _, ids in asked.ranked:
        assert re.fullmatch("[0-9]{2,9}(,[0-9]{2,9})*", text.decode(ids[:-1]))


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("written", "reason"),
    [("{", "is no JSON object"), ("[]", "is no JSON object"), ('{"type": "objekt"}', "objekt"), ('{"not": {}}', "not")],
)
def test_what_is_no_schema_is_refused(spelling: Spelling, written: str, reason: str) -> None:
    with pytest.raises(MioError, match=reason):
        constraint(spelling, Schema(written))


def test_expressions_that_cannot_be_read_or_never_end_are_refused(spelling: Spelling) -> None:
    with pytest.raises(MioError, match="cannot be given this shape"):
        constraint(spelling, Regex("(ab"))
    with pytest.raises(MioError, match="No short text"):
        constraint(spelling, Regex("[ab]{600}"))


def test_a_second_text_after_one_that_is_whole_is_an_error_with_a_name(spelling: Spelling) -> None:
    asked = Limits(90, read("text text", {"text": WORDS}), text=constraint(spelling, Regex("a")))
    grammar = Grammar([], np.arange(1), STOP, asked)
    grammar.take(int(grammar.allowed()[0]))
    with pytest.raises(MioError, match="Nothing can follow"):
        grammar.allowed()


def test_a_budget_that_one_id_outgrew_is_named(spelling: Spelling) -> None:
    text = constraint(spelling, Regex("a|b{90}")).copy()
    text.take(spelling.ids(b"b")[0])
    with pytest.raises(MioError, match="more ids; 20 are left"):
        text.allowed(20)


def test_llguidance_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingError) as caught:
        constraint(Spelling([b"a"], lambda text: [0]), Regex("a"))
    assert "mio[schema]" in caught.value.fix
