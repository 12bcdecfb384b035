"""pretrained/language.py and placeholders.py: ids come from a folder's own strings, and what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from struct import pack
from typing import Any

import numpy as np
import pytest
from fabricate_release import (
    ADDED,
    IMAGES,
    LAYOUTS,
    SPEECHES,
    YI,
    codes,
    fabricate_language,
    settings,
    train_text,
    write_names,
)
from numpy.testing import assert_array_equal

from mio.checkpoint import read_json, write_json
from mio.models.backbone import BackboneConfig
from mio.pretrained.language import read_language, read_vocabulary, rows, stop_token
from mio.pretrained.placeholders import placed
from mio.sequence import MIO_SYSTEMS, ChatTemplate, parse, render, span_ids
from mio.tokenizers.sentencepiece_file import pieces
from mio.types import DataError, Encoded, Message, MissingError, Text, Turns

NAMES = "tokenizer_config.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_language(tmp_path_factory.mktemp("language") / "model")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return copytree(folder, tmp_path / "model", ignore=lambda _, names: [n for n in names if n.endswith(".bin")])


# ------------------------------------------------------------------------------------------------ ids


def message(text: bytes, score: float) -> bytes:
    """A piece, as a model file holds it."""
    piece = bytes([10, len(text)]) + text + b"\x15" + pack("<f", score)
    return bytes([10, len(piece)]) + piece


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language side's files with as many ids as the release."""
    folder, model = tmp_path_factory.mktemp("official"), train_text()
    more = b"".join(message(f"piece {n}".encode(), -1e6 - n) for n in range(64_000 - len(pieces(model))))
    (folder / "tokenizer.model").write_bytes(model + more)  # messages of one kind add up when they are joined
    write_json(folder / "config.json", settings(BackboneConfig(), 64_000))
    return folder


@pytest.mark.parametrize(
    ("layout", "image", "speech"), [("A", 64_006, 72_198), ("B", 68_102, 64_006), ("permuted", None, None)]
)
def test_a_folder_of_the_releases_size_has_the_ids_of_the_release(
    official: Path, layout: str, image: int | None, speech: int | None
) -> None:
    write_names(official, {64_000 + n: token for n, token in enumerate((*ADDED, *codes(layout)))})
    vocab = read_vocabulary(official)
    assert (len(vocab), vocab.text_size) == (76_294, 64_000)
    assert [vocab.id(token) for token in ADDED] == list(range(64_000, 64_006))
    assert vocab.control_ids == {0, 1, 2, 6, 7}
    assert (vocab.bounds("image"), vocab.bounds("speech")) == ((64_005, 64_004), (64_003, 64_001))
    if image is not None and speech is not None:
        assert_array_equal(vocab.level_ids("image"), image + np.arange(8192)[None])
        assert_array_equal(vocab.level_ids("speech"), speech + np.arange(4096).reshape(4, 1024))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_code_has_the_id_of_its_string_in_any_order(copied: Path, layout: str) -> None:
    size = read_vocabulary(copied).text_size
    where = {token: size + n for n, token in enumerate((*ADDED, *codes(layout)))}
    write_names(copied, {id: token for token, id in where.items()})
    vocab = read_vocabulary(copied)
    assert_array_equal(vocab.level_ids("image").ravel(), [where[token] for token in IMAGES])
    assert_array_equal(vocab.level_ids("speech").ravel(), [where[token] for token in SPEECHES])
    levels, found = vocab.codes("speech", np.array([where["<spch0>"], where["<spch1025>"], where["<spch4095>"]]))
    assert (levels.tolist(), found.tolist()) == ([0, 1, 3], [0, 1, 1023])


def test_rows_are_those_of_mio(folder: Path) -> None:
    image, speech, video = rows(read_json(folder / "config.json"))
    assert (image.codebooks, image.codebook_size, image.steps) == (1, 8192, 32)
    assert (speech.codebooks, speech.codebook_size, speech.steps, speech.rate) == (4, 1024, 0, 50.0)
    assert (speech.input_layout, speech.output_layout) == ("content", "sequential")
    assert video.spans_of == "image"
    assert rows({}) == (image, speech, video)


