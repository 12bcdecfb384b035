"""A report card as one page that needs nothing else: originals beside reconstructions, and every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any

from mio.evals.exhibits import Exhibits
from mio.evals.forms import FORMS
from mio.evals.tokenizers import ORIGINAL, Sheet, label, rows, shown_score

Row = dict[str, Any]
TITLES = {
    "reconstruction": "What survives",
    "semantics": "What the codes tell",
    "codebook": "How the codebooks are used",
    "cost": "What it costs",
}


def page(facts: Mapping[str, str], shown: Sequence[Exhibits], sheets: Sequence[Sheet]) -> str:
    names = list(dict.fromkeys(s.name for s in sheets))
    return Template((files("mio") / "assets" / "report_card.html").read_text(encoding="utf-8")).substitute(
        names=escape(", ".join(n for n in names if n != ORIGINAL)),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        width=f"{max(20, 10 * len(names))}rem",
        sections="".join(_section(e, [s for s in sheets if s.kind == e.name]) for e in shown),
    )


def _section(shown: Exhibits, sheets: Sequence[Sheet]) -> str:
    kind = shown.kind
    count = f"{len(shown.media)} held-out examples; probes learn on {len(shown.known)} of the training split."
    tables = (
        f"<h3>{TITLES[group]}</h3>{_table(list(found), [s.name for s in sheets])}"
        for group, found in groupby(rows(sheets), key=lambda row: str(row["group"]))
    )
    examples = "".join(_example(shown, number, sheets) for number in shown.examples())
    head = f"<h2>{escape(kind.title)}</h2><p>{count}</p>"
    return f'<section id="{shown.name}">{head}<ul class="examples">{examples}</ul>{"".join(tables)}</section>'


def _example(shown: Exhibits, number: int, sheets: Sequence[Sheet]) -> str:
    item = shown.items[number]
    figures = "".join(_figure(s.name, s.media[number], item.id) for s in sheets)
    return f'<li><div class="both">{figures}</div><p>{escape(item.id)} <small>{escape(item.license)}</small></p></li>'


def _figure(name: str, medium: Any, id: str) -> str:
    form = FORMS[type(medium)]
    about = f"{id}, {'as it is' if name == ORIGINAL else f'rebuilt by {name}'}"
    return f"<figure><figcaption>{escape(name)}</figcaption>{form.shown(form.encode(medium), about)}</figure>"


def _table(found: Sequence[Row], names: Sequence[str]) -> str:
    used = [n for n in names if any(n in row["scores"] for row in found)]
    head = "".join(f"<th>{escape(n)}</th>" for n in used)
    body = "".join(_row(row, used) for row in found)
    return f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: Row, names: Sequence[str]) -> str:
    values = {n: row["sign"] * s["value"] for n, s in row["scores"].items() if n != ORIGINAL}
    best = max(values.values(), default=0) if len(values) > 1 and row["sign"] else None
    cells = "".join(_cell(row, n, best is not None and values.get(n) == best) for n in names)
    return f"<tr><th>{escape(label(row))}</th>{cells}</tr>"


def _cell(row: Row, name: str, best: bool) -> str:
    if name not in row["scores"]:
        return "<td></td>"
    value, _, interval = shown_score(row["scores"][name], row["unit"]).partition(" ")
    return f"<td{' class=best' if best else ''}>{value} <small>{interval}</small></td>"
