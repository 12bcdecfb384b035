"""Low-rank adapters on a backbone through `peft`: what is frozen stays as it is, to the bit. Needs the extra `tune`.

On quantized layers (`models.quantized`) they are QLoRA. Saved in peft's own format under Hugging Face's names, so that
an adapter trained here loads on the exported model too.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mio.models.backbone import Backbone
from mio.models.quantized import QuantizedLinear
from mio.types import MissingError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Lora:
    """Updates of `rank` to every linear layer, times `scale` / `rank`. `first_row`: ids from this one on are new, and
    their rows of embedding and head are trained whole; 0 where none is."""

    rank: int = 16
    scale: float = 32.0
    dropout: float = 0.0
    first_row: int = 0


class Adapted:
    """A backbone with adapters in it: train it, run it, then `save` them or `merge` them."""

    def __init__(self, backbone: Backbone, tuned: Any) -> None:
        self.backbone, self._tuned = backbone, tuned
        self._take_head()

    def save(self, folder: Path) -> None:
        """Adapters and trained rows only."""
        self._tuned.save_pretrained(folder, save_embedding_layers=False)

    def merge(self) -> Backbone:
        """Put the adapters into the weights; what is left is a plain backbone, to save or export as any other.
        Quantized weights become the floats that they stand for."""
        for module in self._tuned.modules():
            for name, child in module.named_children():
                if isinstance(child, QuantizedLinear):
                    setattr(module, name, _floats(child))
        self._tuned.merge_and_unload(safe_merge=True)
        self._take_head()
        if self.backbone.config.tied:
            self.backbone.lm_head.weight = self.backbone.model.embed_tokens.weight
        return self.backbone

    def _take_head(self) -> None:
        self.backbone.lm_head = self._tuned.get_base_model().lm_head


def _floats(layer: QuantizedLinear) -> nn.Linear:
    out = nn.Linear(layer.in_features, layer.out_features, bias=False)
    out.weight, out.bias = nn.Parameter(layer.dequantized(torch.float32), requires_grad=False), layer.bias
    return out


class _Stock(nn.Module):
    """A backbone's parts under the attributes by which peft finds tied tables; `config` is what it reads of one."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.config = {"model_type": "llama", "tie_word_embeddings": backbone.config.tied}
        self._tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"} if backbone.config.tied else None
        self.model, self.lm_head = backbone.model, backbone.lm_head

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens


def adapt(backbone: Backbone, c: Lora) -> Adapted:
    """Freeze a backbone and put new adapters into it, in place. They change nothing before they have learned."""
    tables = ("embed_tokens",) if backbone.config.tied else ("embed_tokens", "lm_head")
    rows = list(range(c.first_row, backbone.config.vocabulary))
    config = _peft().LoraConfig(
        r=c.rank,
        lora_alpha=c.scale,
        lora_dropout=c.dropout,
        target_modules=list(TARGETS),
        trainable_token_indices=dict.fromkeys(tables, rows) if c.first_row else None,
    )
    with _knowing_ours(config):
        return Adapted(backbone, _peft().PeftModel(_Stock(backbone), config))


def load_adapters(backbone: Backbone, folder: Path, train: bool = False) -> Adapted:
    """Put saved adapters into a backbone, in place. `train`: go on training them.

    Raises:
        MissingError: there are none.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise MissingError("There are no adapters.", at=str(folder), fix="Name a folder that Adapted.save wrote.")
    config, stock = _peft().LoraConfig.from_pretrained(str(folder)), _Stock(backbone)
    with _knowing_ours(config):
        tuned = _peft().PeftModel.from_pretrained(stock, str(folder), is_trainable=train, config=config)
    return Adapted(backbone, tuned)


@contextmanager
def _knowing_ours(config: Any) -> Iterator[None]:
    """Quantized layers take adapters, too (QLoRA): peft calls this way in experimental, and warns of what it does not
    know."""
    config._register_custom_module({QuantizedLinear: importlib.import_module("peft.tuners.lora").Linear})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type")
        yield


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingError("Adapters need the package peft.", fix="pip install 'mio[tune]'") from error
