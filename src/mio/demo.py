"""Every direction of a model, on real inputs that it was not trained on, as one page that needs nothing else."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from tqdm import tqdm

from mio.checkpoint import read_json
from mio.data.prepare import SceneMaker, split
from mio.data.sources import Item, read_corpus
from mio.data.tasks import INSTRUCT, Shelf
from mio.evals.metrics import normal
from mio.evals.shown import Piece, pages
from mio.pipeline import Job, Model, Reply, load, write_media
from mio.pretrained.memory import peak_resident
from mio.processor import open_media
from mio.types import Image, MediaFile, Message, MioError, Part, Sample, Text, Turns


@dataclass(frozen=True)
class Ask:
    """`count` samples of a task that answer in `out`, from these sources only, with these words in the request."""

    task: str
    out: str
    count: int
    sources: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Direction:
    title: str  # as the evaluation names it
    about: str
    asks: tuple[Ask, ...]


DIRECTIONS = (
    Direction("image -> text", "It sees a picture and says what it shows.", (
        Ask("name picture", "text", 2, ("emoji",)), Ask("name picture", "text", 2, ("digits", "doodles")),
        Ask("describe scene", "text", 2))),
    Direction("image + question -> text", "It answers about a picture.", (Ask("question scene", "text", 3),)),
    Direction("text -> image", "It draws what it is asked for.", (
        Ask("draw picture", "image", 2, ("emoji",)), Ask("draw picture", "image", 2, ("digits", "doodles")),
        Ask("draw scene", "image", 2))),
    Direction("image editing", "It redraws as told.", (Ask("restyle", "image", 3), Ask("edit scene", "image", 3))),
    Direction("speech -> text", "It writes down what it hears.", (
        Ask("transcribe", "text", 3, ("fsdd",)), Ask("transcribe", "text", 3, ("names", "keywords")))),
    Direction("text -> speech", "It says a word in the voice that is named.", (
        Ask("say", "speech", 4, ("fsdd",), "in the voice of"), Ask("say", "speech", 2, ("names",), "in the voice of"))),
    Direction("speech -> speech", "It repeats what it hears in another voice.", (Ask("repeat", "speech", 3),)),
    Direction("image -> speech", "It says aloud what it sees.", (
        Ask("speak picture", "speech", 3, ("digits",)), Ask("speak picture", "speech", 3, ("emoji",)))),
    Direction("speech -> image", "It draws what it hears.", (
        Ask("draw speech", "image", 3, ("fsdd",)), Ask("draw speech", "image", 3, ("names",)))),
    Direction("frames -> text", "It watches a clip and says what happens.", (
        Ask("motion", "text", 3), Ask("describe clip", "text", 3))),
    Direction("text -> frames", "It films what it is asked for.", (Ask("film", "video", 3),)),
    Direction("interleaved story", "It tells in pictures and words.", (Ask("story", "text,image", 2, (), "Tell"),)),
    Direction("in-context examples", "It learns names from drawings, and uses them.", (Ask("in context", "text", 3),)),
)  # fmt: skip
ASSETS = Path(str(files("mio") / "assets"))


def shelf_of_sample(folder: Path) -> tuple[Shelf, set[str]]:
    """The sample's items with some edits drawn into `folder`, and the ids of those that no training has seen."""
    rule, items = read_json(ASSETS / "sample" / "split.json"), read_corpus(ASSETS / "sample")
    train, val = split(items, rule["held_out"], rule["seed"])
    maker = SceneMaker.of(train, rule["held_out"], rule["seed"]).fresh(1)
    edits = [_stored(item, folder) for item in maker.edit_items(12)]
    return Shelf.of([*train, *val, *edits]), {i.id for i in [*val, *edits]}


def _stored(item: Item, folder: Path) -> Item:
    """The item with its pictures in files, which is how tasks want them."""
    stem, pictures = folder / item.id.replace("/", "-"), (p for p in item.parts if isinstance(p, Image))
    paths = (write_media(picture, stem.with_name(f"{stem.name}-{n}")) for n, picture in enumerate(pictures))
    return replace(item, parts=tuple(MediaFile(path, "image") for path in paths))


def chosen(ask: Ask, shelf: Shelf, unseen: set[str]) -> list[Sample]:
    """Samples about unseen items that fit, drawn with a fixed seed for each question."""
    samples = [s for s in INSTRUCT[ask.task](shelf) if s.id.partition(":")[2].partition("#")[0] in unseen]
    fit = [s for s in samples if (not ask.sources or s.source in ask.sources) and ask.words in request(s)]
    rng = shelf.rng("demo", ask.task, *ask.sources)
    return [fit[i] for i in rng.permutation(len(fit))[: ask.count]]


