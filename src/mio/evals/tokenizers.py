"""The report card of tokenizers: one protocol for every kind of medium, several tokenizers side by side.

Held-out media are encoded, decoded and encoded again. Labels are read off the codes alone, and off what was decoded;
whatever learns to read them (a linear probe, names of codes) learns on media of the training split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np

from mio.evals.exhibits import Exam, Exhibits
from mio.evals.metrics.codes import features_likeness, likeness, linear_probe, nearest_label, purity
from mio.evals.metrics.statistics import Score, mean
from mio.tokenizers.quantizers import health, idempotence
from mio.types import Codes, Modality, Tokenizer

ORIGINAL = "original"  # the column of what was not tokenized


@dataclass(frozen=True)
class Line:
    """One number. `sign`: 1 where more is better, -1 where less is, 0 where neither is meant."""

    group: str
    what: str
    unit: str
    sign: int
    score: Score


@dataclass(frozen=True)
class Sheet:
    """The lines of one tokenizer on one kind of media, and what it made of each of them."""

    name: str
    kind: str
    lines: tuple[Line, ...]
    media: tuple[Any, ...]


@dataclass(frozen=True)
class Trial:
    """All that a tokenizer did with the exhibits. `book`: the row whose codes these are, by span."""

    book: Modality
    codes: list[Codes]
    known: list[Codes]
    rebuilt: list[Any]
    again: list[Codes]
    seconds: tuple[float, float]  # of encoding and of decoding the held-out media

    @staticmethod
    def of(tokenizer: Tokenizer, book: Modality, shown: Exhibits) -> Trial:
        tokenizer.decode(tokenizer.encode(shown.media[:1]))  # what is set up at first use has no part in the speed
        codes, encoding = _timed(tokenizer.encode, shown.media)
        rebuilt, decoding = _timed(tokenizer.decode, codes)
        again, known = tokenizer.encode(rebuilt), tokenizer.encode(shown.known_media)
        return Trial(book, codes, known, rebuilt, again, (encoding, decoding))


def _timed(work: Callable[[Sequence[Any]], list[Any]], given: Sequence[Any]) -> tuple[list[Any], float]:
    start = time.perf_counter()
    return work(given), time.perf_counter() - start


def measured(name: str, tokenizer: Tokenizer, book: Modality, shown: Exhibits) -> Sheet:
    """Every line of one tokenizer."""
    trial = Trial.of(tokenizer, book, shown)
    sources = (
        reconstruction(trial, shown),
        recognised(trial.rebuilt, shown),
        (line for exam in shown.exams for line in semantics(trial, exam)),
        codebooks(trial),
        costs(trial, shown),
    )
    return Sheet(name, shown.name, tuple(line for lines in sources for line in lines), tuple(trial.rebuilt))


def original(shown: Exhibits) -> Sheet:
    """What the recognisers make of the media themselves: no tokenizer should be asked for more."""
    return Sheet(ORIGINAL, shown.name, tuple(recognised(shown.media, shown)), shown.media)


def reconstruction(trial: Trial, shown: Exhibits) -> Iterator[Line]:
    """Originals against what was decoded, and whether decoding is stable: encode(decode(c)) = c."""
    pairs = [shown.kind.pair(a, b) for a, b in zip(shown.media, trial.rebuilt, strict=True)]
    for m in shown.kind.measures:
        if score := m.of(pairs):
            yield Line("reconstruction", m.what, m.unit, m.sign, score)
    kept = mean([_kept(c, again) for c, again in zip(trial.codes, trial.again, strict=True)])
    yield Line("reconstruction", "codes kept by encode(decode(c))", "%", 1, kept)


def _kept(codes: Codes, again: Codes) -> float:
    """Over the spans and steps that both have: some decoders give a little more or less than was encoded."""
    spans, _, steps = np.minimum(codes.shape, again.shape)
    return idempotence(codes[:spans, :, :steps], again[:spans, :, :steps])


def recognised(media: Sequence[Any], shown: Exhibits) -> Iterator[Line]:
    """How often linear recognisers, trained on real media, are right on these in place of the held-out ones."""
    for exam in shown.exams:
        features = exam.probe.sees(exam.pick(shown.known_media, media))
        score = exam.score(linear_probe, features_likeness(features, len(exam.known)))
        yield Line("semantics", f"{exam.what}: recognised in the medium", "%", 1, score)


def semantics(trial: Trial, exam: Exam) -> Iterator[Line]:
    """What codes alone tell of a label; of several codebooks the first one, apart, which should hold content only."""
    codes, what = exam.pick(trial.known, trial.codes), exam.what
    gram = likeness(codes)
    yield Line("semantics", f"{what}: linear probe on codes", "%", 1, exam.score(linear_probe, gram))
    yield Line("semantics", f"{what}: nearest neighbour by codes", "%", 1, exam.score(nearest_label, gram))
    sign, first = 1 if exam.probe.content else -1, [c[:, :1] for c in codes]
    if trial.book.codebooks > 1:
        score = exam.score(linear_probe, likeness(first))
        yield Line("semantics", f"{what}: linear probe on codebook 0", "%", sign, score)
    if not trial.book.steps:
        score = purity([c.ravel() for c in first], exam.labels, len(exam.known))
        yield Line("semantics", f"{what}: purity of codebook 0", "%", sign, score)


def codebooks(trial: Trial) -> Iterator[Line]:
    """How well every codebook is used on the held-out media."""
    for level, codes in enumerate(_by_codebook(trial)):
        state = health(codes, trial.book.codebook_size)
        yield Line("codebook", f"codebook {level}: codes used", "%", 1, _exactly(state.usage, codes.size))
        yield Line("codebook", f"codebook {level}: perplexity", "", 1, _exactly(state.perplexity, codes.size))


def costs(trial: Trial, shown: Exhibits) -> Iterator[Line]:
    """Tokens and bits for as much media, and how fast they come and go here."""
    kind, books = shown.kind, _by_codebook(trial)
    amount = sum(map(kind.amount, shown.media))
    tokens = sum(codes.size for codes in books)
    bits = sum(codes.size * log2(health(codes, trial.book.codebook_size).perplexity) for codes in books)
    speeds = [amount / max(seconds, 1e-9) for seconds in trial.seconds]

    def line(what: str, unit: str, sign: int, value: float) -> Line:
        return Line("cost", what, unit, sign, _exactly(value, len(shown.media)))

    yield line(f"tokens per {kind.unit}", "", -1, tokens / amount)
    yield line(f"bits per {kind.unit}", "", -1, tokens * log2(trial.book.codebook_size) / amount)
    yield line(f"bits per {kind.unit}, by how often codes occur", "", 0, bits / amount)
    yield line("encoding", f"{kind.unit}s/s", 1, speeds[0])
    yield line("decoding", f"{kind.unit}s/s", 1, speeds[1])


def _by_codebook(trial: Trial) -> list[Codes]:
    return [np.concatenate([c[:, k].ravel() for c in trial.codes]) for k in range(trial.book.codebooks)]


def _exactly(value: float, n: int) -> Score:
    return Score(value, n, value, value)


def rows(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """One for each kind, group and measure, with the scores of every sheet by its name, in order of appearance."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for sheet in sheets:
        for line in sheet.lines:
            about = {"kind": sheet.kind, "group": line.group, "what": line.what, "unit": line.unit, "sign": line.sign}
            row = found.setdefault((sheet.kind, line.group, line.what), about | {"scores": {}})
            score = line.score
            row["scores"][sheet.name] = {"value": score.value, "low": score.low, "high": score.high, "n": score.n}
    order = {group: n for n, group in enumerate(("reconstruction", "semantics", "codebook", "cost"))}
    kinds = list(dict.fromkeys(s.kind for s in sheets))
    return sorted(found.values(), key=lambda r: (kinds.index(r["kind"]), order[r["group"]]))


