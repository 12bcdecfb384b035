"""Bottleneck adapters: a narrow layer, a bend and a wide layer, added to what attention and MLP return.

Houlsby et al. (2019). peft has none, and they cannot be merged: no matrix does what the bend does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from mio.checkpoint import CONFIG, WEIGHTS, commit, load_state, load_tensors, read_json, save_module
from mio.config import from_dict, to_dict
from mio.models.backbone import Backbone
from mio.types import MioError

PLACES = ("o_proj", "down_proj")  # the last layers of attention and MLP


@dataclass(frozen=True)
class Bottleneck:
    """`width`: between the two layers."""

    width: int = 64


class Bottlenecked(nn.Module):
    """A linear layer and the adapter on its output: (..., in) -> (..., out). A new one changes nothing."""

    def __init__(self, layer: nn.Linear, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.down, self.up = nn.Linear(layer.out_features, width), nn.Linear(width, layer.out_features)
        for part in (self.up.weight, self.up.bias):
            nn.init.zeros_(part)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        added: Tensor = self.up(F.gelu(self.down(out)))
        return out + added


def insert(backbone: Backbone, c: Bottleneck) -> Backbone:
    """Freeze a backbone and put new adapters into it, in place.

    Raises:
        MioError: it has adapters already.
    """
    if any(isinstance(module, Bottlenecked) for module in backbone.modules()):
        raise MioError("This backbone has bottlenecks already.", fix="Insert them into a fresh copy.")
    backbone.requires_grad_(False)
    for parent, name in [(m, n) for m in backbone.modules() for n in PLACES if hasattr(m, n)]:
        setattr(parent, name, Bottlenecked(parent.get_submodule(name), c.width))  # type: ignore[arg-type]
    return backbone


def save_bottlenecks(backbone: Backbone, folder: Path) -> None:
    """The adapters only."""
    width = next(m.down.out_features for m in backbone.modules() if isinstance(m, Bottlenecked))
    commit(folder, partial(save_module, config=to_dict(Bottleneck(width)), state=_learned(backbone)))


def load_bottlenecks(backbone: Backbone, folder: Path) -> Backbone:
    """Insert saved adapters into a backbone, in place; they go on training.

    Raises:
        MissingError: there are none. DataError: they are of a backbone of another shape.
    """
    insert(backbone, from_dict(Bottleneck, read_json(folder / CONFIG)))
    frozen = {k: v for k, v in backbone.state_dict().items() if k not in _learned(backbone)}
    load_state(backbone, {**frozen, **load_tensors(folder / WEIGHTS)}, str(folder))
    return backbone


def _learned(backbone: Backbone) -> dict[str, Tensor]:
    places = [name for name, module in backbone.named_modules() if isinstance(module, Bottlenecked)]
    own = tuple(f"{place}.{part}." for place in places for part in ("down", "up"))
    return {name: tensor for name, tensor in backbone.state_dict().items() if name.startswith(own)}
