"""The gallery: every direction, every file, nothing from elsewhere, and nothing that a model says can break it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate import fabricate_model

from mio import demo
from mio.data.tasks import INSTRUCT, Shelf
from mio.evals.tasks import MEASURES
from mio.media import read
from mio.pipeline import Job, Model, Reply, load
from mio.types import Audio, Image, MediaFile, Message, MioError, Sample, Text, Turns, Video

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>&\"'"
PICTURE = Image(np.full((8, 8, 3), 90, np.uint8))
NUMBERS = {"what": "spoken digit, exact word", "value": 0.9, "low": 0.85, "high": 0.93, "right": 90, "count": 100,
           "split": "validation", "seconds": 0.1}  # fmt: skip


class Tags(HTMLParser):
    """Start tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = fabricate_model(tmp_path_factory.mktemp("demo") / "model")
    rows = [NUMBERS | {"direction": "speech -> text"}, NUMBERS | {"direction": "judge", "what": "the judge"}]
    (model / "report.json").write_text(json.dumps(rows))
    return model


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gallery") / "out"
    assert demo.run(out, folder, small=True) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def html(out: Path) -> str:
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shelf, set[str]]:
    return demo.shelf_of_sample(tmp_path_factory.mktemp("edits"))


def sample(*parts: Text | Image | MediaFile) -> Sample:
    turns = Turns((Message("user", parts), Message("assistant", (Text("yes"),))))
    return Sample("ask:thing", turns, "somewhere", "CC0-1.0")


def card(said: str, error: str = "") -> demo.Card:
    asked, reply = sample(PICTURE, Text("Is it?")), Reply((Text(said),), (1, 2))
    found = demo.opened(demo.DIRECTIONS[0], 1, demo.DIRECTIONS[0].asks[0], asked)
    return replace(found, reply=None if error else reply, error=error)


def loads(tags: Tags) -> Iterator[str]:
    """Whatever the page fetches or leads to."""
    for _, attributes in tags.tags:
        yield from (
            attributes[n] or "" for n in ("src", "href", "srcset", "poster", "data", "action") if n in attributes
        )


# ------------------------------------------------------------------------------------------------ what is asked


def test_the_directions_are_those_that_are_measured() -> None:
    assert [d.title for d in demo.DIRECTIONS] == list(dict.fromkeys(d.title for d in demo.DIRECTIONS))
    assert {d.title for d in demo.DIRECTIONS} == {m.direction for m in MEASURES}
    assert len(demo.DIRECTIONS) == 13


@pytest.mark.parametrize("direction", demo.DIRECTIONS, ids=lambda d: demo.slug(d.title))
def test_every_direction_has_examples_that_no_training_has_seen(
    direction: demo.Direction, shelf: tuple[Shelf, set[str]]
) -> None:
    samples = [s for ask in direction.asks for s in demo.chosen(ask, *shelf)]
    assert len(samples) == sum(ask.count for ask in direction.asks) >= 2
    assert len({s.id for s in samples}) == len(samples)
    assert all(ask.task in INSTRUCT for ask in direction.asks)


def test_the_same_examples_come_every_time(shelf: tuple[Shelf, set[str]]) -> None:
    ask = demo.Ask("say", "speech", 5, ("fsdd",), "in the voice of")
    first, again = demo.chosen(ask, *shelf), demo.chosen(ask, *shelf)
    assert [s.id for s in first] == [s.id for s in again]
    assert all("in the voice of" in demo.request(s) and s.source == "fsdd" for s in first)


# ------------------------------------------------------------------------------------------------- what comes out


def test_every_direction_is_in_the_report_and_answered(report: dict[str, Any]) -> None:
    assert [i["direction"] for i in report["items"]] == [d.title for d in demo.DIRECTIONS]
    assert all(i["asked"] and i["answered"] and i["ids"] and not i["error"] for i in report["items"])
    assert report["totals"]["failed"] == 0 and report["totals"]["rss"] > 0
    assert report["model"] == "fabricated" and report["vocabulary"] and report["machine"]


def test_answers_are_of_the_kind_asked_for(report: dict[str, Any]) -> None:
    kinds = {i["direction"]: {p["kind"] for p in i["answered"]} for i in report["items"]}
    assert kinds["text -> image"] == kinds["speech -> image"] == kinds["image editing"] == {"picture"}
    assert kinds["text -> speech"] == kinds["speech -> speech"] == kinds["image -> speech"] == {"sound"}
    assert kinds["text -> frames"] == {"clip"}
    assert kinds["speech -> text"] == kinds["image -> text"] == kinds["frames -> text"] == {"text"}


def test_text_answers_carry_the_expected_text(report: dict[str, Any]) -> None:
    said = next(i for i in report["items"] if i["direction"] == "speech -> text")
    assert said["expected"][0]["text"] and said["as_expected"] is False


