"""What a language model takes in memory, counted on the meta device, where nothing is allocated; and what this process
took."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache as remembered
from pathlib import Path

import torch

from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import Bits, quantize_linears

DTYPES = ("fp32", "bf16", "int8", "int4")
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}


@remembered
def parameters(config: BackboneConfig) -> int:
    """Number of parameters; a tied head counts once."""
    return _over_layers(config, lambda model: sum(p.numel() for p in model.parameters()))


def counts(config: BackboneConfig) -> dict[str, int]:
    """Numbers in each tensor, by its name in a checkpoint."""
    return {name: tensor.numel() for name, tensor in _empty(config).state_dict().items()}


@remembered
def weights(config: BackboneConfig, dtype: str) -> int:
    """Bytes of all weights. int8 and int4: linear layers but the head, with bf16 scales; the rest is bf16."""

    def held(model: Backbone) -> int:
        if dtype in _BITS:
            quantize_linears(model, _BITS[dtype])
        tensors = [*model.parameters(), *model.buffers()]
        return sum(t.numel() * (_width(dtype) if t.is_floating_point() else 1) for t in tensors)

    return _over_layers(config, held)


def cache(config: BackboneConfig, dtype: str, tokens: int = 1000) -> int:
    """Bytes of the keys and values of one sequence; quantized models keep them in bf16."""
    return 2 * config.layers * config.kv_heads * config.head_dim * _width(dtype) * tokens


def total(config: BackboneConfig, dtype: str) -> int:
    """Bytes of the weights and of one sequence that fills the window."""
    return weights(config, dtype) + cache(config, dtype, config.positions)


def peak() -> dict[str, int]:
    """Most bytes that this process has held: "resident", and those of tensors on the "gpu" if it used one."""
    held = {"resident": peak_resident()}
    return held | {"gpu": torch.cuda.max_memory_allocated()} if torch.cuda.is_initialized() else held


def peak_resident() -> int:
    """Most bytes of memory since this program began; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, whose ru_maxrss would count the program that started this one, too
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    if sys.platform == "win32":
        return 0
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _width(dtype: str) -> int:
    """Bytes of a number that is not quantized."""
    return 4 if dtype == "fp32" else 2


def _over_layers(config: BackboneConfig, count: Callable[[Backbone], int]) -> int:
    """What counts up over a model's layers, from one layer and two, since all are alike: a tenth of the time."""
    one, two = (count(_empty(replace(config, layers=layers))) for layers in (1, 2))
    return one + (config.layers - 1) * (two - one)


def _empty(config: BackboneConfig) -> Backbone:
    with torch.device("meta"):
        return Backbone(config)
