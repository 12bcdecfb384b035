"""The matrix as one page: a table of all directions, and under it what was asked, answered and expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from mio.evals.matrix import SAMPLE, Measured, measure_cells, opened, unseen
from mio.evals.planning import commit
from mio.evals.shown import Piece, pages
from mio.pipeline import Model
from mio.types import Part, Text

SHOWN = 3  # answers of a direction


def write_matrix(model: Model, corpus: Path | None, path: Path, limit: int, batch: int) -> Path:
    """Measure, and write one page that needs nothing else."""
    with TemporaryDirectory() as drawn:
        shelf = unseen(corpus or SAMPLE, Path(drawn))
        found = list(measure_cells(model, shelf, limit, batch))
        facts = {
            "model": model.config.name,
            "vocabulary": model.processor.vocab.fingerprint(),
            "data": f"validation split of {corpus.name if corpus else 'the sample that ships'}",
            "items": f"{limit} of a direction at most, drawn with seed 0",
            "commit": commit(),
        }
        html = page(facts, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def page(facts: Mapping[str, str], found: Sequence[Measured]) -> str:
    """HTML without any file beside it; the same measurements, the same bytes."""
    template = files("mio") / "assets" / "matrix.html"
    return Template(template.read_text(encoding="utf-8")).substitute(
        model=escape(facts["model"]),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        table=_table(found),
        sections="".join(_section(m) for m in found if m.asked),
    )


def _table(found: Sequence[Measured]) -> str:
    kinds = list(dict.fromkeys(m.cell.into for m in found))
    outs = list(dict.fromkeys(m.cell.out for m in found))
    by_way = {(m.cell.into, m.cell.out): m for m in found}
    head = "".join(f'<th scope="col">{escape(out.replace(",", " + "))}</th>' for out in outs)
    rows = (
        f'<tr><th scope="row">{escape(into)}</th>{"".join(_cell(by_way.get((into, out))) for out in outs)}</tr>'
        for into in kinds
    )
    return f'<thead><tr><th scope="col">in \\ out</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'


def _cell(measured: Measured | None) -> str:
    if measured is None or measured.share is None:
        return '<td class="none">–</td>'
    share, check = measured.share, measured.cell.check
    low, high = share.interval
    kind = "made" if check.untaught else "taught"
    chance = f", chance {measured.chance:.0%}" if measured.chance else ""
    return (
        f'<td class="{kind}" style="--share:{share.value:.3f}"><a href="#{_id(measured)}"><b>{share.value:.0%}</b></a>'
        f"<small>{low:.0%} to {high:.0%}, n={share.count}{chance}</small><small>{escape(check.words)}</small></td>"
    )


def _id(measured: Measured) -> str:
    return f"{measured.cell.into}-{measured.cell.out}".replace(",", "-")


def _section(measured: Measured) -> str:
    cell, share = measured.cell, measured.share
    assert share is not None
    title = f"{cell.into} → {cell.out.replace(',', ' + ')}"
    about = f"{share.right} of {share.count} {cell.check.words}."
    cards = "".join(_card(measured, number) for number in range(min(SHOWN, len(measured.asked))))
    return f'<section id="{_id(measured)}"><h2>{title}</h2><p>{escape(about)}</p><ul>{cards}</ul></section>'


def _card(measured: Measured, number: int) -> str:
    reply, sample = measured.asked[number]
    *asked, answer = opened(sample).messages
    columns: list[tuple[str, Sequence[Part]]] = [
        ("asked", [p for m in asked for p in m.parts]),
        ("answered", reply.parts),
    ]
    if not measured.cell.check.untaught:
        columns.append(("reference", answer.parts))
    mark = {True: "right", False: "wrong"}[measured.right[number]]
    body = "".join(f"<div><h3>{name}</h3>{_shown(parts, name)}</div>" for name, parts in columns)
    faults = "".join(f'<p class="fault">{escape(fault)}</p>' for fault in reply.faults)
    return f'<li class="{mark}">{body}{faults}<footer>{mark} · {escape(sample.id.partition(":")[2])}</footer></li>'


def _shown(parts: Sequence[Part], name: str) -> str:
    words = " ".join(p.text for p in parts if isinstance(p, Text))[:80]
    return pages([Piece.of(part, "") for part in parts], f"{name} {words}".strip())
