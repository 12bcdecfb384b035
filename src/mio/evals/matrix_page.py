"""The matrix as one page: a table of all directions, and under it what was asked, answered and expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from mio.checkpoint import read_json, write_json
from mio.config import from_dict
from mio.evals.matrix import CELLS, SAMPLE, Measured, measured, opened, unseen
from mio.evals.metrics import Share
from mio.evals.planning import commit, digest_of
from mio.evals.shown import Piece, pages
from mio.pipeline import Model
from mio.types import MioError, Part, Text

SHOWN = 3  # answers of a direction


@dataclass(frozen=True)
class Finding:
    """What stays of a direction that was measured: which answers are right, and the first ones as cards."""

    into: str
    out: str
    words: str
    untaught: bool = False
    right: tuple[bool, ...] = ()
    chance: float = 0.0
    cards: str = ""

    @staticmethod
    def of(found: Measured) -> Finding:
        cell, check = found.cell, found.cell.check
        cards = "".join(_card(found, number) for number in range(min(SHOWN, len(found.asked))))
        return Finding(cell.into, cell.out, check.words, check.untaught, found.right, found.chance, cards)

    @property
    def share(self) -> Share | None:
        return Share(sum(self.right), len(self.right)) if self.right else None

    def row(self) -> dict[str, Any]:
        """Numbers only; `right` is None where the data have no item of this direction, or the model no word."""
        low, high = self.share.interval if self.share else (None, None)
        value, count = (self.share.value, self.share.count) if self.share else (None, 0)
        about = {"from": self.into, "to": self.out, "what": self.words, "taught": not self.untaught}
        return about | {"right": value, "low": low, "high": high, "n": count, "chance": self.chance}


def write_matrix(model: Model, corpus: Path | None, path: Path, limit: int, batch: int) -> list[Finding]:
    """Measure, and write one page that needs nothing else; beside it, as JSON, every direction as soon as it is done.

    Raises:
        MioError: what lies beside the page was measured of another model, or otherwise.
    """
    facts = {
        "model": model.config.name,
        "weights": digest_of(model),
        "vocabulary": model.processor.vocab.fingerprint(),
        "data": f"validation split of {corpus.name if corpus else 'the sample that ships'}",
        "items": f"{limit} of a direction at most, drawn with seed 0",
    }
    beside, found = path.with_suffix(".json"), kept(path.with_suffix(".json"), facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as drawn:
        shelf = unseen(corpus or SAMPLE, Path(drawn))
        for cell in tqdm(CELLS[len(found) :], desc="matrix", unit="direction"):
            found.append(Finding.of(measured(model, shelf, cell, limit, batch)))
            write_json(beside, {"facts": facts, "found": [asdict(f) for f in found]})
    path.write_text(page({**facts, "commit": commit()}, found), encoding="utf-8")
    return found


def kept(path: Path, facts: Mapping[str, str]) -> list[Finding]:
    """The directions that are done. Raises: MioError where they were found under other facts."""
    if not path.is_file():
        return []
    stored = read_json(path)
    changed = [name for name, value in facts.items() if stored["facts"].get(name) != value]
    if changed:
        what = f"Another matrix is kept here: {', '.join(changed)} differ."
        raise MioError(what, at=str(path), fix="Give another -o, or remove this file.")
    return [from_dict(Finding, one) for one in stored["found"]]


def markdown(found: Sequence[Finding]) -> Iterator[str]:
    """The matrix as a table of lines, for documents."""
    yield "| from | to | right | interval | n | chance | what counts |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in found:
        if one.share is not None:
            low, high = one.share.interval
            chance = f"{one.chance:.1%}" if one.chance else ""
            numbers = (f"{one.share.value:.1%}", f"{low:.1%} - {high:.1%}", str(one.share.count), chance)
            yield f"| {' | '.join((one.into, one.out.replace(',', ' + '), *numbers, one.words))} |"


def page(facts: Mapping[str, str], found: Sequence[Finding]) -> str:
    """HTML without any file beside it; the same findings, the same bytes."""
    template = files("mio") / "assets" / "matrix.html"
    return Template(template.read_text(encoding="utf-8")).substitute(
        model=escape(facts["model"]),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        table=_table(found),
        sections="".join(_section(f) for f in found if f.right),
    )


def _table(found: Sequence[Finding]) -> str:
    kinds = list(dict.fromkeys(f.into for f in found))
    outs = list(dict.fromkeys(f.out for f in found))
    by_way = {(f.into, f.out): f for f in found}
    head = "".join(f'<th scope="col">{escape(out.replace(",", " + "))}</th>' for out in outs)
    rows = (
        f'<tr><th scope="row">{escape(into)}</th>{"".join(_cell(by_way.get((into, out))) for out in outs)}</tr>'
        for into in kinds
    )
    return f'<thead><tr><th scope="col">in \\ out</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'


def _cell(found: Finding | None) -> str:
    if found is None or found.share is None:
        return '<td class="none">–</td>'
    share = found.share
    low, high = share.interval
    kind = "made" if found.untaught else "taught"
    chance = f", chance {found.chance:.0%}" if found.chance else ""
    return (
        f'<td class="{kind}" style="--share:{share.value:.3f}"><a href="#{_id(found)}"><b>{share.value:.0%}</b></a>'
        f"<small>{low:.0%} to {high:.0%}, n={share.count}{chance}</small><small>{escape(found.words)}</small></td>"
    )


def _id(found: Finding) -> str:
    return f"{found.into}-{found.out}".replace(",", "-")


def _section(found: Finding) -> str:
    share = found.share
    assert share is not None
    title = f"{found.into} → {found.out.replace(',', ' + ')}"
    about = f"{share.right} of {share.count} {found.words}."
    return f'<section id="{_id(found)}"><h2>{title}</h2><p>{escape(about)}</p><ul>{found.cards}</ul></section>'


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
