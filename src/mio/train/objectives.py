"""What training minimises, as functions of a model and a batch. Tensors only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mio.layers import Batch
from mio.models.backbone import Backbone


def next_token_loss(
    model: Backbone, batch: Batch, kinds: tuple[str, ...], weights: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Cross-entropy summed over all trained targets of the batch, their summed weight, and the mean of each kind for
    the log. `weights`: of a target of each kind; 1 where none is declared.

    Logits are computed for trained positions only: prompts cost no head.
    """
    hidden = model(batch.ids, batch.positions, batch.segments)
    logits = model.logits(hidden[batch.where]).float()
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    weight = losses.new_tensor([(weights or {}).get(kind, 1.0) for kind in kinds])[batch.kinds]
    out = {"loss": losses @ weight, "weight": weight.sum(), "tokens": torch.tensor(float(len(batch.ids)))}
    with torch.no_grad():
        for number, kind in enumerate(kinds):
            mine = losses[batch.kinds == number]
            if len(mine):
                out[kind] = mine.mean()
    return out
