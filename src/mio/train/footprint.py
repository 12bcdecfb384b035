"""What a training step takes in memory: the step itself runs on tensors without storage, and what lives is counted.

No formula to keep in step with the code: other networks, losses and optimizers are counted as they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mio.layers import Batch, Segments
from mio.models.backbone import Backbone, BackboneConfig
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim, optimizers


@dataclass(frozen=True)
class Footprint:
    """Bytes. `kept`: weights and optimizer states, which also a save copies; `peak`: the most that lives at once
    during a step, `kept` included."""

    kept: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that operations have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._part, key, size)

    def _part(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


@cache
def footprint(c: BackboneConfig, optim: Optim, lengths: tuple[int, ...], parts: int = 1) -> Footprint:
    """Of a step over `parts` packs of samples of `lengths`, every id a target, in fp32 on a CPU."""
    with FakeTensorMode(), LiveBytes() as counter:
        model = Backbone(c)
        learning = optimizers(model, optim)
        for _ in range(2):  # the first step makes the optimizers' states
            counter.peak = counter.live
            for _ in range(min(parts, 2)):  # the second pack meets the gradients of the first
                next_token_loss(model, pack(lengths), ())["loss"].backward()  # no kind: nothing to log
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
            for optimizer in learning:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return Footprint(counter.live, counter.peak)


def pack(lengths: Sequence[int]) -> Batch:
    """Samples of zeros, of which every id but the first is a target."""
    ids = torch.zeros(sum(lengths), dtype=torch.long)
    targets = ids[: len(ids) - len(lengths)]
    return Batch(ids, ids, Segments.of(lengths), targets, targets, targets)
