"""Text that must follow a JSON schema or a regular expression: which ids may come next, and a short way to its end.

What a shape lets through is llguidance's to say (Rust; pip install 'mio[schema]'). Ours is that no budget cuts a text:
at every id some way to an end is known, and where the budget comes near it, it is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mio.decoding.ending import way_out
from mio.types import MioError, MissingError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Schema:
    """Text is one JSON value that a JSON schema allows, with at most one space between its signs.

    Raises:
        MioError: `text` is no JSON object.
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(_parsed(self.text), dict):
            raise MioError("This JSON schema is no JSON object.", fix='Write it as in {"type": "object"}.')

    @staticmethod
    def of(schema: Mapping[str, Any]) -> Schema:
        return Schema(json.dumps(schema))

    def grammar(self) -> str:
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_json_schema(self.text, overrides={"whitespace_pattern": " ?"})

    def parts(self) -> Iterator[Schema]:
        """Schemas that stand inside, each with the definitions that it may refer to."""
        root = _parsed(self.text)
        known = {name: root[name] for name in ("$defs", "definitions") if name in root}
        found = (part for part in _inside(root) if part.keys() & LONG)
        return (Schema.of(known | part) for part in islice(found, MOST))


@dataclass(frozen=True)
class Regex:
    """Text matches a regular expression from its beginning to its end."""

    text: str

    def grammar(self) -> str:
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_regex(self.text)

    def parts(self) -> Iterator[Regex]:
        return iter(())


Shape: TypeAlias = Schema | Regex
MOST = 100  # parts of a schema that are looked at
LONG = {"properties", "required", "items", "prefixItems", "enum", "const", "pattern", "minLength"}  # may need many ids


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _inside(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value, the value itself last."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _inside(inner)
    if isinstance(value, dict):
        yield value


class Spelling:
    """How a text tokenizer writes. `data`: the bytes of each id, none where it is no text; `encode`: text -> ids."""

    def __init__(self, data: Sequence[bytes], encode: Callable[[str], list[int]]) -> None:
        self.data, self._encode = data, encode
        self._bytes = {piece[0]: id for id, piece in enumerate(data) if len(piece) == 1}

    def ids(self, wanted: bytes) -> list[int]:
        """Ids that are these very bytes, which may begin inside a character; single bytes where those would change."""
        text = wanted.decode(errors="ignore")
        whole, ids = text.encode(), self._encode(text)
        if b"".join(self.data[id] for id in ids) != whole:
            ids = self._spelt(whole)
        return [*self._spelt(wanted[: len(wanted) - len(whole)]), *ids]

    def _spelt(self, wanted: bytes) -> list[int]:
        return [self._bytes[byte] for byte in wanted]

    @cached_property
    def tokenizer(self) -> LLTokenizer:
        return _tokenizer(self.data, lambda text: self.ids(text.encode()))


class _Table:
    """A table of tokens as llguidance reads it; its last one is the end."""

    bos_token_id = None

    def __init__(self, data: Sequence[bytes], ids: Callable[[str], list[int]]) -> None:
        self.tokens, self.eos_token_id, self._ids = [*data, b"<end>"], len(data), ids
        self.special_token_ids = [n for n, piece in enumerate(data) if not piece] + [len(data)]

    def __call__(self, text: str) -> list[int]:
        return self._ids(text)


def _tokenizer(data: Sequence[bytes], ids: Callable[[str], list[int]]) -> LLTokenizer:
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError as error:
        fix = "Install it: pip install 'mio[schema]'"
        raise MissingError("Text of a given shape needs the package llguidance.", fix=fix) from error
    return LLTokenizer(TokenizerWrapper(_Table(data, ids)))


@lru_cache(maxsize=1)
def _letters() -> LLTokenizer:
    """A tokenizer of single bytes, in which ways to an end are sought."""
    return _tokenizer([bytes([b]) for b in range(256)], lambda text: [*text.encode()])


class Constraint:
    """One text under way. `way`: ids that end it, none where it may end now.

    A step may lengthen the way by less than `margin`: by what the longest schema inside needs. Where so many ids are
    not left, the way is all that is allowed.
    """

    def __init__(self, spelling: Spelling, shape: Shape, margin: int) -> None:
        self.spelling, self.margin = spelling, margin
        self._ids, self._bytes = (_matcher(t, shape) for t in (spelling.tokenizer, _letters()))
        self.way = self._sought()
        self._free: Ids | None = None

    @property
    def may_end(self) -> bool:
        return not self.way

    def allowed(self, room: int) -> Ids:
        """Ids that may come next, where the text may take `room` more; none where it must end.

        Raises:
            MioError: one id has made the rest longer than the budget.
        """
        if len(self.way) > room:
            what = f"Text of the wanted shape needs {len(self.way)} more ids; {max(room, 0)} are left."
            raise MioError(what, fix="Raise the budget of tokens.")
        if len(self.way) + self.margin > room:
            return np.array(self.way[:1], np.int64)
        if self._free is None:
            bits = np.unpackbits(np.frombuffer(self._ids.compute_bitmask(), np.uint8), bitorder="little")
            self._free = np.flatnonzero(bits[: len(self.spelling.data)])
        return self._free

    def take(self, id: int) -> None:
        """Move on by one id, which must be allowed."""
        self._ids.consume_token(id)
        self._bytes.consume_tokens([*self.spelling.data[id]])
        self._free = None
        self.way = self.way[1:] if self.way[:1] == (id,) else self._known() or self._sought()

    def copy(self) -> Constraint:
        """The same state, to be moved on apart from this one."""
        twin = copy(self)
        twin._ids, twin._bytes = self._ids.deep_copy(), self._bytes.deep_copy()
        return twin

    def _known(self) -> tuple[int, ...]:
        """The way that was known, or the most of it, if it still leads to an end."""
        if self._ids.is_accepting():
            return ()
        ways = (self.way[cut:] for cut in range(min(4, len(self.way))))
        return next((way for way in ways if self._leads(way)), ())

    def _leads(self, way: tuple[int, ...]) -> bool:
        after = self._ids.deep_copy()
        return after.validate_tokens([*way]) == len(way) and after.consume_tokens([*way]) and after.is_accepting()

    def _sought(self) -> tuple[int, ...]:
        return tuple(self.spelling.ids(way_out(self._bytes)))


@lru_cache(maxsize=32)
def constraint(spelling: Spelling, shape: Shape) -> Constraint:
    """A text of this shape before its first id; to be copied.

    Raises:
        MissingError: llguidance is not installed.
        MioError: a shape that cannot be read, asks for what llguidance does not know, or that no short text has.
    """
    needs = [0]
    for part in shape.parts():
        try:
            needs.append(len(Constraint(spelling, part, 0).way))
        except MioError:  # no schema, though it stands inside one
            continue
    return Constraint(spelling, shape, SLACK + max(needs))


SLACK = 16  # ids by which another spelling of the same end may be longer


def _matcher(tokenizer: LLTokenizer, shape: Shape) -> LLMatcher:
    from llguidance import LLMatcher

    matcher = LLMatcher(tokenizer, shape.grammar(), log_level=0)
    if matcher.is_error():
        reason = matcher.get_error().strip().splitlines()[0]
        raise MioError(f"Text cannot be given this shape: {reason}", fix="See llguidance on what it supports.")
    return matcher
