"""pretrained/base.py: a base model's text tokenizer and names, whichever of the usual files it comes in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, SENTENCES
from fabricate_llama import SMALL, folder_of
from fabricate_release import train_text
from tokenizers import Tokenizer

from mio.checkpoint import read_json, write_json
from mio.pretrained.base import PROBES, read_text
from mio.tokenizers.sentencepiece import SentencePieceTokenizer
from mio.tokenizers.text import TextTokenizer
from mio.types import DataError, MioError, MissingError
from mio.vocab import Vocabulary

FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
YI = SentencePieceTokenizer(train_text())
LLAMA2: dict[str, dict[str, Any]] = {  # two ways in which transformers has written the space before every text
    "prepend": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        }
    },
    "metaspace": {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
    },
}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def bare(path: Path, rows: int) -> Path:
    """A base model with so many rows and no tokenizer."""
    return folder_of(path, replace(SMALL, vocabulary=rows))


def stock(text: TextTokenizer, tokens: list[str]) -> dict[str, Any]:
    """A tokenizer.json with special tokens behind the text's ids."""
    added = [{"id": text.size + n, "content": token} | FLAGS for n, token in enumerate(tokens)]
    found: dict[str, Any] = json.loads(text.to_json())
    return found | {"added_tokens": added}


def test_rows_beyond_the_text_have_the_names_of_added_tokens_or_none(text: TextTokenizer, tmp_path: Path) -> None:
    folder = bare(tmp_path, text.size + 3)
    write_json(folder / "tokenizer.json", stock(text, ["<|endoftext|>", "<|im_start|>"]))
    found, names = read_text(folder)
    assert names == {
        text.size: "<|endoftext|>",
        text.size + 1: "<|im_start|>",
        text.size + 2: f"<unused {text.size + 2}>",
    }
    assert found.encode(SENTENCES[0]) == text.encode(SENTENCES[0])


def test_names_of_special_tokens_are_text_to_the_tokenizer_taken_over(text: TextTokenizer, tmp_path: Path) -> None:
    folder = bare(tmp_path, text.size + 1)
    write_json(folder / "tokenizer.json", stock(text, ["<|endoftext|>"]))
    ids = read_text(folder)[0].encode("<|endoftext|>")
    assert len(ids) > 1 and max(ids) < text.size


def test_yi_keeps_the_ids_of_its_own_special_tokens(tmp_path: Path) -> None:
    folder = bare(tmp_path, YI.size)
    (folder / "tokenizer.model").write_bytes(train_text())
    text, names = read_text(folder)
    vocab = Vocabulary.build([names.get(id, f"text{id}") for id in range(text.size)], ROWS)
    s = vocab.specials
    assert [vocab.id(token) for token in (s.pad, s.bos, s.eos, s.im_start, s.im_end)] == [0, 1, 2, 6, 7]
    assert len(vocab) == text.size + 4 + 16 + 24 and vocab.id("<image>") == text.size
    assert not vocab.control_ids & {*text.encode("".join(names.values()))}


@pytest.mark.parametrize("form", LLAMA2)
def test_a_space_before_every_text_is_left_out(form: str, tmp_path: Path) -> None:
    folder, plain = bare(tmp_path, YI.size), json.loads(YI.to_json())
    decoders = {"decoder": {"type": "Sequence", "decoders": [*plain["decoder"]["decoders"], STRIP]}}
    write_json(folder / "tokenizer.json", plain | LLAMA2[form] | decoders)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = read_text(folder)[0]
    assert own.encode(PROBES[0]).ids != text.encode(PROBES[0]) == YI.encode(PROBES[0])
    assert text.decode(text.encode(" a fox")) == " a fox"


def test_a_tokenizer_that_loses_something_is_refused(text: TextTokenizer, tmp_path: Path) -> None:
    folder = bare(tmp_path, text.size)
    write_json(folder / "tokenizer.json", stock(text, []) | {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(MioError, match="do not come back"):
        read_text(folder)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(text: TextTokenizer, tmp_path: Path) -> None:
    folder = bare(tmp_path, text.size)
    write_json(folder / "tokenizer.json", stock(text, ["<|endoftext|>"]))
    with pytest.raises(DataError, match=f"ids beyond the model's {text.size}"):
        read_text(folder)


def test_a_base_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        read_text(bare(tmp_path, 300))


def test_a_lacking_weight_file_is_named_before_anything_is_trained(text: TextTokenizer, tmp_path: Path) -> None:
    folder = bare(tmp_path, text.size)
    write_json(folder / "tokenizer.json", stock(text, []))
    lost = sorted(set(read_json(folder / "pytorch_model.bin.index.json")["weight_map"].values()))[1]
    (folder / lost).unlink()
    with pytest.raises(MissingError, match=lost):
        read_text(folder)
