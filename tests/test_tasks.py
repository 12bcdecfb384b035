"""data/tasks.py, sources.py: every task asks something it can answer, and no group stands on both sides of a split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROWS
from hypothesis import given
from hypothesis import strategies as st

from mio.data.prepare import split
from mio.data.pretraining import PRETRAINING, plain_text
from mio.data.sources import CORPUS, Item, PairSource, StyledSource, held_out, read_corpus, records
from mio.data.tasks import INSTRUCT, Shelf, style_of, words
from mio.recipes.tiny import tiny
from mio.sequence import ChatTemplate, parse, render
from mio.tokenizers.text import TextTokenizer
from mio.types import DataError, Document, Encoded, MissingError, Sample, Text, Turns
from mio.vocab import Vocabulary

CODES = iter(range(10**6))


def image() -> Encoded:
    """Codes that no other picture of this module has."""
    n = next(CODES)
    return Encoded("image", np.array([[[n // 16**3 % 16, n // 16**2 % 16, n // 16 % 16, n % 16]]]))


def speech() -> Encoded:
    return Encoded("speech", np.random.default_rng(next(CODES)).integers(0, 8, (1, 3, 4)))


def clip() -> Encoded:
    return Encoded("video", np.concatenate([image().codes, image().codes]))


def item(source: str, *parts: Text | Encoded | str, **meta: object) -> Item:
    n = next(CODES)
    return Item(
        f"{source}/{n}", source, tuple(Text(p) if isinstance(p, str) else p for p in parts), f"{n}", "CC0", meta
    )


def fabricated() -> Iterator[Item]:
    """A few items of every source."""
    for name, hex in (("fox", "1F98A"), ("owl", "1F989"), ("cat", "1F408")):
        for style in ("noto", "twemoji", "openmoji"):
            yield item("emoji", image(), name, style=style, hex=hex, name=name)
        yield item("names", speech(), name, hex=hex, speaker="espeak-a")
        yield item("definitions", f"the animal that is called {name}", name=name)
    for digit in ("zero", "one", "two"):
        for speaker in ("george", "jackson"):
            yield item("fsdd", speech(), digit, speaker=speaker)
            yield item("digits", image(), digit, name=digit)
    for name in ("apple", "tree"):
        yield from (item("doodles", image(), name) for _ in range(3))
        yield item("mulberry", image(), name)
        yield item("keywords", speech(), name)
    qa = [["what is shown?", "fox"], ["how many fox symbols are there?", "two"]]
    yield item("scenes", image(), "two fox symbols on a blue background", qa=qa)
    yield item(
        "edits", image(), image(), instruction="Make the background pink.", caption="one fox on a pink background"
    )
    yield item("orders", speech(), "coffeeDrink: americano")
    yield item("motion", clip(), "a fox blinks on a blue background", motion="blinks")
    pages = [p for n in range(11) for p in (image(), f"Page {n} " + "goes on " * 40)]
    yield item("storybook", *pages, title="The fox")
    yield item("recipes", "Soup", image(), "Cut. Cook.", image(), title="Soup")
    yield item("stories", "\n\n".join(f"Paragraph {n} " + "and so on " * 30 for n in range(9)))


ITEMS = list(fabricated())
SHELF = Shelf.of(ITEMS)


def plain(sample: Sample) -> object:
    """A sample in comparable form."""

    def part(p: object) -> object:
        return p.text if isinstance(p, Text) else (p.modality, p.codes.tolist())  # type: ignore[attr-defined]

    if isinstance(sample.content, Document):
        return sample.id, [part(p) for p in sample.content.parts], sorted(sample.content.inputs)
    return sample.id, [(m.role, [part(p) for p in m.parts]) for m in sample.content.messages], sample.meta


def asked(sample: Sample) -> tuple[list[object], list[object]]:
    """Question and answer parts of a sample with one turn each."""
    assert isinstance(sample.content, Turns)
    question, answer = sample.content.messages
    return list(question.parts), list(answer.parts)


def answers_of(name: str) -> list[Encoded]:
    return [a for s in INSTRUCT[name](SHELF) for a in asked(s)[1] if isinstance(a, Encoded)]


def owner(part: object) -> Item:
    return next(i for i in ITEMS if any(p is part for p in i.parts))


@pytest.mark.parametrize("name", INSTRUCT)
def test_an_instruction_ends_with_an_assistant_turn_and_says_where_it_came_from(name: str) -> None:
    samples = list(INSTRUCT[name](SHELF))
    assert samples
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples:
        assert isinstance(sample.content, Turns)
        roles = [m.role for m in sample.content.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        assert all(m.parts for m in sample.content.messages)
        assert (sample.license, sample.source) == ("CC0", owner_source(sample))


def owner_source(sample: Sample) -> str:
    return sample.id.split(":", 1)[1].split("/")[0]


@pytest.mark.parametrize("name", [*INSTRUCT, *PRETRAINING])
def test_a_task_is_the_same_list_every_time(name: str) -> None:
    task = (INSTRUCT | PRETRAINING)[name]
    assert [plain(s) for s in task(Shelf.of(ITEMS))] == [plain(s) for s in task(Shelf.of(ITEMS))]


@pytest.mark.parametrize("name", [*INSTRUCT, *PRETRAINING])
def test_a_task_of_nothing_is_nothing(name: str) -> None:
    assert list((INSTRUCT | PRETRAINING)[name](Shelf.of([]))) == []


@pytest.mark.parametrize("name", [*INSTRUCT, *PRETRAINING])
def test_every_sample_is_rendered_with_something_to_learn(
    text_tokens: list[str], text: TextTokenizer, name: str
) -> None:
    vocab = Vocabulary.build(text_tokens, ROWS)
    for sample in (INSTRUCT | PRETRAINING)[name](SHELF):
        sequence = render(sample.content, vocab, text.encode, ChatTemplate())
        assert sequence.loss.sum() > 1
        assert parse(sequence.ids, vocab, text.decode).faults == ()


def test_the_wording_varies_with_the_shelfs_seed() -> None:
    first, second = ([plain(s) for s in INSTRUCT["name picture"](Shelf.of(ITEMS, seed))] for seed in (0, 1))
    assert first != second


def test_the_shipped_mixtures_name_known_tasks_and_sources_only() -> None:
    sources = {source.name for source in CORPUS} | {"edits"}
    for stage in tiny().stages:
        named = [share.partition("/") for share in stage.shares]
        assert {task for task, _, _ in named} <= set({"instruct": INSTRUCT, "pretrain": PRETRAINING}[stage.store])
        assert {source for _, _, source in named if source} <= sources


# ------------------------------------------------------------------------------------------------ right answers


def test_a_restyled_picture_is_the_same_thing_in_the_style_asked_for() -> None:
    samples = list(INSTRUCT["restyle"](SHELF))
    assert len(samples) == 3
    for sample in samples:
        (before, request), (after,) = asked(sample)
        assert words(owner(before)) == words(owner(after))
        assert request == Text(f"Redraw it in {style_of(owner(after))} style.")
        assert style_of(owner(before)) != style_of(owner(after))


@pytest.mark.parametrize("name", ["repeat", "speak picture", "draw speech"])
def test_what_is_answered_in_another_modality_or_voice_has_the_same_name(name: str) -> None:
    for sample in INSTRUCT[name](SHELF):
        (given_, request), (answer,) = asked(sample)
        assert words(owner(given_)) == words(owner(answer)) == (sample.meta.get("text") or sample.meta["name"])
        speaker = owner(answer).meta.get("speaker")
        assert name == "draw speech" or request.text.endswith(f" in the voice of {speaker}.")


def test_a_voice_or_style_that_is_named_is_the_answers() -> None:
    for sample in INSTRUCT["say"](SHELF):
        (request,), (answer,) = asked(sample)
        named = f"Say {words(owner(answer))} in the voice of {owner(answer).meta['speaker']}."
        assert request.text in (named, f"Say {words(owner(answer))}.")
    for sample in INSTRUCT["draw picture"](SHELF):
        (request,), (answer,) = asked(sample)
        name = words(owner(answer))
        assert request.text in (f"Draw {name} in {style_of(owner(answer))} style.", f"Draw {name}.")


def test_in_context_the_answer_is_the_name_of_the_picture_of_the_same_kind() -> None:
    samples = list(INSTRUCT["in context"](SHELF))
    assert {asked(s)[1][0].text == asked(s)[0][1].text.split()[1].rstrip(".") for s in samples} == {True, False}
    for sample in samples:
        (first, first_name, second, second_name, last, end), (answer,) = asked(sample)
        kinds = [(owner(p).source, words(owner(p))) for p in (first, second, last)]
        names = [first_name.text, second_name.text]
        assert kinds[0] != kinds[1]
        assert names[kinds[:2].index(kinds[2])] == f" is {answer.text}. "
        assert end == Text(" is?")


def test_a_story_is_told_in_runs_of_four_pages_that_leave_none_out() -> None:
    samples = list(INSTRUCT["story"](SHELF))
    requests = [asked(s)[0][0].text for s in samples]
    assert requests == ["Tell an illustrated story: The fox", *["Go on with the story: The fox"] * 2]
    told = [p for s in samples for p in asked(s)[1]]
    pages = next(i for i in ITEMS if i.source == "storybook").parts
    assert [type(p) for p in told] == [type(p) for p in pages]
    assert all(a is b for a, b in zip(told[::2], pages[::2], strict=True))
    assert all(b.text.startswith(a.text) and len(a.text) <= 240 for a, b in zip(told[1::2], pages[1::2], strict=True))


def test_scene_questions_are_those_of_the_record() -> None:
    pairs = [(q[1].text, a[0].text) for q, a in map(asked, INSTRUCT["question scene"](SHELF))]
    assert pairs == [("What is shown?", "fox"), ("How many fox symbols are there?", "two")]


def test_an_edit_goes_from_the_first_picture_to_the_second() -> None:
    (before, request), (after,) = asked(next(iter(INSTRUCT["edit scene"](SHELF))))
    made = next(i for i in ITEMS if i.source == "edits")
    assert (before, after) == made.parts
    assert request == Text("Make the background pink.")


@pytest.mark.parametrize("name", PRETRAINING)
def test_media_are_input_only_where_they_come_first(name: str) -> None:
    documents = [s.content for s in PRETRAINING[name](SHELF)]
    assert documents
    for document in documents:
        assert isinstance(document, Document)
        inputs = {n for n, p in enumerate(document.parts) if isinstance(p, Encoded)} if "to text" in name else set()
        assert document.inputs == inputs


def test_texts_are_cut_at_blank_lines_and_none_is_lost() -> None:
    story = next(i for i in ITEMS if i.source == "stories")
    pieces = [s.content.parts[0].text for s in plain_text(Shelf.of([story]), piece=700)]
    assert "\n\n".join(pieces) == words(story)
    assert len(pieces) > 3
    assert max(map(len, pieces)) <= 700


# ------------------------------------------------------------------------------------------------ split, sources


@given(st.text(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_what_is_held_out_at_a_share_is_held_out_at_any_larger_one(group: str, a: float, b: float, seed: int) -> None:
    small, large = sorted((a, b))
    assert held_out(group, small, seed) <= held_out(group, large, seed)
    assert not held_out(group, 0.0, seed)
    assert held_out(group, 1.0, seed)


@pytest.mark.parametrize("share", [0.06, 0.15, 0.5])
def test_the_held_out_share_is_close_to_the_one_asked_for(share: float) -> None:
    assert np.mean([held_out(f"scenes:{n}", share) for n in range(10_000)]) == pytest.approx(share, abs=0.012)


def test_the_split_is_fixed_for_ever() -> None:
    assert [n for n in range(100) if held_out(f"emoji:{n}|noto", 0.06)] == [4, 7, 24, 31, 48, 73, 83, 90, 96, 99]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20)), max_size=40), st.integers(0, 9))
def test_groups_never_part_and_no_item_is_lost(drawn: list[tuple[str, int]], seed: int) -> None:
    items = [Item(f"{n}", source, (), f"{source}:{group}") for n, (source, group) in enumerate(drawn)]
    train, val = split(items, {"a": 0.5}, seed)
    assert sorted(i.id for i in train + val) == sorted(i.id for i in items)
    assert not {i.group for i in train} & {i.group for i in val}
    assert all(i.source == "a" for i in val)


def test_records_are_lines_and_a_broken_one_is_named_by_number(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": "\u2028"}\n\n{"a": 1}\n', encoding="utf-8")
    assert list(records(tmp_path / "x.jsonl")) == [{"a": "\u2028"}, {"a": 1}]
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(DataError) as caught:
        list(records(tmp_path / "x.jsonl"))
    assert caught.value.at.endswith("x.jsonl:2")


@pytest.mark.parametrize("line", ["[1]", "3", "null", '"text"'])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(line)
    with pytest.raises(DataError, match="not a JSON object"):
        list(records(tmp_path / "x.jsonl"))


def test_a_pair_has_its_medium_its_text_and_its_group(tmp_path: Path) -> None:
    lines = [{"image": "0/1.webp", "name": "zero"}, {"image": "2.webp", "name": "", "pack": "p.zip", "license": "MIT"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = PairSource("digits", "d.jsonl", "image", "image", "name", license="CC0").items(tmp_path)
    (file,) = first.media("image")
    assert (file.path, file.member, words(first)) == (tmp_path / "d.zip", "0/1.webp", "zero")
    assert (first.id, first.group, first.license) == ("digits/0/1.webp", "digits:0/1.webp", "CC0")
    assert (second.media("image")[0].path, second.parts[1:], second.license) == (tmp_path / "p.zip", (), "MIT")


def test_every_style_of_an_emoji_is_an_item_of_its_own_pack_and_license(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(json.dumps({"name": "fox", "images": {"a": "f.webp", "b": "g.webp"}}))
    source = StyledSource("emoji", "e.jsonl", "emoji_{style}.zip", (("a", "MIT"), ("b", "CC0")))
    got = [(i.id, i.group, i.license, i.media("image")[0].path.name, i.meta["style"]) for i in source.items(tmp_path)]
    assert got == [
        ("emoji/a/f.webp", "emoji:fox|a", "MIT", "emoji_a.zip", "a"),
        ("emoji/b/g.webp", "emoji:fox|b", "CC0", "emoji_b.zip", "b"),
    ]


def test_a_folder_without_any_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="holds no corpus"):
        read_corpus(tmp_path)
