"""Packs -> one page: every token as a stroke of colour, every span as the picture or sound that it decodes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import accumulate, pairwise
from string import Template

import numpy as np
from numpy.typing import NDArray

from mio.evals.forms import FORMS
from mio.processor import Processor
from mio.sequence import TokenSequence
from mio.types import Encoded, Ids, MioError, Text

Run = tuple[int, int, int, bool]  # start, stop, kind, trained
HUES = (150, 25, 260, 330, 60, 200)  # of modalities, in turn; text has none


@dataclass(frozen=True)
class Shown:
    """A pack: its samples' tokens and what is known of each. `room`: tokens that would fit."""

    title: str
    samples: Sequence[tuple[Mapping[str, str], TokenSequence]]
    room: int


@dataclass(frozen=True)
class Look:
    """What a page needs to know: the model's own words, and the name of every kind and the kind of every id."""

    speaker: Processor
    kinds: tuple[str, ...]
    of: NDArray[np.int64]

    def page(self, packs: Sequence[Shown], facts: Mapping[str, str], beyond: str = "") -> str:
        """HTML that loads nothing. `beyond`: sections that follow the packs'."""
        template = (files("mio") / "assets" / "packs.html").read_text(encoding="utf-8")
        rules = (f"--k{n}: {HUES[(n - 1) % len(HUES)]};" for n in range(1, len(self.kinds)))
        colours = (f".k{n} {{ fill: hsl(var(--k{n}) 55% var(--light)); }}" for n in range(1, len(self.kinds)))
        return Template(template).substitute(
            facts="".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
            colours=f":root {{ {' '.join(rules)} }}\n" + "\n".join(colours),
            legend="".join(f"<li>{_swatch(n)}{escape(kind)}</li>" for n, kind in enumerate(self.kinds)),
            packs="".join(self._pack(pack) for pack in packs) + beyond,
        )

    def _pack(self, pack: Shown) -> str:
        used = sum(len(sequence) for _, sequence in pack.samples)
        starts = accumulate((len(sequence) for _, sequence in pack.samples), initial=0)
        strips = [self._strokes(s, start) for (_, s), start in zip(pack.samples, starts, strict=False)]
        count = f"{len(pack.samples)} samples, {used:,} of {pack.room:,} tokens"
        head = f"<h2>{escape(pack.title)} <small>{count} ({used / pack.room:.1%})</small></h2>"
        cards = "".join(self._card(about, sequence) for about, sequence in pack.samples)
        return f"<section>{head}{_strip(''.join(strips), pack.room)}<ol>{cards}</ol></section>"

    def _strokes(self, sequence: TokenSequence, start: int) -> str:
        strokes = (
            f'<rect class="k{kind}{"" if trained else " given"}" x="{start + a}" width="{b - a}" height="20">'
            f"<title>{b - a} {self.kinds[kind]} {'trained' if trained else 'given'}</title></rect>"
            for a, b, kind, trained in runs(sequence, self.of)
        )
        return f'<g>{"".join(strokes)}<path d="M{start} 0v20"/></g>'

    def _card(self, about: Mapping[str, str], sequence: TokenSequence) -> str:
        trained = int(sequence.loss.sum())
        facts = (
            about["task"],
            about["source"],
            about["id"],
            about["license"],
            f"{len(sequence)} tokens, {trained} trained",
        )
        foot = "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
        strip = _strip(self._strokes(sequence, 0), len(sequence))
        return f'<li>{strip}<div class="content">{"".join(self._parts(sequence))}</div><footer>{foot}</footer></li>'

    def _parts(self, sequence: TokenSequence) -> Iterator[str]:
        """Text, control tokens and decoded media, in order; what is trained is marked."""
        control = np.isin(sequence.ids, list(self.speaker.vocab.control_ids))
        changes = np.flatnonzero(np.diff(sequence.loss.astype(np.int8))) + 1
        places = np.flatnonzero(control)
        for piece, loss in zip(*_split(sequence, np.unique([*changes, *places, *places + 1])), strict=True):
            mark = "trained" if loss.any() else "given"
            if len(piece) == 1 and int(piece[0]) in self.speaker.vocab.control_ids:
                yield f'<code class="{mark}">{escape(self.speaker.vocab.tokens[int(piece[0])])}</code>'
                continue
            parsed = self.speaker.parse(piece)
            yield from (f'<span class="{mark}">{self._part(part)}</span>' for part in parsed.parts)
            yield from (f'<span class="fault">{escape(fault)}</span>' for fault in parsed.faults)

    def _part(self, part: Text | Encoded) -> str:
        if isinstance(part, Text):
            return escape(part.text)
        try:
            media = self.speaker.media(part.modality, part.codes)
        except MioError as error:
            return f'<span class="fault">{part.modality}: {escape(str(error))}</span>'
        form = FORMS[type(media)]
        return form.shown(form.encode(media), f"of {part.codes.size} codes")


def runs(sequence: TokenSequence, of: NDArray[np.int64]) -> list[Run]:
    """Neighbours of one kind that are alike in whether they are trained."""
    kinds = of[sequence.ids]
    cuts = np.flatnonzero((np.diff(kinds) != 0) | (np.diff(sequence.loss.astype(np.int8)) != 0)) + 1
    edges = [0, *cuts.tolist(), len(kinds)]
    return [(a, b, int(kinds[a]), bool(sequence.loss[a])) for a, b in pairwise(edges) if b > a]


def _split(sequence: TokenSequence, cuts: Ids) -> tuple[list[Ids], list[NDArray[np.bool_]]]:
    """Without empty pieces."""
    ids = [piece for piece in np.split(sequence.ids, cuts) if len(piece)]
    return ids, [piece for piece in np.split(sequence.loss, cuts) if len(piece)]


def _strip(strokes: str, width: int) -> str:
    return f'<svg class="strip" viewBox="0 0 {width} 20" preserveAspectRatio="none" aria-hidden="true">{strokes}</svg>'


def _swatch(kind: int) -> str:
    return f'<svg viewBox="0 0 10 10" aria-hidden="true"><rect class="k{kind}" width="10" height="10"/></svg>'
