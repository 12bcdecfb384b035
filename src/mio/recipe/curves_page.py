"""A run's curves as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from mio.recipe.curves import Curve, Rise, Stretch, curves, kinds, lines, rises, stretches

WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 960, 300, 48, 34, 10  # of a chart, and of its margins
COLOURS = 8


def write_curves(run: Path) -> Path | None:
    """RUN/curves.html from RUN/metrics.jsonl; None where nothing is logged yet."""
    path = run / "metrics.jsonl"
    found = stretches(lines(path)) if path.is_file() else []
    if not found:
        return None
    (run / "curves.html").write_text(page(run.name, found), encoding="utf-8")
    return run / "curves.html"


def page(name: str, found: Sequence[Stretch]) -> str:
    """The stages of the language model in one chart, every other stage in its own."""
    language = [stage for stage in found if kinds(stage)]
    names = sorted({kind for stage in language for kind in kinds(stage)})
    sections = [_section("Language model", language, names)] if language else []
    alone = [stage for stage in found if not kinds(stage) and curves([stage], [])]
    sections += [_section(stage.name, [stage], []) for stage in alone]
    template = (files("mio") / "assets" / "curves.html").read_text(encoding="utf-8")
    table = _table(rises(language, names))
    return Template(template).substitute(run=escape(name), sections="".join(sections), rises=table)


def _section(title: str, stages: Sequence[Stretch], names: Sequence[str]) -> str:
    shown = curves(stages, names)
    marks = (f"<li {_look(number, curve)}>{escape(curve.name)}</li>" for number, curve in enumerate(shown))
    return f"<section><h2>{escape(title)}</h2>{chart(shown, stages)}<ul>{''.join(marks)}</ul></section>"


@dataclass(frozen=True)
class _Frame:
    """Steps and losses to places in a chart."""

    steps: int
    top: float

    def x(self, step: int) -> float:
        return LEFT + step / max(self.steps, 1) * (WIDTH - LEFT)

    def y(self, loss: float) -> float:
        return (1 - loss / self.top) * (HEIGHT - BELOW - ABOVE) + ABOVE


def chart(shown: Sequence[Curve], stages: Sequence[Stretch]) -> str:
    """An SVG of the curves, with a border where each stage begins."""
    first = stages[0].begin
    top = max((loss for curve in shown for _, loss in curve.points), default=0.0)
    frame = _Frame(stages[-1].end - first, top or 1.0)
    grid = "".join(_grid(frame, frame.top * quarter / 4) for quarter in range(5))
    borders = "".join(_border(frame, stage, first) for stage in stages)
    drawn = "".join(_line(frame, number, curve) for number, curve in enumerate(shown))
    words = escape(f"Loss over {frame.steps} steps: {', '.join(curve.name for curve in shown)}.")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">{grid}{borders}{drawn}</svg>'


def _grid(frame: _Frame, loss: float) -> str:
    y = f"{frame.y(loss):.1f}"
    mark = f'<text class="y" x="{LEFT - 6}" y="{y}" dy="4">{loss:.3g}</text>'
    return f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>{mark}'


def _border(frame: _Frame, stage: Stretch, first: int) -> str:
    x, floor = f"{frame.x(stage.begin - first):.1f}", HEIGHT - BELOW
    words = escape(f"{stage.name}, {stage.end - stage.begin} steps")
    line = f'<line class="border" x1="{x}" x2="{x}" y1="0" y2="{floor}"/>'
    return f'{line}<text x="{x}" y="{floor + 18}" dx="4">{words}</text>'


def _line(frame: _Frame, number: int, curve: Curve) -> str:
    points = " ".join(f"{frame.x(step):.1f},{frame.y(loss):.1f}" for step, loss in curve.points)
    return f'<polyline {_look(number, curve)} points="{points}"><title>{escape(curve.name)}</title></polyline>'


def _look(number: int, curve: Curve) -> str:
    return f'class="c{number % COLOURS}{" held" if curve.held else ""}"'


def _table(found: Sequence[Rise]) -> str:
    if not found:
        return ""
    head = "".join(f'<th scope="col">{word}</th>' for word in ("stage", "loss of", "before", "highest", "back after"))
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(rise))}</tr>" for rise in found)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>What rose when a stage began</h2>{table}</section>"


def _cells(rise: Rise) -> tuple[str, ...]:
    back = "not yet" if rise.back is None else f"{rise.back} steps"
    return rise.stage, rise.name, f"{rise.before:.3g}", f"{rise.peak:.3g}", back
