"""evals/packs.py: every token is drawn once, every medium is there to see or hear, and no text becomes markup."""

from __future__ import annotations

import base64
import itertools
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fabricate import ROWS, SYSTEMS, fabricate_model, fabricate_parts
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.cli import main
from mio.data.store import Record, write_store
from mio.evals.packs import Look, Shown, runs
from mio.media import read
from mio.pipeline import load_processor
from mio.processor import Processor
from mio.recipe.language import kinds_of
from mio.sequence import TokenSequence
from mio.types import Audio, Document, Encoded, Image, Message, Text, Turns

HOSTILE = '<script>alert("1")</script> & <image>'


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(fabricate_parts(tmp_path_factory.mktemp("parts")), ROWS, SYSTEMS, 2)


def codes(modality: str, *shape: int) -> Encoded:
    return Encoded(modality, np.random.default_rng(0).integers(0, 32, shape))


CONTENTS = (
    Document((codes("image", 1, 1, 8), Text(HOSTILE), codes("speech", 1, 4, 20)), frozenset()),
    Turns((Message("user", (codes("speech", 1, 4, 10), Text("What?"))), Message("assistant", (Text("A cat."),)))),
)


class Page(HTMLParser):
    """What a browser would find: strokes of every strip, bytes of every medium, and text by whether it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.strips: list[list[tuple[int, int, str]]] = []
        self.media: list[tuple[str, bytes]] = []
        self.texts: dict[str, list[str]] = {"trained": [], "given": []}
        self.tags: set[str] = set()
        self.place = ""

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in found}
        self.tags.add(tag)
        if tag == "svg" and facts.get("class") == "strip":
            self.strips.append([])
        if tag == "rect" and "x" in facts:
            self.strips[-1].append((int(facts["x"]), int(facts["width"]), facts["class"]))
        if "src" in facts:
            self.media.append((tag, base64.b64decode(facts["src"].partition("base64,")[2])))
        self.place = facts["class"] if tag in ("span", "code") and facts.get("class") in self.texts else self.place

    def handle_endtag(self, tag: str) -> None:
        self.place = "" if tag in ("span", "code") else self.place

    def handle_data(self, data: str) -> None:
        if self.place:
            self.texts[self.place].append(data)


def seen(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def test_a_page_shows_every_token_medium_and_text(speaker: Processor) -> None:
    kinds, of = kinds_of(speaker.vocab)
    samples = [speaker.sequence(content) for content in CONTENTS]
    about = {"id": f"id{HOSTILE}", "task": "t", "source": "s", "license": "CC0"}
    html = Look(speaker, kinds, of).page([Shown("Pack", [(about, s) for s in samples], 300)], {"store": HOSTILE})
    page = seen(html)
    assert "<script" not in html and "script" not in page.tags and "http:" not in html and "https:" not in html
    whole, *each = page.strips
    for strip, length in ((whole, sum(map(len, samples))), *zip(each, map(len, samples), strict=True)):
        assert [x for x, _, _ in strip] == np.cumsum([0, *(w for _, w, _ in strip[:-1])]).tolist()  # no gap
        assert sum(width for _, width, _ in strip) == length
    drawn = {kind: sum(w for _, w, name in whole if name.split()[0] == f"k{n}") for n, kind in enumerate(kinds)}
    assert (drawn["image"], drawn["speech"]) == (8, 80 + 10)  # speech as input: content only
    assert sum(w for _, w, name in whole if "given" not in name) == sum(int(s.loss.sum()) for s in samples)
    assert [(tag, type(read(data))) for tag, data in page.media] == [("img", Image), ("audio", Audio), ("audio", Audio)]
    assert HOSTILE in page.texts["trained"] and "A cat." in page.texts["trained"]
    assert any("What?" in text for text in page.texts["given"])


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=40))
def test_runs_cover_a_sequence_and_neighbours_differ(tokens: list[tuple[int, bool]]) -> None:
    ids, loss = (np.array(column) for column in zip(*tokens, strict=True))
    found = runs(TokenSequence(ids, loss), np.arange(3))
    assert_array_equal(np.concatenate([np.full(b - a, kind) for a, b, kind, _ in found]), ids)
    assert_array_equal(np.concatenate([np.full(b - a, trained) for a, b, _, trained in found]), loss)
    assert all(one[2:] != two[2:] for one, two in itertools.pairwise(found))


def test_the_command_writes_packs_of_a_store_and_of_a_stage(tmp_path: Path) -> None:
    model = fabricate_model(tmp_path / "model")
    speaker = load_processor(model, ROWS, SYSTEMS, 2)
    records = [
        Record(speaker.sequence(CONTENTS[n % 2]), f"id{n}", ("image to text", "text")[n % 2], "x") for n in range(30)
    ]
    write_store(tmp_path / "store", records, speaker.fingerprint)
    words = ["data", "show", str(tmp_path / "store"), "--model", str(model), "-q", "-n", "2", "-o"]
    assert main([*words, str(tmp_path / "all.html")]) == 0
    page = seen((tmp_path / "all.html").read_text(encoding="utf-8"))
    assert len(page.strips) > 2 and page.media
    only = ["--recipe", "mio:laptop", "--stage", "stage1-align"]
    assert main([*words, str(tmp_path / "stage.html"), *only]) == 2  # it has slots of which the store has no samples
