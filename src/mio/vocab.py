"""Codes <-> ids: text ids, special tokens and one range of ids per codebook, built from a token list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mio.config import suggest
from mio.types import DataError, Ids, MioError, Modality


@dataclass(frozen=True)
class Specials:
    """Names of the special tokens that templates and decoding use."""

    bos: str = "<|startoftext|>"
    eos: str = "<|endoftext|>"
    pad: str = "<unk>"
    im_start: str = "<|im_start|>"
    im_end: str = "<|im_end|>"

    def names(self) -> tuple[str, ...]:
        return (self.pad, self.bos, self.eos, self.im_start, self.im_end)


@dataclass(frozen=True)
class Vocabulary:
    """Rows of modalities over a list of token strings: `tokens[id]`. Text ids are 0..text_size-1.

    The strings of a row's codes are looked up in the list, so any order of them works; arithmetic on ids is nowhere.

    Raises:
        DataError: a token of a row is missing from the list or stands in it twice.
    """

    tokens: tuple[str, ...]
    text_size: int
    rows: tuple[Modality, ...]
    specials: Specials = field(default_factory=Specials)

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.spans_of and row.spans_of not in self._by_name:
                raise DataError(f"Row {row.name!r} is made of {row.spans_of!r} spans, which no row is.")
        _ = self._code_ids

    @staticmethod
    def build(
        text_tokens: Sequence[str],
        rows: Sequence[Modality],
        specials: Specials | None = None,
        further: Sequence[str] = (),
    ) -> Vocabulary:
        """Text first, then the special tokens, the rows' begin and end tokens, then every code.

        `further`: tokens that a base model has beyond its text ids. Those of ours that are among them keep their ids,
        and so do special tokens among the text's.
        """
        specials = specials or Specials()
        held = {*further, *({*specials.names()} & {*text_tokens})}
        ends = [t for row in rows if row.size for t in (row.begin, row.end)]
        codes = [row.code.format(i) for row in rows for i in range(row.size)]
        new = (token for token in (*specials.names(), *ends, *codes) if token not in held)
        tokens = (*text_tokens, *further, *new)
        return Vocabulary(tokens, len(text_tokens), tuple(rows), specials)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _index(self) -> Mapping[str, int]:
        """Ids of the tokens beyond text; special tokens that are not there are looked for among the text's (Yi)."""
        index: dict[str, int] = {}
        for id in range(self.text_size, len(self.tokens)):
            token = self.tokens[id]
            if token in index:
                raise DataError(f"Token {token!r} stands twice in the list, at {index[token]} and {id}.")
            index[token] = id
        for token in set(self.specials.names()) - index.keys():
            if token in self.tokens[: self.text_size]:
                index[token] = self.tokens.index(token)
        return index

    @cached_property
    def _by_name(self) -> Mapping[str, Modality]:
        return {row.name: row for row in self.rows}

    @cached_property
    def _code_ids(self) -> Mapping[str, NDArray[np.int64]]:
        """Row name -> (codebooks, codebook_size) ids."""
        return {r.name: self._ids_of(r).reshape(r.codebooks, r.codebook_size) for r in self.rows if r.size}

    def _ids_of(self, row: Modality) -> NDArray[np.int64]:
        return np.array([self.id(row.code.format(i)) for i in range(row.size)], np.int64)

    @cached_property
    def _places(self) -> Mapping[str, NDArray[np.int64]]:
        """Row name -> (len(vocabulary),): level * codebook_size + code of an id, -1 for ids of others."""
        out = {}
        for name, ids in self._code_ids.items():
            out[name] = np.full(len(self), -1, np.int64)
            out[name][ids.ravel()] = np.arange(ids.size)
        return out

    def id(self, token: str) -> int:
        """Id of a special token or of a code's string."""
        if token not in self._index:
            raise DataError(f"Token {token!r} is missing from the vocabulary of {len(self)} tokens.")
        return self._index[token]

    def row(self, name: str) -> Modality:
        if name not in self._by_name:
            raise MioError(f"No modality {name!r}. {suggest(name, self._by_name)}")
        return self._by_name[name]

    def base(self, name: str) -> Modality:
        """The row whose ids a modality uses: itself, or the row it is a run of."""
        row = self.row(name)
        return self.row(row.spans_of) if row.spans_of else row

    def ids(self, name: str, levels: NDArray[np.int64], codes: NDArray[np.int64]) -> Ids:
        """Codes and the codebook level of each -> ids.

        Raises:
            DataError: a level or code outside the row's codebooks.
        """
        row = self.base(name)
        low = codes.size and min(codes.min(), levels.min()) < 0
        if codes.size and (low or codes.max() >= row.codebook_size or levels.max() >= row.codebooks):
            limits = f"{row.codebooks} codebooks of {row.codebook_size}"
            raise DataError(f"A {name} code is outside {limits}.", fix="Encode with this model's own tokenizer.")
        return self._code_ids[row.name][levels, codes]

    def codes(self, name: str, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The inverse of `ids`: levels and codes; -1 in both where an id is not one of this row's."""
        row = self.base(name)
        place = self._places[row.name][ids]
        foreign = place < 0
        return np.where(foreign, -1, place // row.codebook_size), np.where(foreign, -1, place % row.codebook_size)

    def level_ids(self, name: str) -> NDArray[np.int64]:
        """(codebooks, codebook_size) ids of a row."""
        return self._code_ids[self.base(name).name]

    def bounds(self, name: str) -> tuple[int, int]:
        """Ids of the begin and end token of a row's spans."""
        row = self.base(name)
        return self.id(row.begin), self.id(row.end)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids of the special tokens, which are never text even where they lie among text ids."""
        return frozenset(self.id(n) for n in self.specials.names())

    def fingerprint(self) -> str:
        """16 hex digits over the token list and the rows."""
        digest = hashlib.sha256("\n".join(self.tokens).encode())
        digest.update(f"{self.text_size}{self.rows}{self.specials}".encode())
        return digest.hexdigest()[:16]
