"""Old files and models run without the grammar: of damaged ids the valid parts are kept, and each fault is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.sequence import Parsed, parse, span_ids
from mio.tokenizers.text import TextTokenizer
from mio.types import Encoded, Text
from mio.vocab import Vocabulary

Part = Text | Encoded


def image(seed: int) -> Encoded:
    return Encoded("image", np.random.default_rng(seed).integers(0, 16, (1, 1, 4)))


def speech(seed: int, steps: int) -> Encoded:
    return Encoded("speech", np.random.default_rng(seed).integers(0, 8, (1, 3, steps)))


words = st.sampled_from(["a fox", "on a blue", "background"]).map(Text)
parts = st.lists(
    words | st.integers(0, 99).map(image) | st.builds(speech, st.integers(0, 99), st.integers(1, 5)), max_size=5
)


def written(parts: Sequence[Part], vocab: Vocabulary, text: TextTokenizer) -> list[np.ndarray]:
    return [np.array(text.encode(p.text)) if isinstance(p, Text) else span_ids(p, vocab, as_input=False) for p in parts]


def joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *pieces]).astype(np.int64)


def spans(found: Parsed) -> list[list[object]]:
    return [[p.modality, p.codes.tolist()] for p in found.parts if isinstance(p, Encoded)]


def kept(parts: Sequence[Part]) -> list[list[object]]:
    return [[p.modality, p.codes.tolist()] for p in parts if isinstance(p, Encoded)]


@given(parts=parts, cut=st.integers(0, 200))
def test_a_prefix_keeps_every_whole_span_and_names_the_cut_one(
    vocab: Vocabulary, text: TextTokenizer, parts: list[Part], cut: int
) -> None:
    pieces = written(parts, vocab, text)
    ends = np.cumsum([0, *map(len, pieces)])
    cut = min(cut, int(ends[-1]))
    found = parse(joined(pieces)[:cut], vocab, text.decode)
    whole = [p for p, end in zip(parts, ends[1:], strict=True) if end <= cut]
    broken = next((p for p, a, b in zip(parts, ends, ends[1:], strict=False) if a < cut < b), None)
    assert spans(found)[: len(kept(whole))] == kept(whole)
    assert len(found.faults) == isinstance(broken, Encoded)
    if isinstance(broken, Encoded):
        assert broken.modality in found.faults[0]
    for part in found.parts[len(found.parts) - (len(spans(found)) - len(kept(whole))) :]:
        assert isinstance(part, Encoded) and isinstance(broken, Encoded)  # all codes were there, or the content run
        assert_array_equal(part.codes, broken.codes[:, : part.codes.shape[1]])


@given(parts=parts, damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=4))
def test_damage_costs_the_spans_it_hits_and_no_other(
    vocab: Vocabulary, text: TextTokenizer, parts: list[Part], damage: list[tuple[int, int]]
) -> None:
    """Ids replaced by text or by codes, never by a begin: only then is it plain which spans are left."""
    pieces = written(parts, vocab, text)
    ids, ends = joined(pieces), np.cumsum([0, *map(len, pieces)])
    begins = {vocab.bounds(r.name)[0] for r in vocab.rows}
    harmless = np.array([i for i in range(len(vocab)) if i not in begins])
    hit = set()
    for where, what in damage if len(ids) else []:
        ids[where % len(ids)] = harmless[what % len(harmless)]
        hit.add(int(np.searchsorted(ends, where % len(ids), side="right")) - 1)
    found = spans(parse(ids, vocab, text.decode))
    rest = iter(found)
    for untouched in kept([p for n, p in enumerate(parts) if n not in hit]):
        assert untouched in rest  # in this order


@given(ids=st.lists(st.integers(0, 10**6), max_size=80))
def test_any_ids_at_all_give_parts_that_can_be_written_again(
    vocab: Vocabulary, text: TextTokenizer, ids: list[int]
) -> None:
    found = parse(np.array(ids, np.int64) % len(vocab), vocab, text.decode)
    assert all(isinstance(fault, str) and fault for fault in found.faults)
    again = parse(joined(written(found.parts, vocab, text)), vocab, text.decode)
    assert spans(again) == spans(found)
    assert again.faults == ()


def test_a_span_without_its_end_is_used_and_named(vocab: Vocabulary, text: TextTokenizer) -> None:
    ids = joined(written([image(1), Text("a fox"), speech(2, 3)], vocab, text))
    found = parse(ids[:-1], vocab, text.decode)
    assert_array_equal(found.parts[-1].codes, speech(2, 3).codes)  # type: ignore[union-attr]
    assert found.faults == ("A speech span has no end token.",)
