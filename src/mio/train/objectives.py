"""What training minimises, as functions of a model and a batch. Tensors only."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mio.layers import Batch
from mio.models.backbone import Backbone
from mio.train.head import head_losses


def next_token_loss(
    model: Backbone, batch: Batch, kinds: tuple[str, ...], weights: Mapping[str, float] | None = None
) -> dict[str, Tensor]:
    """Cross-entropy summed over all trained targets of the batch, their summed weight, and the mean of each kind for
    the log. `weights`: of a target of each kind; 1 where none is declared.

    Logits are computed for trained positions only: prompts cost no head.
    """
    hidden = model(batch.ids, batch.positions, batch.segments).index_select(0, batch.where)
    by_kind = [(weights or {}).get(kind, 1.0) for kind in kinds]
    weight = torch.tensor(by_kind, device=hidden.device)[batch.kinds]
    total, losses = head_losses(hidden, model.lm_head.weight, batch.targets, weight)
    out = {"loss": total, "weight": weight.sum(), "tokens": torch.tensor(float(len(batch.ids)))}
    for number, kind in enumerate(kinds):
        mine = losses[batch.kinds == number]
        if len(mine):
            out[kind] = mine.mean()
    return out