def shown_score(score: dict[str, float], unit: str) -> str:
    """As people read it: a value with its 95 % interval, where there is one."""
    scale = 100 if unit == "%" else 1
    value, low, high = (_digits(score[key] * scale, unit) for key in ("value", "low", "high"))
    return value if score["low"] == score["high"] else f"{value} ({low} - {high})"


def _digits(value: float, unit: str) -> str:
    """Three digits that count; shares to a tenth of a per cent."""
    if unit == "%":
        return f"{value:.1f}"
    before = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, 3 - before)}f}"


def label(row: dict[str, Any]) -> str:
    """A measure with its unit, and an arrow to where it is better."""
    arrow = {1: " ↑", -1: " ↓", 0: ""}[row["sign"]]
    return f"{row['what']}{', ' if row['unit'] else ''}{row['unit']}{arrow}"


def markdown(sheets: Sequence[Sheet]) -> list[str]:
    """The whole card as a table for people and for documents."""
    names = list(dict.fromkeys(s.name for s in sheets))
    lines = [f"| {' | '.join(('kind', 'measure', *names))} |", f"| {' | '.join(['---'] * (2 + len(names)))} |"]
    for row in rows(sheets):
        cells = (shown_score(row["scores"][n], row["unit"]) if n in row["scores"] else "" for n in names)
        lines.append(f"| {' | '.join((row['kind'], label(row), *cells))} |")
    return lines
