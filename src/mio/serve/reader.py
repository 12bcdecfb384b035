"""Ids of one answer as they come -> pieces, each as soon as it can be had; and how many ids of each kind there were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from mio.pipeline import Model
from mio.processor import OpenSpan
from mio.serve.answer import Fault, Piece
from mio.types import Codes, Encoded, MissingError, Modality, Text
from mio.vocab import Vocabulary


def counts(vocab: Vocabulary, ids: Sequence[int]) -> dict[str, int]:
    """Codes by row, and as "text" everything else."""
    array = np.array(ids, np.int64)
    codes = {row.name: int((vocab.codes(row.name, array)[0] >= 0).sum()) for row in vocab.rows if row.size}
    return {"text": len(ids) - sum(codes.values()), **codes}


class Reader:
    """`out`: what was asked for; where it names a row made of spans (video), a run of them becomes one piece. A span
    that stands alone stays what it is where that was asked for as well: a picture, not a clip of one frame. Media whose
    tokenizer makes them bit by bit (speech) come in pieces that join without a seam."""

    def __init__(self, model: Model, out: str) -> None:
        vocab = model.processor.vocab
        self.model = model
        self.ends = dict(vocab.bounds(row.name) for row in vocab.rows if row.size)
        self.opens = {vocab.bounds(row.name)[0]: row for row in vocab.rows if row.size}
        kinds = model.kinds(out)
        self.row = next((r for r in vocab.rows if r.spans_of and r.name in kinds), None)
        spans = self.row.spans_of if self.row is not None else ""
        self.alone = spans if spans in kinds else ""
        self.held: list[int] = []
        self.run: list[Codes] = []  # spans of a piece that has not ended
        self.span: OpenSpan | None = None  # one that is told while it grows

    def feed(self, ids: Iterable[int]) -> Iterator[Piece]:
        for id in ids:
            if self.span is not None:
                yield from self._grow(self.span, id)
                continue
            if id in self.opens:
                yield from self._open(self.opens[id])
            self.held.append(id)
            if self._whole():
                yield from self._read()

    def _open(self, row: Modality) -> Iterator[Piece]:
        yield from self._read()  # half a character, should one precede the span
        processor = self.model.processor
        with suppress(MissingError):  # told when the span is whole
            span = OpenSpan(row, processor.vocab, processor.tokenizer(row.name))
            self.span = span if span.growing is not None else None
        if self.span is not None:
            yield from self._gathered()

    def _grow(self, span: OpenSpan, id: int) -> Iterator[Piece]:
        """The next piece of a medium, if it is worth one by now."""
        assert span.growing is not None
        closed = span.take(id)
        piece = span.growing.grow(span.known, span.steps, closed)
        if closed:
            self.span, self.held = None, []
        if piece is not None:
            yield piece

    def close(self) -> Iterator[Piece]:
        yield from self._read()
        yield from self._gathered()

    def _whole(self) -> bool:
        """A closed span, or text that ends on a whole character."""
        end = self.ends.get(self.held[0])
        if end is not None:
            return self.held[-1] == end
        last, processor = self.held[-1], self.model.processor
        return last >= processor.vocab.text_size or not processor.text.decode(self.held).endswith("\ufffd")

    def _read(self) -> Iterator[Piece]:
        parsed = self.model.processor.parse(np.array(self.held, np.int64))
        self.held = []
        for part in parsed.parts:
            if self.row is not None and isinstance(part, Encoded) and part.modality == self.row.spans_of:
                self.run.append(part.codes)
                continue
            yield from self._gathered()
            yield self._piece(part)
        yield from map(Fault, parsed.faults)

    def _gathered(self) -> Iterator[Piece]:
        if self.run and self.row is not None:
            codes, self.run = np.concatenate(self.run), []
            yield self._piece(Encoded((len(codes) == 1 and self.alone) or self.row.name, codes))

    def _piece(self, part: Text | Encoded) -> Piece:
        made = self.model.decoded(part)
        return Fault(made) if isinstance(made, str) else made
