"""From within a text that must have some shape to an end of it, in few bytes.

What may follow is asked of a matcher over single bytes, a choice at a time; a text with a JSON schema is soon ended by
closing what is open, one with a regular expression by never walking in a circle.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np

from mio.types import MioError

if TYPE_CHECKING:
    from llguidance import LLMatcher

LONGEST = 500  # steps of a way, what is forced between two choices counting as one
CHANCES = (0.0, 0.1, 0.4)  # of a random byte, where the usual choices lead nowhere
FIRST = {byte: rank for rank, byte in enumerate(b'0123456789,:"ntf-[{')}  # as JSON is soon ended
WIDE = 64  # more possible bytes are the inside of a string


def way_out(matcher: LLMatcher) -> bytes:
    """Bytes that lead from a state over single bytes to an end: few, though not always the fewest.

    Raises:
        MioError: none was found.
    """
    for chance in CHANCES:
        found = _walk(matcher.deep_copy(), chance, Random(0))
        if found is not None:
            return found
    raise MioError("No short text was found that has this shape.", fix="Let it end sooner.")


def _walk(at: LLMatcher, chance: float, random: Random) -> bytes | None:
    out = b""
    for _ in range(LONGEST):
        if at.is_accepting():
            return out
        step = at.compute_ff_bytes() or bytes([_byte(at, chance, random)])
        at.consume_tokens([*step])
        out += step
    return None


def _byte(at: LLMatcher, chance: float, random: Random) -> int:
    """What ends a string or a bracket; or else a byte that changes what may follow, so that no circle is walked."""
    options = _options(at)
    if random.random() < chance:
        return random.choice(options)
    ends = [byte for byte in (b'"' if len(options) > WIDE else b"]}") if byte in options]
    ranked = sorted(options, key=lambda byte: FIRST.get(byte, 256 + byte))
    if ends or len(options) > WIDE:
        return [*ends, *ranked][0]
    return next((byte for byte in ranked if _options(_after(at, byte)) != options), ranked[0])


def _options(at: LLMatcher) -> bytes:
    bits = np.unpackbits(np.frombuffer(at.compute_bitmask(), np.uint8), bitorder="little")
    return np.flatnonzero(bits[:256]).astype(np.uint8).tobytes()


def _after(at: LLMatcher, byte: int) -> LLMatcher:
    after = at.deep_copy()
    after.consume_token(byte)
    return after