def request(sample: Sample) -> str:
    assert isinstance(sample.content, Turns)
    return "".join(p.text for p in sample.content.messages[-2].parts if isinstance(p, Text))


@dataclass(frozen=True)
class Card:
    """A question with its expected answer in `turns`, and what came. `seconds`: mean of its batch."""

    direction: str
    number: int
    ask: Ask
    sample: Sample
    turns: Turns
    reply: Reply | None = None
    error: str = ""
    seconds: float = 0.0

    @cached_property
    def pieces(self) -> dict[str, list[Piece]]:
        """What was asked, answered and expected."""
        *question, answer = self.turns.messages
        asked, made = [p for m in question for p in m.parts], self.reply.parts if self.reply else ()
        roles: dict[str, Sequence[Part]] = {"asked": asked, "answered": made, "expected": answer.parts}
        stem = f"{slug(self.direction)}-{self.number}"
        return {role: [Piece.of(p, f"{stem}-{role}-{n}") for n, p in enumerate(roles[role], 1)] for role in roles}

    @property
    def right(self) -> bool | None:
        """Whether the text is the expected one; None where media are asked for, which have many right forms."""
        if not self.reply or any(p.form for p in self.pieces["expected"]):
            return None
        return normal(self.reply.text) == normal("".join(p.text for p in self.pieces["expected"]))

    def report(self) -> dict[str, object]:
        about = {"direction": self.direction, "task": self.ask.task, "sample": self.sample.id}
        parts = {role: [p.report() for p in pieces] for role, pieces in self.pieces.items()}
        found = {"as_expected": self.right, "error": self.error, "seconds": round(self.seconds, 3)}
        reply = {"faults": self.reply.faults, "ids": self.reply.ids} if self.reply else {}
        return {**about, **parts, **found, **reply}


def slug(title: str) -> str:
    return "-".join(re.findall(r"\w+", title))


def _arrow(title: str) -> str:
    return escape(title.replace("->", "→"))


def opened(direction: Direction, number: int, ask: Ask, sample: Sample) -> Card:
    """A card with its files read; where one cannot be, with the texts alone and the reason."""
    assert isinstance(sample.content, Turns)
    try:
        turns = _mapped(sample.content, lambda p: [open_media(p) if isinstance(p, MediaFile) else p])
        return Card(direction.title, number, ask, sample, turns)
    except MioError as error:
        texts = _mapped(sample.content, lambda p: [p] if isinstance(p, Text) else [])
        return Card(direction.title, number, ask, sample, texts, error=f"{error} {error.fix}")


def _mapped(turns: Turns, change: Callable[[Part], Sequence[Part]]) -> Turns:
    return Turns(tuple(Message(m.role, tuple(q for p in m.parts for q in change(p))) for m in turns.messages))


def answered(model: Model, cards: Sequence[Card]) -> list[Card]:
    """All as one batch; a question that fails costs its own answer only."""
    jobs = [Job(Turns(c.turns.messages[:-1]), c.ask.out, 500, seed=c.number) for c in cards if not c.error]
    start = time.perf_counter()
    replies = iter(model.run(jobs) if jobs else [])
    seconds = (time.perf_counter() - start) / max(len(jobs), 1)
    return [c if c.error else _told(c, next(replies), seconds) for c in cards]


def _told(card: Card, reply: Reply, seconds: float) -> Card:
    if reply.error:
        return replace(card, error=f"{reply.error} {reply.error.fix}".strip())
    return replace(card, reply=reply, seconds=seconds)


Rows = Sequence[Mapping[str, Any]]  # of a model's report.json
VERDICT = {True: '<p class="right">as expected</p>', False: '<p class="wrong">not as expected</p>', None: ""}


def html_of(card: Card) -> str:
    id, faults = card.sample.id.partition(":")[2], card.reply.faults if card.reply else (card.error,)
    made = pages(card.pieces["answered"], f"made by the model when asked: {request(card.sample)}")
    made += "".join(f'<p class="fault">{escape(fault)}</p>' for fault in faults) + VERDICT[card.right]
    blocks = (
        ("asked", "Asked", pages(card.pieces["asked"], f"given to the model, {id}")),
        ("answered", "Answered", made),
        ("expected", "Reference", pages(card.pieces["expected"], "to compare with")),
    )
    body = "".join(f'<div class="{c}"><h3>{h}</h3><div class="pages">{shown}</div></div>' for c, h, shown in blocks)
    facts = "".join(f"<span>{escape(f)}</span>" for f in (f"{card.seconds:.2f} s", id, card.sample.license))
    size = "long card" if max(map(len, card.pieces.values())) > 4 else "card"
    return f'<li class="{size}">{body}<footer>{facts}</footer></li>'


