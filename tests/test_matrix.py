"""The matrix: what counts as nearest, that all directions of a model are there, and a page without files beside it."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from fabricate import fabricate_model

from mio.checkpoint import read_json, write_json
from mio.cli import main
from mio.evals.matrix import (
    CELLS,
    EXACT,
    MADE,
    NEAREST,
    RIVALS,
    SAMPLE,
    Cell,
    Measured,
    clip_features,
    measured,
    nearest_own,
    picture_features,
    rivals_of,
    sound_features,
    unseen,
    wanted,
)
from mio.evals.matrix_page import Finding, kept, markdown, page
from mio.pipeline import Model, Reply, load
from mio.types import Audio, Image, Message, MioError, Sample, Text, Turns, Video

KINDS = ("text", "image", "speech", "video")


def picture(seed: int, noise: float = 0.0) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3))
    return Image((pixels + noise * np.random.default_rng(99).normal(size=pixels.shape)).clip(0, 255).astype(np.uint8))


def tone(hertz: float) -> Audio:
    return Audio(np.sin(np.arange(16000) / 16000 * 2 * np.pi * hertz).astype(np.float32), 16000)


def test_every_direction_of_four_kinds_is_there_once() -> None:
    ways = [(c.into, c.out) for c in CELLS]
    assert len(set(ways)) == len(ways) and {(a, b) for a in KINDS for b in KINDS} <= set(ways)


def test_a_noisy_copy_is_nearest_to_its_own_and_another_picture_is_not() -> None:
    references = [picture(n) for n in range(12)]
    names = [f"thing {n}" for n in range(12)]
    assert nearest_own([picture(n, 20) for n in range(3)], references, names) == [True] * 3
    assert nearest_own([picture(1), None], references, names) == [False, False]
    assert nearest_own([picture(0)], references[:1], names[:1]) == [False]  # nobody to be nearer than


def test_rivals_want_another_thing_and_are_always_the_same() -> None:
    names = ["cat"] * 5 + [f"thing {n}" for n in range(20)]
    rivals = rivals_of(2, names)
    assert len(rivals) == RIVALS and (rivals >= 5).all() and np.array_equal(rivals, rivals_of(2, names))
    assert len(rivals_of(0, ["cat", "cat", "dog"])) == 1


def test_features_tell_sounds_and_clips_apart() -> None:
    assert nearest_own([tone(300), tone(2000)], [tone(310), tone(1950)], ["low", "high"]) == [True, True]
    still = Video(np.stack([picture(0).pixels] * 5), 4.0)
    assert clip_features(still).reshape(3, -1)[2] == pytest.approx(picture_features(picture(0)))
    assert sound_features(tone(300)) == pytest.approx(sound_features(Audio(tone(300).samples * 0.5, 16000)), abs=0.2)


def test_what_is_wanted_is_the_thing_or_else_the_request() -> None:
    turns = Turns((Message("user", (Text("Draw it."),)), Message("assistant", (Text("x"),))))
    assert wanted(Sample("a", turns, meta={"name": "cat"})) == "cat" and wanted(Sample("a", turns)) == "Draw it."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(fabricate_model(tmp_path_factory.mktemp("matrix") / "model"))


def test_directions_are_measured_on_items_that_are_held_out(model: Model, tmp_path: Path) -> None:
    shelf = unseen(SAMPLE, tmp_path)
    assert {"emoji", "fsdd", "motion", "edits"} <= set(shelf.items)
    found = {(m.cell.into, m.cell.out): m for m in (measured(model, shelf, cell, 1, 2) for cell in CELLS)}
    assert len(found) == len(CELLS) and all(len(m.right) == 1 for m in found.values())
    assert found["text", "image"].chance == pytest.approx(0.1) and found["image", "text"].chance == 0
    assert 0.1 < found["text", "video"].chance < 0.2  # the sample holds seven clips


def findings(check: bool = True) -> list[Finding]:
    turns = Turns((Message("user", (picture(0), Text("<b>What</b>?"))), Message("assistant", (Text("a cat"),))))
    asked = (Reply((Text("a <cat>"), picture(1), tone(300)), (), ("a span was cut",)), Sample("x:emoji/1", turns))
    cell = Cell("image", "text", lambda shelf: iter(()), EXACT if check else MADE)
    none = Measured(Cell("text", "image", cell.asks, NEAREST))
    return [Finding.of(Measured(cell, (asked,) * 4, (True, False, True, True), 0.1)), Finding.of(none)]


def test_a_page_needs_nothing_else_and_writes_nobodys_html() -> None:
    facts = {"model": "a & b", "commit": "abc"}
    html = page(facts, findings())
    assert html == page(facts, findings()) and "75%" in html and "n=4" in html and '<td class="none">' in html
    assert "<b>What</b>" not in html and "a &amp; b" in html and "a span was cut" in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert html.count("<li class=") == 3 and html.count("<h3>reference</h3>") == 3
    assert "<audio" in html and "<img" in html
    assert "<h3>reference</h3>" not in page(facts, findings(check=False))


def test_a_table_for_documents_has_every_direction_that_was_measured() -> None:
    head, _, row = markdown(findings())
    assert row == "| image | text | 75.0% | 30.1% - 95.4% | 4 | 10.0% | answered exactly |"
    assert head.count("|") == row.count("|")
    first, second = (one.row() for one in findings())
    assert first["right"] == 0.75 and first["n"] == 4 and (second["right"], second["n"]) == (None, 0)


def test_only_findings_under_the_same_facts_are_gone_on_with(tmp_path: Path) -> None:
    path, facts = tmp_path / "m.json", {"model": "a", "weights": "x"}
    assert kept(path, facts) == []
    write_json(path, {"facts": facts, "found": [asdict(f) for f in findings()]})
    assert kept(path, facts) == findings()
    with pytest.raises(MioError, match="weights differ"):
        kept(path, {**facts, "weights": "y"})


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_and_ends_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = fabricate_model(tmp_path / "model"), tmp_path / "pages" / "matrix.html"
    words = ["eval", "matrix", "--model", str(folder), "-o", str(out), "--limit", "1"]
    assert main(words) == 0
    table, html = capsys.readouterr().out, out.read_text()
    assert table.count("\n") == 2 + len(CELLS) and "fabricated" in html
    stored = read_json(out.with_suffix(".json"))
    write_json(out.with_suffix(".json"), stored | {"found": stored["found"][:-2]})  # as a kill leaves it
    assert main(words) == 0 and capsys.readouterr().out == table and out.read_text() == html
    (tmp_path / "empty").mkdir()
    assert main([*words, "--data", str(tmp_path / "empty")]) in (2, 3, 4)
