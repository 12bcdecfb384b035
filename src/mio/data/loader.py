"""Packs of stored samples -> tensors. torch starts here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mio.data.packing import best_fit, mixture
from mio.data.store import Store
from mio.layers import Batch, Segments
from mio.sequence import TokenSequence


@dataclass(frozen=True)
class Loader:
    """Batches by step: the plan is computed once from the seed, so the loader's state is the step."""

    store: Store
    packs: Sequence[Sequence[int]]
    kinds: NDArray[np.int64]  # (vocabulary,): kind of every id

    @staticmethod
    def plan(
        store: Store, shares: Mapping[str, float], kinds: NDArray[np.int64], tokens: int, steps: int, seed: int
    ) -> Loader:
        """`steps` packs of at most `tokens` tokens, tasks mixed by their shares of tokens."""
        samples = mixture(store.tasks(), store.lengths, shares, seed)
        return Loader(store, best_fit(samples, store.lengths, tokens, steps), kinds)

    def batch(self, step: int) -> Batch:
        return collate([self.store[s] for s in self.packs[step]], self.kinds)


def collate(sequences: Sequence[TokenSequence], kinds: NDArray[np.int64]) -> Batch:
    """Lay samples end to end, by length; the target of a position is the next id of its own sample."""
    sequences = sorted(sequences, key=len)
    ids = np.concatenate([s.ids for s in sequences])
    trained = np.concatenate([s.loss for s in sequences])
    lengths = tuple(len(s.ids) for s in sequences)
    trained[np.cumsum([0, *lengths[:-1]])] = False  # nothing predicts a first id
    where = np.flatnonzero(trained) - 1
    positions = np.concatenate([np.arange(n) for n in lengths])
    targets = ids[where + 1]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        Segments.of(lengths),
        torch.from_numpy(where),
        torch.from_numpy(targets),
        torch.from_numpy(kinds[targets]),
    )
