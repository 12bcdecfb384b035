"""Vectors in, codes and quantized vectors out. Knows nothing of what the vectors stand for.

A choice of quantizer is a config of the union `Quantizer`, and its `build()` gives the module: `out = module(x)` is a
`Quantized`, `module.decode(out.codes)` gives `out.quantized` back.
"""

from __future__ import annotations

from mio.tokenizers.quantizers.codebook import EuclideanCodebook, LearnedCodebook, VectorModule, nearest
from mio.tokenizers.quantizers.grouped import GroupedConfig, ProductConfig
from mio.tokenizers.quantizers.lookupfree import BSQConfig, FSQConfig, LFQConfig
from mio.tokenizers.quantizers.multiscale import MultiScaleConfig
from mio.tokenizers.quantizers.residual import ResidualQuantized, ResidualVQ, RVQConfig
from mio.tokenizers.quantizers.result import Health, Quantized, diagnose, health, idempotence
from mio.tokenizers.quantizers.vector import EMAVQConfig, GumbelConfig, VectorQuantizer, VQConfig

Quantizer = (
    VQConfig
    | EMAVQConfig
    | GumbelConfig
    | RVQConfig
    | GroupedConfig
    | ProductConfig
    | MultiScaleConfig
    | FSQConfig
    | LFQConfig
    | BSQConfig
)

__all__ = [
    "BSQConfig",
    "EMAVQConfig",
    "EuclideanCodebook",
    "FSQConfig",
    "GroupedConfig",
    "GumbelConfig",
    "Health",
    "LFQConfig",
    "LearnedCodebook",
    "MultiScaleConfig",
    "ProductConfig",
    "Quantized",
    "Quantizer",
    "RVQConfig",
    "ResidualQuantized",
    "ResidualVQ",
    "VQConfig",
    "VectorModule",
    "VectorQuantizer",
    "diagnose",
    "health",
    "idempotence",
    "nearest",
]
