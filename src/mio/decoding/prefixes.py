"""Keys of prompts answered lately: a system prompt or an image that comes again is not read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]


class Prefixes:
    """The `most` latest prompts with their keys and values (layers, 2, Hkv, T, Dh)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held: OrderedDict[bytes, tuple[Ids, Tensor]] = OrderedDict()

    def fill(self, prompt: Sequence[int], row: Tensor) -> int:
        """Copy what is known of a prompt into a row of the cache (layers, 2, Hkv, positions, Dh); returns how many
        positions that is. The last id is always left: its logits are wanted."""
        ids = np.array(prompt[:-1], np.int64)
        alike = {key: _alike(ids, held) for key, (held, _) in self.held.items()}
        best = max(alike, key=lambda key: alike[key], default=b"")
        known = alike.get(best, 0)
        if known:
            self.held.move_to_end(best)
            row[..., :known, :] = self.held[best][1][..., :known, :]
        return known

    def keep(self, prompt: Sequence[int], row: Tensor) -> None:
        """Remember a prompt whose keys lie in a row of the cache; the one longest out of use is forgotten."""
        if self.most:
            ids = np.array(prompt, np.int64)
            self.held[ids.tobytes()] = (ids, row[..., : len(ids), :].clone())
            self.held.move_to_end(ids.tobytes())
        while len(self.held) > self.most:
            self.held.popitem(last=False)


def _alike(a: Ids, b: Ids) -> int:
    """How many ids two prompts begin with alike."""
    short = min(len(a), len(b))
    other = np.flatnonzero(a[:short] != b[:short])
    return int(other[0]) if len(other) else short