def test_speech_is_read_as_content_and_written_in_four_runs(folder: Path) -> None:
    vocab = read_vocabulary(folder)
    part = Encoded("speech", np.array([[[5, 0], [6, 1], [7, 2], [8, 1023]]]))
    spelled = [[vocab.tokens[i] for i in span_ids(part, vocab, as_input)] for as_input in (True, False)]
    assert "".join(spelled[0]) == "<spch><spch5><spch0></spch>"
    levels = "<spch5><spch0><spch1030><spch1025><spch2055><spch2050><spch3080><spch4095>"
    assert "".join(spelled[1]) == f"<spch>{levels}</spch>"


Change = Any


def names(folder: Path, change: Change) -> None:
    """Change the added tokens, by id."""
    found = read_json(folder / NAMES)
    change(found["added_tokens_decoder"])
    write_json(folder / NAMES, found)


def at(added: dict[str, Any], token: str) -> str:
    return next(id for id, t in added.items() if t["content"] == token)


def rename(added: dict[str, Any], token: str, name: str) -> None:
    added[at(added, token)]["content"] = name


def move(added: dict[str, Any], token: str, id: int) -> None:
    added[str(id)] = added.pop(at(added, token))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop(at(a, "<img5>")), "'<img5>' is missing"),
        (lambda a: a.pop(at(a, "<spch4095>")), "'<spch4095>' is missing"),
        (lambda a: a.pop(at(a, "</image>")), "'</image>' is missing"),
        (lambda a: rename(a, "<img5>", "<img6>"), "'<img6>' stands twice"),
        (lambda a: rename(a, "<spch0>", "<img0>"), "'<img0>' stands twice"),
        (lambda a: move(a, "<img5>", 300), "'<img5>' has id 300, which is the text piece"),
        (lambda a: move(a, "<img5>", 99_999), "'<img5>' has id 99999"),
        (lambda a: move(a, "<img5>", -1), "'<img5>' has id -1"),
        (lambda a: a.update({f"0{at(a, '<img5>')}": {"content": "<img9999>"}}), "is both '<img5>' and '<img9999>'"),
        (lambda a: a.update({at(a, "<img5>"): a[at(a, "<spch7>")]}), "'<spch7>' stands twice|'<img5>' is missing"),
        (lambda a: a.update({"3": {"content": "<img5>"}}), "'<img5>' has id 3, which is the text piece"),
        (lambda a: a.update({"x": {"content": "<img5>"}}), "added_tokens_decoder"),
        (lambda a: a.update({"600": 5}), "added_tokens_decoder"),
    ],
)
def test_a_code_that_is_missing_doubled_or_in_anothers_place_is_refused_by_name(
    copied: Path, change: Change, words: str
) -> None:
    names(copied, change)
    with pytest.raises(DataError, match=words):
        read_vocabulary(copied)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_vocab_size": 64_000}, "not 64000"),
        ({"vocab_size": 700}, "and the model 700 ids"),
        ({"visual_vocab_size": 8193}, "'<img8192>' is missing"),
        ({"speech_vocab_size": 4098}, "4098 speech codes"),
        ({"speech_vocab_size": "many"}, "'many'"),
    ],
)
def test_numbers_of_codes_are_those_of_the_configuration(copied: Path, change: dict[str, Any], words: str) -> None:
    write_json(copied / "config.json", read_json(copied / "config.json") | change)
    with pytest.raises(DataError, match=words):
        read_vocabulary(copied)


def test_fewer_codes_than_tokens_leave_the_rest_unused(copied: Path) -> None:
    change = {"visual_vocab_size": 8000, "speech_vocab_size": 4000}
    write_json(copied / "config.json", read_json(copied / "config.json") | change)
    assert read_vocabulary(copied).level_ids("speech").shape == (4, 1000)


