"""What a language model takes in memory, counted on the meta device, where nothing is allocated."""

from __future__ import annotations

from functools import cache as remembered

import torch

from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import Bits, quantize_linears

DTYPES = ("fp32", "bf16", "int8", "int4")
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}


@remembered
def parameters(config: BackboneConfig) -> int:
    """Number of parameters; a tied head counts once."""
    return sum(p.numel() for p in _empty(config).parameters())


@remembered
def weights(config: BackboneConfig, dtype: str) -> int:
    """Bytes of all weights. int8 and int4: linear layers but the head, with bf16 scales; the rest is bf16."""
    model = _empty(config)
    if dtype in _BITS:
        quantize_linears(model, _BITS[dtype])
    tensors = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * (_width(dtype) if t.is_floating_point() else 1) for t in tensors)


def cache(config: BackboneConfig, dtype: str, tokens: int = 1000) -> int:
    """Bytes of the keys and values of one sequence; quantized models keep them in bf16."""
    return 2 * config.layers * config.kv_heads * config.head_dim * _width(dtype) * tokens


def total(config: BackboneConfig, dtype: str) -> int:
    """Bytes of the weights and of one sequence that fills the window."""
    return weights(config, dtype) + cache(config, dtype, config.positions)


def _width(dtype: str) -> int:
    """Bytes of a number that is not quantized."""
    return 4 if dtype == "fp32" else 2


def _empty(config: BackboneConfig) -> Backbone:
    with torch.device("meta"):
        return Backbone(config)
