"""recipe/curves.py: stages follow one another on one axis; what a new kind of data lifts is named with its way back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mio.cli import main
from mio.recipe.curves import WHOLE, Curve, Rise, Stretch, curves, kinds, rises, stretches
from mio.recipe.curves_page import HEIGHT, LEFT, WIDTH, chart, write_curves


def line(stage: str, step: int, loss: float, **kinds: float) -> dict[str, float | str]:
    shares = {f"share of {kind}": 0.5 for kind in kinds}
    return {"stage": stage, "step": step, "seconds": 1.0, "loss": loss, **kinds, **shares}


LINES = [
    {"stage": "image", "step": 5, "seconds": 1.0, "loss": 0.5, "usage0": 1.0},
    *(line("one", step, 4 - step / 10, text=3 - step / 10) for step in (10, 20)),
    {"stage": "one", "step": 20, "seconds": 0.1, "held-out text": 2.5, "text perplexity": 9.0},
    line("two", 10, 3.0, text=1.5, speech=5.0),
    line("two", 20, 3.5, text=1.2, speech=4.0),
    line("two", 30, 2.4, text=0.9, speech=3.0),
]


def test_stages_follow_one_another_and_of_steps_done_twice_the_last_line_counts() -> None:
    again = [*LINES[:2], {**LINES[1], "loss": 9.0}, *LINES[2:]]
    assert [(s.name, s.begin, s.end) for s in stretches(again)] == [("image", 0, 5), ("one", 5, 25), ("two", 25, 55)]
    assert [line["loss"] for line in stretches(again)[1].lines.values()] == [9.0, 2.0]


def test_curves_are_of_kinds_of_targets_and_what_is_held_out() -> None:
    image, *language = stretches(LINES)
    assert (kinds(image), [kinds(s) for s in language]) == ([], [["text"], ["speech", "text"]])
    found = {curve.name: curve.points for curve in curves(language, ["speech", "text"])}
    assert list(found) == [WHOLE, "speech", "text", "held-out text"]
    assert found["text"] == ((10, 2.0), (20, 1.0), (30, 1.5), (40, 1.2), (50, 0.9))
    assert (found["speech"][0], found["held-out text"]) == ((30, 5.0), ((20, 2.5),))


def test_what_rises_at_a_border_is_named_with_its_peak_and_its_way_back() -> None:
    found = rises(stretches(LINES)[1:], ["speech", "text"])
    assert found == [Rise("two", WHOLE, 2.5, 3.5, 30)]  # text only falls, and there was no speech before
    steep = stretches([line("a", 1, 2.0), line("b", 1, 2.5), line("b", 2, 2.2)])
    assert rises(steep, []) == [Rise("b", WHOLE, 2.0, 2.5, None)]


def test_a_chart_is_xml_whose_points_lie_where_steps_and_losses_say() -> None:
    stage = Stretch("a < b", 100, {1: {}, 10: {}})
    root = ElementTree.fromstring(chart([Curve("x", ((0, 4.0), (10, 0.0), (5, 2.0)))], [stage]))
    points = [tuple(map(float, p.split(","))) for p in root.find("polyline").get("points").split()]  # type: ignore[union-attr]
    assert points[0] == (LEFT, 10) and points[1] == (WIDTH, HEIGHT - 34)
    assert points[2] == pytest.approx(((points[0][0] + WIDTH) / 2, (points[0][1] + points[1][1]) / 2))
    assert "a < b, 10 steps" in [t.text for t in root.findall("text")]


def test_inspecting_a_run_draws_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run<1>"
    run.mkdir()
    assert write_curves(run) is None
    (run / "recipe.json").write_text("{}")
    mute = {"stage": "speech", "step": 2, "seconds": 9.0}  # no loss, no chart
    half = '{"stage": "two", "st'
    (run / "metrics.jsonl").write_text("\n".join([*map(json.dumps, [*LINES, mute]), half]))
    assert main(["inspect", str(run), "--json"]) == 0
    path = Path(json.loads(capsys.readouterr().out)["curves"])
    html = path.read_text()
    assert (path.name, html.count("<polyline"), html.count("<svg")) == ("curves.html", 5, 2)
    assert "run&lt;1&gt;" in html and "run<1>" not in html and "30 steps" in html
    assert not re.search(r"(src|href)=|https?://", html)