def retrain(folder: Path, *symbols: str) -> None:
    """Another tokenizer.model, with these symbols as pieces from id 3 on, and the other files to fit."""
    (folder / "tokenizer.model").write_bytes(train_text(user_defined_symbols=list(symbols)))
    text = len(pieces((folder / "tokenizer.model").read_bytes()))
    added = (*ADDED, *codes("A"))
    write_names(folder, {text + n: token for n, token in enumerate(added)})
    sizes = {"text_vocab_size": text, "vocab_size": text + len(added)}
    write_json(folder / "config.json", read_json(folder / "config.json") | sizes)


def test_a_text_piece_with_an_added_tokens_name_is_neither_that_token_nor_reached_by_text(copied: Path) -> None:
    retrain(copied, *YI, "<img5>", "<image>")
    text, vocab = read_language(copied)
    assert vocab.id("<img5>") >= vocab.text_size
    assert min(vocab.bounds("image")) >= vocab.text_size
    ids = text.encode("<img5><image>")
    assert not {9, 10} & {*ids}
    assert text.decode(ids) == "<img5><image>"


def test_a_text_tokenizer_without_the_tokens_of_turns_is_refused(copied: Path) -> None:
    retrain(copied, *YI[:3])
    with pytest.raises(DataError, match=r"'<\|im_(start|end)\|>' is missing"):
        read_vocabulary(copied)


@pytest.mark.parametrize("gone", ["config.json", "tokenizer.model", NAMES])
def test_missing_files_are_named(copied: Path, gone: str) -> None:
    (copied / gone).unlink()
    with pytest.raises(MissingError, match=gone):
        read_vocabulary(copied)


@pytest.mark.parametrize("content", ["[]", "{}", '{"added_tokens_decoder": []}', '{"added_tokens_decoder": {"9": []}}'])
def test_names_of_another_form_are_refused(copied: Path, content: str) -> None:
    (copied / NAMES).write_text(content)
    with pytest.raises(DataError, match="added_tokens_decoder"):
        read_vocabulary(copied)


# ------------------------------------------------------------------------------------------------ where answers end


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("m-a-p/MIO-7B-Instruct", 7),
        ("m-a-p/MIO-7B-Base", 2),
        ("models/mio-chat", 7),
        ("instructions/MIO-7B-Base", 2),
        ("base/mio-7b-instruct-bf16", 7),
        ("models--m-a-p--MIO-7B-Instruct/snapshots/0a1b2c", 7),
        ("somewhere/mio", 2),
    ],
)
def test_where_answers_end_goes_by_the_name(name: str, stop: int) -> None:
    assert stop_token(name) == stop


@pytest.mark.parametrize(("file", "ends"), [("generation_config.json", 7), ("config.json", [2, 7])])
def test_a_file_that_names_the_end_of_the_turn_decides(tmp_path: Path, file: str, ends: object) -> None:
    folder = tmp_path / "MIO-7B-Base"
    folder.mkdir()
    write_json(folder / "config.json", {"eos_token_id": 2})
    assert stop_token(folder) == 2
    write_json(folder / file, {"eos_token_id": ends})
    assert stop_token(folder) == 7


def test_that_a_file_names_the_end_of_text_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "MIO-7B-Instruct"
    folder.mkdir()
    write_json(folder / "generation_config.json", {"eos_token_id": 2})
    assert stop_token(folder) == 7


# ------------------------------------------------------------------------------------------------ conversations

HEAD = "<|startoftext|><|im_start|>system\n"
TURNS = Turns((Message("user", (Text("Hi"),)), Message("assistant", (Text("Yes"),)), Message("user", (Text("Why?"),))))
REST = (
    "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>"
)


def spelled(folder: Path, turns: Turns, mode: str, open_turn: bool = True) -> str:
    """A conversation as the official script would write it before it looks up tokens."""
    text, vocab = read_language(folder)
    ids = render(turns, vocab, text.encode, ChatTemplate(tokens=True), mode=mode, open_turn=open_turn).ids
    special = {*vocab.control_ids, *range(vocab.text_size, len(vocab))}
    return "".join(vocab.tokens[i] if i in special else text.decode([i]) for i in ids.tolist())


