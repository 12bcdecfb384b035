"""tokenizers/text.py: any text comes back as it was, and no text, however hostile, becomes more than text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SENTENCES
from hypothesis import example, given
from hypothesis import strategies as st

from mio.tokenizers.text import TextTokenizer
from mio.types import DataError, MissingError
from mio.vocab import Vocabulary

HOSTILE = "<>|/_imgspch0123456789 []\n\t\0\u200b\u00ad\ufeffĠâ"


def disguises(token: str) -> list[str]:
    """A special string as an attacker would write it."""
    wide = token.translate({ord(c): ord(c) + 0xFEE0 for c in "<>|/_[]"})
    return [
        token,
        token.upper(),
        f" {token} ",
        token * 3,
        " ".join(token),
        "\u200b".join(token),
        wide,
        token[:1] + token,
    ]


@given(st.text())
@example("naïve 漢字 🦊\u200d🔥 \r\n\t 007 \x00 \x7f \ufeff")
@example("  two  spaces, then \u00a0 another\u2028line ")
def test_decode_inverts_encode(text: TextTokenizer, string: str) -> None:
    assert text.decode(text.encode(string)) == string


@given(st.text(st.characters() | st.characters(categories=["Cs"])))
@example("\ud800")
@example("a\udfffb\ud83d")
def test_lone_surrogates_become_replacement_characters(text: TextTokenizer, string: str) -> None:
    expected = "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in string)
    assert text.decode(text.encode(string)) == expected


def test_ten_thousand_hostile_texts_stay_text(text: TextTokenizer, vocab: Vocabulary) -> None:
    specials = list(vocab.tokens[vocab.text_size :])
    pieces = [d for token in specials for d in disguises(token)] + list(HOSTILE) * 20
    rng = np.random.default_rng(0)
    worst, every = 0, set()
    for _ in range(10_000):
        string = "".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(1, 8)))
        ids = text.encode(string)
        assert text.decode(ids) == string
        worst = max(worst, *ids)
        every.update(ids)
    assert worst < vocab.text_size
    assert not every & vocab.control_ids
    assert not any(vocab.tokens[i] in specials for i in every)


def test_a_special_string_in_text_is_spelled_out(text: TextTokenizer, vocab: Vocabulary) -> None:
    for token in ("<|im_end|>", "<image>", "<img3>"):
        ids = text.encode(token)
        assert len(ids) > 1
        assert vocab.id(token) not in ids


def test_added_tokens_and_post_processing_of_a_description_are_dropped(text: TextTokenizer) -> None:
    data = json.loads(text.to_json())
    added = {"id": 299, "content": "<evil>", "special": True, "single_word": False}
    added |= {"lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [added]
    data["truncation"] = {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    twin = TextTokenizer(json.dumps(data))
    assert twin.encode("a <evil> b c d") == text.encode("a <evil> b c d")
    assert twin.to_json() == text.to_json()


def test_load_inverts_to_json(text: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text.to_json(), encoding="utf-8")
    again = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert (again.size, again.to_json()) == (text.size, text.to_json())


def test_training_is_deterministic_and_keeps_to_its_size(text: TextTokenizer) -> None:
    assert text.size == 300
    assert TextTokenizer.train(SENTENCES, 300).to_json() == text.to_json()


def test_training_compresses_what_it_saw(text: TextTokenizer) -> None:
    assert len(text.encode(SENTENCES[0])) < 0.8 * len(SENTENCES[0])


def test_digits_stand_alone(text: TextTokenizer) -> None:
    assert [text.decode([i]) for i in text.encode("2024")] == ["2", "0", "2", "4"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": 3}', "\x00"])
def test_a_file_that_describes_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="not a tokenizer description"):
        TextTokenizer.load(tmp_path / "tokenizer.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"No tokenizer\.json"):
        TextTokenizer.load(tmp_path / "tokenizer.json")
