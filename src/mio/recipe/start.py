"""The language model before its first stage: the weights of a text model, with rows for ids that it does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mio.models.backbone import Backbone
from mio.pretrained.llama import read_backbone
from mio.types import DataError

ROWS = ("model.embed_tokens.weight", "lm_head.weight")  # one for every id


@torch.no_grad()
def start_from(model: Backbone, folder: Path) -> None:
    """Fill `model` with a folder's weights. Its ids are the model's first ones, as Yi's are MIO's.

    The paper does not say how the rows of new ids begin: here around the mean of the others, a tenth as far from it as
    these are, so that at first no new id is much likelier than an old one (Hewitt, 2021).

    Raises:
        DataError: the folder's model has another shape, or more ids.
    """
    theirs = read_backbone(folder, torch.float32)
    if replace(theirs.config, vocabulary=0) != replace(model.config, vocabulary=0, positions=theirs.config.positions):
        raise DataError("These weights are of another shape.", at=str(folder), fix="Set the recipe's backbone to it.")
    if theirs.config.vocabulary > model.config.vocabulary:
        what = f"It has {theirs.config.vocabulary} ids; this vocabulary has {model.config.vocabulary}."
        raise DataError(what, at=str(folder), fix="Use the vocabulary that was made for it.")
    found = theirs.state_dict()
    for name, tensor in model.state_dict().items():
        tensor.copy_(_extended(found[name], len(tensor)) if name in ROWS else found[name])


def _extended(rows: Tensor, count: int) -> Tensor:
    """(n, D) -> (count, D)"""
    noise = torch.randn(count - len(rows), rows.shape[1])
    return torch.cat([rows, rows.mean(0) + 0.1 * rows.std(0) * noise])