@pytest.mark.parametrize("mode", ["std", "voice"])
@pytest.mark.parametrize("opened", [True, False])
def test_conversations_are_written_as_the_script_writes_them(folder: Path, mode: str, opened: bool) -> None:
    ending = "\n<|im_start|>assistant\n" if opened else ""
    assert spelled(folder, TURNS, mode, opened) == f"{HEAD}{MIO_SYSTEMS[mode]}{REST}{ending}"


def test_a_system_message_takes_the_place_of_the_modes(folder: Path) -> None:
    custom = Turns((Message("system", (Text("Only <spch>."),)), *TURNS.messages))
    assert spelled(folder, custom, "voice", open_turn=False) == f"{HEAD}Only <spch>.{REST}"


def test_the_voice_prompt_names_the_tokens_themselves_and_a_users_words_do_not(folder: Path) -> None:
    text, vocab = read_language(folder)
    begin, end = vocab.bounds("speech")

    def count(turns: Turns, **options: Any) -> int:
        template = ChatTemplate(**options)
        ids = render(turns, vocab, text.encode, template, mode="voice").ids
        return int(np.isin(ids, [begin, end]).sum())

    said = (Message("system", (Text("<spch></spch>"),)), Message("user", (Text("<spch> <image> </spch>"),)))
    assert count(TURNS, tokens=True) == 2
    assert count(TURNS) == count(Turns(said), tokens=True) == count(Turns(said[1:])) == 0
    assert count(Turns(said[1:]), tokens=True) == 2


@pytest.mark.parametrize("length", [31, 33])
def test_an_image_of_another_length_than_32_is_reported_and_its_neighbours_stay(folder: Path, length: int) -> None:
    text, vocab = read_language(folder)
    begin, end = vocab.bounds("image")
    good, bad = (np.concatenate([[begin], vocab.level_ids("image")[0, :n], [end]]) for n in (32, length))
    parsed = parse(np.concatenate([good, bad, good, bad[:-1]]), vocab, text.decode)
    assert [p.codes.shape for p in parsed.parts if isinstance(p, Encoded)] == [(1, 1, 32)] * 2
    assert parsed.faults == (f"A span of image has {length} codes instead of 32.",) * 2


# ------------------------------------------------------------------------------------------------ placeholders

PICTURES = [Encoded("image", np.full((1, 1, 32), n)) for n in range(12)]
SOUNDS = [Encoded("speech", np.full((1, 1, 4), n)) for n in range(2)]


def kinds(parts: tuple[Any, ...]) -> list[str]:
    return [p.text if isinstance(p, Text) else f"{p.modality}{p.codes.flat[0]}" for p in parts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no media", ["no media"]),
        ("", []),
        (
            "<image_placeholder_0> and <speech_placeholder_1>, <image_placeholder_0>",
            ["image0", " and ", "speech1", ", ", "image0"],
        ),
        ("<image_placeholder_1><image_placeholder_10><image_placeholder_11>", ["image1", "image10", "image11"]),
        ("<image_placeholder_12> <speech_placeholder_2>", ["<image_placeholder_12>", " ", "<speech_placeholder_2>"]),
        ("<image_placeholder_01>", ["<image_placeholder_01>"]),
        ("<image_placeholder_>x<image_placeholder_0", ["<image_placeholder_>x<image_placeholder_0"]),
        ("<speech_placeholder_0><image_placeholder_0>", ["speech0", "image0"]),
    ],
)
def test_placeholders_become_media_in_their_places(text: str, expected: list[str]) -> None:
    assert kinds(placed(text, PICTURES, SOUNDS)) == expected


def test_the_names_file_is_read_whatever_the_order_of_its_lines(copied: Path) -> None:
    before = read_vocabulary(copied).fingerprint()
    found = read_json(copied / NAMES)
    found["added_tokens_decoder"] = dict(reversed(found["added_tokens_decoder"].items()))
    (copied / NAMES).write_text(json.dumps(found))
    assert read_vocabulary(copied).fingerprint() == before
