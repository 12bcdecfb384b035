"""People rank answers: the page hides whose they are, and sheets come back as published averages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mio.cli import main
from mio.evals.ranking import Key, read_ranks, verdict, write_form
from mio.evals.results import SAMPLES
from mio.media import write_image
from mio.types import DataError, Image, MissingError

DEMSAR = np.array([[  # Demšar, 2006, table 6: four learners on fourteen data sets
    [4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1], [1, 2.5, 4, 2.5], [3, 2, 4, 1],
    [2.5, 2.5, 4, 1], [4, 3, 2, 1], [2.5, 2.5, 2.5, 2.5], [4, 2.5, 1, 2.5], [3, 2, 4, 1], [4, 1, 2, 3], [3, 1, 4, 2],
]])  # fmt: skip


def run(folder: Path, answers: Sequence[str], picture: bool = False) -> Path:
    """A run with samples."""
    folder.mkdir(parents=True)
    files = []
    if picture:
        write_image(Image(np.zeros((4, 4, 3), np.uint8)), folder / "0.png")
        files = ["0.png"]
    rows = [{"id": str(n), "text": a, "files": files, "prompt": f"<b>Request</b> {n}"} for n, a in enumerate(answers)]
    (folder / SAMPLES).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [run(tmp_path / "ours", ["good <i>"] * 6, picture=True), run(tmp_path / "theirs", ["bad"] * 6 + ["alone"])]


def sheet(path: Path, key: Key, who: str, best: int, **change: Any) -> Path:
    """An annotator who finds one system best everywhere."""
    ranks = {id: [1 if system == best else 2 for system in order] for id, order in key.orders.items()}
    path.write_text(json.dumps({"form": key.form, "annotator": who, "ranks": ranks} | change))
    return path


def test_a_page_shows_every_answer_and_not_whose_it_is(runs: list[Path], tmp_path: Path) -> None:
    key, again = (write_form(runs, tmp_path / "form.html", 5, 0) for _ in range(2))
    html = (tmp_path / "form.html").read_text()
    assert key == again and len(key.orders) == 5 and {(0, 1), (1, 0)} == set(key.orders.values())
    assert html.count("<fieldset") == 5 and html.count("<select") == 10 and html.count("data:image/png") == 5
    assert "good &lt;i&gt;" in html and "<b>Request" not in html and "ours" not in html and "theirs" not in html
    for id, order in key.orders.items():
        card = html[html.index(f'data-item="{id}"') :]
        assert (card.index("good") < card.index("bad")) == (order[0] == 0)


def test_only_items_that_all_answered_are_ranked(runs: list[Path], tmp_path: Path) -> None:
    assert set(write_form(runs, tmp_path / "form.html", 99, 0).orders) == set("012345")
    with pytest.raises(DataError, match="no item in common"):
        write_form([runs[0], run(tmp_path / "none", [])], tmp_path / "form.html", 9, 0)
    with pytest.raises(MissingError, match="no samples"):
        write_form([runs[0], tmp_path], tmp_path / "form.html", 9, 0)


def test_average_ranks_are_demsars() -> None:
    found = verdict(Key("x", ("a", "b", "c", "d"), {}), DEMSAR)
    assert [s.value for s in found.ranks.values()] == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    assert all(s.low <= s.value <= s.high for s in found.ranks.values())
    assert (found.annotators, found.items, found.agreement, found.tau) == (1, 14, None, None)


def test_three_annotators_of_whom_two_agree(runs: list[Path], tmp_path: Path) -> None:
    key = write_form(runs, tmp_path / "form.html", 6, 0)
    sheets = [sheet(tmp_path / f"{n}.json", key, f"annotator {n}", best) for n, best in enumerate((0, 0, 1))]
    found = verdict(*read_ranks(tmp_path / "form.key.json", sheets))
    ours, theirs = key.systems
    assert found.ranks[ours].value == pytest.approx(4 / 3) and found.ranks[theirs].value == pytest.approx(5 / 3)
    assert found.wins[ours][theirs] == pytest.approx(2 / 3) and found.agreement == pytest.approx(1 / 3)
    assert found.tau == pytest.approx((1 - 1 - 1) / 3)


def test_ties_stand_at_the_mean_of_their_places(runs: list[Path], tmp_path: Path) -> None:
    key = write_form(runs, tmp_path / "form.html", 6, 0)
    tied = sheet(tmp_path / "a.json", key, "a", 0, ranks={id: [1, 1] for id in key.orders})
    assert (read_ranks(tmp_path / "form.key.json", [tied])[1] == 1.5).all()
    found = verdict(*read_ranks(tmp_path / "form.key.json", [tied, sheet(tmp_path / "b.json", key, "b", 0)]))
    assert found.tau is None and found.agreement == 0  # equal is not better


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"form": "other"}, "of form 'other'"),
        ({"annotator": "first"}, "two sheets"),
        ({"ranks": {"0": [1, 2]}}, "5 items are not ranked"),
        ({"ranks": {str(n): [0, 3] for n in range(6)}}, "6 items are not ranked"),
    ],
)
def test_sheets_that_do_not_fit_are_named(runs: list[Path], tmp_path: Path, change: dict[str, Any], what: str) -> None:
    key = write_form(runs, tmp_path / "form.html", 6, 0)
    sheets = [sheet(tmp_path / "1.json", key, "first", 0), sheet(tmp_path / "2.json", key, "second", 0, **change)]
    with pytest.raises(DataError, match=what):
        read_ranks(tmp_path / "form.key.json", sheets)


def test_commands_write_the_page_and_read_the_sheets(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "form.html"
    assert main(["eval", "form", *map(str, runs), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    key = Key(told["form"], tuple(map(str, runs)), json.loads(Path(told["key"]).read_text())["orders"])
    sheets = [str(sheet(tmp_path / f"{n}.json", key, f"a{n}", 0)) for n in range(3)]
    assert main(["eval", "people", told["key"], *sheets]) == 0
    said = capsys.readouterr().out
    assert "average rank 1.000" in said and "3 annotators agree on 100.0%" in said


@pytest.mark.browser
@pytest.mark.slow
def test_a_person_ranks_and_saves(runs: list[Path], tmp_path: Path) -> None:
    from browser import chromium

    write_form(runs, tmp_path / "form.html", 6, 0)
    complaints: list[str] = []
    with chromium() as browser:
        page = browser.new_page(accept_downloads=True)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "form.html").as_uri())
        page.fill("input[name=annotator]", "Ann Ö.")
        page.click("button")  # not yet: ranks are required
        for select in page.query_selector_all("select"):
            select.select_option("1")
        with page.expect_download() as saved:
            page.click("button")
        saved.value.save_as(tmp_path / "sheet.json")
        assert "Saved as" in page.inner_text("output") and saved.value.suggested_filename.endswith("-Ann-.json")
    assert complaints == [] and (read_ranks(tmp_path / "form.key.json", [tmp_path / "sheet.json"])[1] == 1.5).all()
