"""Which rows of one static cache hold which unfinished answers. Rows in use stay side by side, so that a step is one
batch without a gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mio.models.steps import Cache


@dataclass(eq=False)
class Lane:
    """One row: where it lies now, how many keys it holds, and the id whose key comes next."""

    place: int
    length: int = 0
    id: int = -1


class Lanes:
    """`used[n].place == n`: a lane may be moved, its owner need not know."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.used: list[Lane] = []

    @property
    def free(self) -> int:
        return self.cache.tensor.shape[2] - len(self.used)

    def take(self) -> Lane:
        lane = Lane(len(self.used))
        self.used.append(lane)
        return lane

    def drop(self, lane: Lane, clean: bool = False) -> None:
        """Give a row back; the last one moves into its place. `clean` where its keys may be NaN, which even a weight of
        zero lets through."""
        if clean:
            self.cache.tensor[:, :, lane.place] = 0
        last = self.used.pop()
        if last is not lane:
            self._copy(last, lane)
            last.place = lane.place
            self.used[last.place] = last

    def follow(self, lanes: Sequence[Lane], parents: Sequence[int], shared: int) -> list[Lane]:
        """Lanes that hold what those numbered `parents` hold; the rest is given back. The first `shared` keys of all
        `lanes` are the same."""
        heirs: dict[int, int] = {}  # parent -> the child that stays in its lane
        for child, parent in enumerate(parents):
            heirs.setdefault(parent, child)
        spare = [lane for number, lane in enumerate(lanes) if number not in heirs]
        out = []
        for child, parent in enumerate(parents):
            stays = heirs[parent] == child
            out.append(lanes[parent] if stays else self._twin(lanes[parent], spare, shared))
        for lane in spare:
            self.drop(lane)
        return out

    def _twin(self, lane: Lane, spare: list[Lane], shared: int) -> Lane:
        known, twin = (shared, spare.pop()) if spare else (0, self.take())
        self._copy(lane, twin, known)
        twin.length = lane.length
        return twin

    def _copy(self, source: Lane, target: Lane, start: int = 0) -> None:
        held = self.cache.tensor[..., start : source.length, :]  # (layers, 2, lanes, H, P, Dh)
        held[:, :, target.place] = held[:, :, source.place]