def test_every_file_that_is_mentioned_opens(out: Path, report: dict[str, Any]) -> None:
    parts = [p for i in report["items"] for role in ("asked", "answered", "expected") for p in i[role]]
    named = {p["file"]: p["kind"] for p in parts if "file" in p}
    assert named.keys() == {p.relative_to(out).as_posix() for p in (out / "media").iterdir()}
    types = {"picture": Image, "sound": Audio, "clip": Video}
    assert all(isinstance(read(out / file), types[kind]) for file, kind in named.items())


def test_no_half_written_file_is_left(out: Path) -> None:
    assert not [p for p in out.rglob("*") if p.suffix == ".tmp"]
    assert {p.name for p in out.iterdir()} == {"index.html", "report.json", "media"}


# ------------------------------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_but_itself(html: str) -> None:
    assert all(link.startswith(("data:", "#")) for link in loads(Tags(html)))
    assert "@import" not in html and "url(" not in html
    assert not Tags(html).named("script", "link", "iframe", "object")


def test_the_page_holds_pictures_sounds_and_clips(html: str) -> None:
    tags = Tags(html)
    for tag, mime in (("img", "image/png"), ("audio", "audio/wav"), ("video", "video/mp4")):
        assert all((a["src"] or "").startswith(f"data:{mime};base64,") for a in tags.named(tag))
        assert tags.named(tag)
    assert all("controls" in a for a in tags.named("audio", "video"))


def test_the_page_can_be_heard_and_walked_through(html: str) -> None:
    tags = Tags(html)
    assert all(a.get("alt") for a in tags.named("img"))
    assert all(a.get("aria-label") for a in tags.named("audio", "video"))
    levels = [int(tag[1]) for tag, _ in tags.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert {(a["href"] or "")[1:] for a in tags.named("a")} == {a["id"] for a in tags.named("section")}


def test_the_page_says_what_was_measured_and_by_whom(html: str) -> None:
    words = " ".join(Tags(html).words.split())
    assert "90% spoken digit, exact word 90 of 100, 95 % interval 85% to 93%, split: validation" in words
    assert "the judge" in words and "without measurements" not in words


def test_the_page_names_makers_licences_and_machines(html: str) -> None:
    words = Tags(html).words
    for name in ("AI model", "Noto Emoji", "Free Spoken Digit", "Ritah Katetemera", "CC-BY-SA-4.0", "fabricated"):
        assert name in words


def test_a_model_without_measurements_says_so() -> None:
    assert "without measurements" in demo.page({"model": "bare"}, [], [])


def test_whatever_a_model_says_stays_text() -> None:
    row = NUMBERS | {"direction": "image -> text", "what": HOSTILE, "split": HOSTILE}
    cards = [card(HOSTILE), card("", error=HOSTILE)]
    tags = Tags(demo.page({"model": HOSTILE, HOSTILE: HOSTILE}, cards, [row]))
    assert not tags.named("script") and not any("onerror" in a for _, a in tags.tags)
    assert tags.words.count("<script>alert(1)</script>") >= 6


def test_a_right_answer_is_marked_right() -> None:
    assert card("Yes.").right is True and card("no").right is False and card("", error="broken").right is None
    assert ">as expected<" in demo.html_of(card("yes")) and ">not as expected<" in demo.html_of(card("no"))


# ------------------------------------------------------------------------------------------------------- failures


def test_a_file_that_cannot_be_read_costs_its_own_card_only(model: Model, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    ask, direction = demo.Ask("draw picture", "image", 1), demo.DIRECTIONS[2]
    bad = demo.opened(direction, 1, ask, sample(MediaFile(tmp_path / "bad.png", "image"), Text("What?")))
    good = demo.opened(direction, 2, ask, sample(PICTURE, Text("What?")))
    first, second = demo.answered(model, [bad, good])
    assert "no media known here" in first.error and first.reply is None
    assert second.reply is not None and not second.error
    assert "no media known here" in demo.html_of(first) and "What?" in demo.html_of(first)


def test_a_question_that_fails_costs_its_own_answer_only(model: Model) -> None:
    ask, direction = demo.Ask("draw picture", "image", 1), demo.DIRECTIONS[2]
    cards = [demo.opened(direction, n, ask, sample(Text("word " * length))) for n, length in ((1, 600), (2, 1))]
    first, second = demo.answered(model, cards)
    assert "positions" in first.error and second.reply is not None


def test_cards_with_nothing_to_ask_are_left_as_they_are(model: Model) -> None:
    assert demo.answered(model, []) == []


def test_a_direction_is_one_batch(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def run(jobs: list[Job]) -> list[Reply]:
        batches.append(len(jobs))
        return [Reply((Text("x"),), ()) for _ in jobs]

    monkeypatch.setattr(model, "run", run)
    demo.answered(model, [card("") for _ in range(3)])
    assert batches == [3]


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(MioError, match="no such folder"):
        demo.run(tmp_path / "out", tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()
