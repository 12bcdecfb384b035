"""The folder for vLLM: its grammars let through what mio's own grammar does, written as ids alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricate import fabricate_model

from mio.checkpoint import MANIFEST
from mio.cli import main
from mio.decoding.sampling import GREEDY
from mio.models.backbone import Backbone, BackboneConfig
from mio.pretrained import vllm
from mio.pretrained.stock import Outgoing
from mio.pretrained.vllm import GRAMMARS, check, export_vllm, grammars
from mio.sequence import ChatTemplate
from mio.tokenizers.text import TextTokenizer
from mio.types import DataError
from mio.vocab import Vocabulary


@pytest.fixture(scope="module")
def outgoing(text: TextTokenizer, vocab: Vocabulary) -> Outgoing:
    torch.manual_seed(0)
    config = BackboneConfig(len(vocab), 1, 16, 2, 1, 8, 24, 10_000.0, positions=128, tied=True)
    return Outgoing("small", Backbone(config).eval(), vocab, text, ChatTemplate(), GREEDY, Path("nowhere"))


def ids(vocab: Vocabulary, *tokens: str) -> list[int]:
    return [vocab.id(token) for token in tokens]


def test_an_image_is_its_begin_its_codes_its_end_and_the_stop(outgoing: Outgoing) -> None:
    vocab = outgoing.vocab
    begin, end, first, last, stop = ids(vocab, "<image>", "</image>", "<img0>", "<img15>", "<|im_end|>")
    assert grammars(outgoing)["image"] == (
        f"start: image <[{stop}]>\nimage: <[{begin}]> <[{first}-{last}]>{{4}} <[{end}]>"
    )


def test_text_is_all_text_ids_and_no_other(outgoing: Outgoing) -> None:
    told = grammars(outgoing)["text"]
    (stop,) = ids(outgoing.vocab, "<|im_end|>")
    assert told == f"start: text* <[{stop}]>\ntext: <[0-{outgoing.vocab.text_size - 1}]>"


def test_speech_of_each_length_has_as_many_codes_of_every_book(outgoing: Outgoing) -> None:
    lines = grammars(outgoing, steps=7)["speech"].split("\n")
    assert re.findall(r"speech\d+", lines[1]) == [f"speech{n}" for n in range(1, 8)]
    for n, line in enumerate(lines[2:], 1):
        assert re.findall(r"\{(\d+)\}", line) == [str(n)] * 3
        books = [outgoing.vocab.level_ids("speech")[level] for level in range(3)]
        assert re.findall(r"\[(.*?)\]", line) == [f"{book.min()}-{book.max()}" for book in books]


def test_rows_of_other_layouts_are_laid_out_in_theirs(outgoing: Outgoing) -> None:
    image, speech, video = outgoing.vocab.rows
    for layout, counts in {"alternating": ["1"] * 6, "delay": ["1"] * 6, "content": []}.items():
        row = replace(speech, output_layout=layout)
        other = replace(
            outgoing, vocab=Vocabulary(outgoing.vocab.tokens, outgoing.vocab.text_size, (image, row, video))
        )
        told = grammars(other, steps=2)["speech"].split("\n")
        assert re.findall(r"\{(\d+)\}", told[-1]) == counts
        assert ("+" in told[-1]) == (layout == "content")


@pytest.fixture(scope="module")
def exported(outgoing: Outgoing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "out"
    assert export_vllm(outgoing, folder, load=False).proof.tensors > 0
    return folder


def test_the_folder_holds_the_grammars_and_says_how_to_serve_it(exported: Path, outgoing: Outgoing) -> None:
    assert json.loads((exported / GRAMMARS).read_text()) == grammars(outgoing)
    assert GRAMMARS in json.loads((exported / MANIFEST).read_text())
    card = (exported / "README.md").read_text()
    assert "vllm serve" in card and "small" in card and "{" + "tried}" not in card


def test_it_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate_model(tmp_path / "model")
    assert main(["export", "vllm", str(folder), "-o", str(tmp_path / "out"), "--no-load", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"] > 0
    assert {"text", "image", "speech", "any"} == {*json.loads((tmp_path / "out" / GRAMMARS).read_text())}


@pytest.mark.filterwarnings("ignore")  # theirs
class TestWithLlguidance:
    """Where it is installed: the library that vLLM asks."""

    def test_it_lets_through_what_mio_does_at_every_step(self, exported: Path, outgoing: Outgoing) -> None:
        pytest.importorskip("llguidance")
        assert check(outgoing, exported) == 4

    def test_a_grammar_that_lets_through_more_is_found(
        self, exported: Path, outgoing: Outgoing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("llguidance")
        held: dict[str, Any] = grammars(outgoing, 3)
        monkeypatch.setattr(vllm, "STEPS", 3)
        held["image"] = held["image"].replace("{4}", "{3}")
        for path in exported.iterdir():
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / GRAMMARS).write_text(json.dumps(held))
        with pytest.raises(DataError, match="image"):
            check(outgoing, tmp_path)


def test_a_base_model_ends_with_its_own_stop(outgoing: Outgoing) -> None:
    base = replace(outgoing, stop="<|endoftext|>")
    (end,) = ids(outgoing.vocab, "<|endoftext|>")
    assert grammars(base)["any"].splitlines()[0].endswith(f"<[{end}]>")
    assert np.array_equal(vllm.text_ids(base), np.arange(outgoing.vocab.text_size))
