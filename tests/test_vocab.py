"""vocab.py: codes and ids are one to one, whatever the order of the token list, and nothing else converts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import ROWS
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.types import DataError, MioError, Modality
from mio.vocab import Specials, Vocabulary

MIO = (
    Modality("image", 1, 8192, 32, "<image>", "</image>", "<img{}>"),
    Modality("speech", 4, 1024, 0, "<spch>", "</spch>", "<spch{}>", "content", "sequential", rate=50.0),
    Modality("video", spans_of="image"),
)
YI = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>", 6: "<|im_start|>", 7: "<|im_end|>", 8: "<|im_sep|>"}
ADDED = ("[SPCH]", "</spch>", "[IMG]", "<spch>", "</image>", "<image>")
IMAGE, SPEECH = tuple(f"<img{n}>" for n in range(8192)), tuple(f"<spch{n}>" for n in range(4096))
TEXT = tuple(YI.get(i, f"piece{i}") for i in range(64000))


@cache
def official(order: str) -> Vocabulary:
    """The released layout, its code blocks in one of the orders that the public files leave open."""
    codes = {"image first": IMAGE + SPEECH, "speech first": SPEECH + IMAGE}.get(order)
    codes = codes or tuple(np.random.default_rng(0).permutation(IMAGE + SPEECH).tolist())
    return Vocabulary(TEXT + ADDED + codes, 64000, MIO)


orders = pytest.mark.parametrize("order", ["image first", "speech first", "permuted"])


@orders
def test_the_official_list_has_76294_tokens_with_specials_where_the_checkpoint_has_them(order: str) -> None:
    vocab = official(order)
    assert len(vocab) == 76294
    assert [vocab.id(t) for t in ADDED] == list(range(64000, 64006))
    s = vocab.specials
    assert [vocab.id(t) for t in (s.pad, s.bos, s.eos, s.im_start, s.im_end)] == [0, 1, 2, 6, 7]
    assert vocab.control_ids == {0, 1, 2, 6, 7}
    assert vocab.bounds("image") == vocab.bounds("video") == (64005, 64004)
    assert vocab.bounds("speech") == (64003, 64001)


@pytest.mark.parametrize(("order", "image", "speech"), [("image first", 64006, 72198), ("speech first", 68102, 64006)])
def test_contiguous_code_blocks_have_the_ids_of_the_spec(order: str, image: int, speech: int) -> None:
    vocab = official(order)
    assert_array_equal(vocab.level_ids("image"), image + np.arange(8192)[None])
    assert_array_equal(vocab.level_ids("speech"), speech + np.arange(4096).reshape(4, 1024))


@orders
def test_level_k_of_speech_is_written_with_an_offset_of_1024_k(order: str) -> None:
    vocab = official(order)
    ids = vocab.ids("speech", np.arange(4), np.array([0, 1, 2, 1023]))
    assert [vocab.tokens[i] for i in ids] == ["<spch0>", "<spch1025>", "<spch2050>", "<spch4095>"]


@orders
@given(data=st.data())
def test_codes_invert_ids(order: str, data: st.DataObject) -> None:
    vocab, row = official(order), data.draw(st.sampled_from(MIO[:2]))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, row.codebooks - 1), st.integers(0, row.codebook_size - 1))))
    levels, codes = np.array(pairs, np.int64).reshape(-1, 2).T
    ids = vocab.ids(row.name, levels, codes)
    assert [vocab.tokens[i] for i in ids] == [row.code.format(k * row.codebook_size + c) for k, c in pairs]
    assert_array_equal(vocab.codes(row.name, ids), (levels, codes))


@orders
def test_every_id_belongs_to_text_to_a_special_or_to_one_code(order: str) -> None:
    vocab, every = official(order), np.arange(76294)
    owners = [every < 64000, (every >= 64000) & (every < 64006)]
    owners += [vocab.codes(name, every)[0] >= 0 for name in ("image", "speech")]
    assert_array_equal(np.sum(owners, axis=0), 1)


def test_a_run_of_spans_uses_the_ids_of_its_spans() -> None:
    vocab = official("permuted")
    assert vocab.base("video").name == "image"
    assert_array_equal(vocab.level_ids("video"), vocab.level_ids("image"))


@pytest.mark.parametrize("gone", ["<img0>", "<img8191>", "<spch4095>"])
def test_a_list_that_lacks_a_code_is_refused_by_name(gone: str) -> None:
    with pytest.raises(DataError, match=f"'{gone}' is missing"):
        Vocabulary(TEXT + ADDED + tuple(t for t in IMAGE + SPEECH if t != gone), 64000, MIO)


@pytest.mark.parametrize("twice", ["<img0>", "<spch4095>", "<image>"])
def test_a_list_with_a_doubled_token_is_refused_with_both_places(twice: str) -> None:
    tokens = (*TEXT, *ADDED, *IMAGE, *SPEECH, twice)
    with pytest.raises(DataError, match=f"'{twice}' stands twice in the list, at {tokens.index(twice)} and 76294"):
        Vocabulary(tokens, 64000, MIO)


def test_a_run_of_unknown_spans_is_refused() -> None:
    with pytest.raises(DataError, match="made of 'picture' spans"):
        Vocabulary.build(["a"], (Modality("video", spans_of="picture"),))


def test_a_missing_special_is_refused_when_asked_for(text_tokens: list[str]) -> None:
    tokens = Vocabulary.build(text_tokens, ROWS).tokens
    vocab = Vocabulary(tuple(t for t in tokens if t != "<|im_end|>"), len(text_tokens), ROWS)
    with pytest.raises(DataError, match=r"'<\|im_end\|>' is missing"):
        vocab.id("<|im_end|>")


def test_a_text_token_with_the_name_of_a_code_is_never_the_code(text_tokens: list[str]) -> None:
    vocab = Vocabulary.build([*text_tokens, "<img3>", "<image>"], ROWS)
    assert vocab.id("<img3>") >= vocab.text_size
    assert min(vocab.bounds("image")) >= vocab.text_size


def test_build_lays_out_text_specials_bounds_and_codes(vocab: Vocabulary) -> None:
    rest = [*Specials().names(), "<image>", "</image>", "<spch>", "</spch>"]
    rest += [f"<img{n}>" for n in range(16)] + [f"<spch{n}>" for n in range(24)]
    assert list(vocab.tokens[vocab.text_size :]) == rest


@pytest.mark.parametrize(
    ("name", "level", "code"),
    [("image", 0, 16), ("image", 0, -1), ("image", 1, 0), ("speech", 3, 0), ("speech", -1, 0), ("video", 0, 16)],
)
def test_a_code_outside_the_codebooks_is_refused(vocab: Vocabulary, name: str, level: int, code: int) -> None:
    with pytest.raises(DataError, match=f"A {name} code is outside"):
        vocab.ids(name, np.array([0, level]), np.array([0, code]))


def test_an_unknown_modality_is_refused_with_the_nearest(vocab: Vocabulary) -> None:
    with pytest.raises(MioError, match=r"No modality 'imgae'\. Did you mean 'image'\?"):
        vocab.row("imgae")


def test_the_fingerprint_changes_with_any_token(vocab: Vocabulary) -> None:
    prints = {vocab.fingerprint()}
    for i in range(len(vocab)):
        tokens = (*vocab.tokens[:i], f"other{i}", *vocab.tokens[i + 1 :])
        prints.add(Vocabulary(tokens, vocab.text_size, ()).fingerprint())
    prints.add(Vocabulary(tuple(reversed(vocab.tokens)), vocab.text_size, ()).fingerprint())
    assert len(prints) == len(vocab) + 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sound"},
        {"codebooks": 1, "codebook_size": 24},
        {"steps": 5},
        {"begin": "</image>"},
        {"input_layout": "sequential"},
        {"output_layout": "delay"},
        {"rate": 25.0},
    ],
)
def test_the_fingerprint_changes_with_any_field_of_a_row(vocab: Vocabulary, change: dict[str, object]) -> None:
    rows = (ROWS[0], replace(ROWS[1], **change), ROWS[2])
    assert replace(vocab, rows=rows).fingerprint() != vocab.fingerprint()


def test_the_fingerprint_changes_with_specials_rows_and_the_text_border(vocab: Vocabulary) -> None:
    others = [
        replace(vocab, rows=ROWS[:2]),
        replace(vocab, specials=Specials(bos="<|im_start|>")),
        replace(vocab, text_size=vocab.text_size - 1),
    ]
    assert len({vocab.fingerprint(), *(v.fingerprint() for v in others)}) == 4