def _measured(measures: Rows, direction: str) -> str:
    """The numbers of one direction, as a list."""
    items = "".join(
        f"<li><b>{row['value']:.0%}</b> <span>{escape(str(row['what']))} <small>{row['right']} of {row['count']}, 95 %"
        f" interval {row['low']:.0%} to {row['high']:.0%}, split: {escape(str(row['split']))}</small></span></li>"
        for row in measures
        if row["direction"] == direction
    )
    return f'<ul class="measured">{items}</ul>' if items else ""


def _section(direction: Direction, cards: Sequence[Card], measures: Rows) -> str:
    head = f"<h2>{_arrow(direction.title)}</h2><p>{escape(direction.about)}</p>{_measured(measures, direction.title)}"
    body = "".join(html_of(card) for card in cards if card.direction == direction.title)
    return f'<section id="{slug(direction.title)}">{head}<ul class="cards">{body}</ul></section>'


def _credits(credits: Mapping[str, Any]) -> str:
    lines = [(p["source"], p["attribution"], ", ".join(p["licenses"])) for p in credits["parts"]]
    lines += [(w["title"], f"{w['author']}; pictures: {w['illustrator']}", w["license"]) for w in credits["works"]]
    cells = ([escape(cell) for cell in line] for line in lines)
    return "".join(f"<li><b>{name}</b>: {who} <small>{terms}</small></li>" for name, who, terms in cells)


def page(facts: Mapping[str, str], cards: Sequence[Card], measures: Rows) -> str:
    return Template((ASSETS / "gallery.html").read_text(encoding="utf-8")).substitute(
        model=escape(facts["model"]),
        facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        links="".join(f'<li><a href="#{slug(d.title)}">{_arrow(d.title)}</a></li>' for d in DIRECTIONS),
        sections="".join(_section(d, cards, measures) for d in DIRECTIONS),
        judges=_measured(measures, "judge") or "<p>This model comes without measurements.</p>",
        credits=_credits(read_json(ASSETS / "sample" / "credits.json")),
    )


def run(out: Path, model: Path | None = None, small: bool = False) -> Path:
    """Let a model answer in every direction; writes `out`/media, report.json and index.html, which it returns.

    `small`: one example of each direction. An example that fails is shown with its error.

    Raises:
        MioError: the model cannot be loaded.
    """
    folder = model or ASSETS / "tiny"
    measures = read_json(folder / "report.json") if (folder / "report.json").is_file() else []
    speaker, cards, start = load(folder), list[Card](), time.perf_counter()
    with TemporaryDirectory() as drawn:
        shelf, unseen = shelf_of_sample(Path(drawn))
        for direction in tqdm(DIRECTIONS, desc="demo", unit="direction"):
            asks = [replace(direction.asks[0], count=1)] if small else direction.asks
            samples = [(ask, sample) for ask in asks for sample in chosen(ask, shelf, unseen)]
            cards += answered(speaker, [opened(direction, n, *asked) for n, asked in enumerate(samples, 1)])
    facts = facts_of(speaker, cards, time.perf_counter() - start)
    return _write(out, facts, cards, page(facts, cards, measures))


def facts_of(model: Model, cards: Sequence[Card], seconds: float) -> dict[str, str]:
    size, window = sum(p.numel() for p in model.backbone.parameters()), model.config.backbone.positions
    return {
        "model": model.config.name,
        "speaks": ", ".join(model.modalities),
        "language model": f"{size / 1e6:.1f} million weights, window of {window} ids",
        "vocabulary": f"{len(model.processor.vocab)} ids, fingerprint {model.config.fingerprint}",
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores",
        "memory": f"{peak_resident() / 2**20:.0f} MB at most",
        "this page": f"{len(cards)} answers in {seconds:.1f} s, {sum(bool(c.error) for c in cards)} failed",
    }


def _write(out: Path, facts: Mapping[str, str], cards: Sequence[Card], html: str) -> Path:
    """Media first and the page last, each whole or not at all."""
    (out / "media").mkdir(parents=True, exist_ok=True)
    for piece in (p for c in cards for pieces in c.pieces.values() for p in pieces if p.form):
        _put(out / piece.file, piece.data)
    totals = {"answers": len(cards), "failed": sum(bool(c.error) for c in cards), "rss": peak_resident()}
    report = {**facts, "totals": totals, "items": [c.report() for c in cards]}
    _put(out / "report.json", (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
    return _put(out / "index.html", html.encode())


def _put(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
