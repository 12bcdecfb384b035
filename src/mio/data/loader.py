"""Packs of stored samples -> tensors. torch starts here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mio.data.plan import Plan
from mio.data.store import Store
from mio.layers import Batch, Segments
from mio.sequence import TokenSequence


@dataclass(frozen=True)
class Loader:
    """Batches by number, for any process that asks: the loader's state is the step."""

    store: Store
    plan: Plan
    kinds: NDArray[np.int64]  # (vocabulary,): kind of every id

    def batch(self, number: int) -> Batch:
        """The pack of that number, its samples laid end to end by length."""
        starts, stops = self.plan.spans(self.plan[number], self.store)
        order = np.argsort(stops - starts, kind="stable")
        sequence = self.store.spans(starts[order], stops[order])
        return _batch(sequence, (stops - starts)[order].tolist(), self.kinds)

    def ids(self, number: int) -> list[str]:
        """What a pack holds, in the order of its plan: ids of samples."""
        samples = self.plan.samples(self.plan[number], self.store)
        return [str(self.store.about(sample)["id"]) for sample in samples.tolist()]


def collate(sequences: Sequence[TokenSequence], kinds: NDArray[np.int64]) -> Batch:
    """Lay samples end to end, by length."""
    sequences = sorted(sequences, key=len)
    whole = TokenSequence(np.concatenate([s.ids for s in sequences]), np.concatenate([s.loss for s in sequences]))
    return _batch(whole, [len(s) for s in sequences], kinds)


def _batch(whole: TokenSequence, lengths: Sequence[int], kinds: NDArray[np.int64]) -> Batch:
    """The target of a position is the next id of its own sample."""
    ids, trained = whole.ids, whole.loss
    starts = np.cumsum([0, *lengths[:-1]])
    trained[starts] = False  # nothing predicts a first id
    where = np.flatnonzero(trained) - 1
    targets = ids[where + 1]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(np.arange(len(ids)) - np.repeat(starts, lengths)),
        Segments.of(lengths),
        torch.from_numpy(where),
        torch.from_numpy(targets),
        torch.from_numpy(kinds[targets]),
    )
