"""The released SEED-2: `seed_quantizer.pt` (all but the ViT) and `eva_vit_g.pth` (the ViT) as one network.

Files of AILab-CVC/seed-tokenizer-2 and of MIO's folder `seed-tokenizer-2`; no name is mapped but for the ViT's prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mio.checkpoint import CONFIG, read_json
from mio.config import from_dict
from mio.pretrained.fill import Report, fill, need
from mio.pretrained.weights import tensors
from mio.tokenizers.seed import Decoded, SeedConfig, SeedNetwork

QUANTIZER, VIT = "seed_quantizer.pt", "eva_vit_g.pth"
FILES = {QUANTIZER: "1.2 GB", VIT: "2 GB"}
PREFIX = "visual_encoder."
HALF = (torch.float16, torch.bfloat16)


class HalfSeedNetwork(SeedNetwork):
    """SEED-2 with 16-bit weights. A GPU computes in their dtype, as the release does, and a CPU in fp32.

    On a CPU each weight is widened for the moment of the operation that reads it, so that only one is held twice.
    """

    def encode(self, pixels: Tensor) -> Tensor:
        if pixels.device.type != "cpu":
            return super().encode(pixels.to(self.query_tokens.dtype))
        with _Widening():
            return super().encode(pixels)

    def decode(self, codes: Tensor) -> Decoded:
        if codes.device.type != "cpu":
            return super().decode(codes)
        with _Widening():
            return super().decode(codes)


class _Widening(TorchFunctionMode):
    """Within it, layers compute in fp32 whatever their weights are stored in; everything else promotes by itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.linear, F.layer_norm, F.conv2d, F.embedding):
            args = [_widened(a) for a in args]
            kwargs = {name: _widened(a) for name, a in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _widened(argument: Any) -> Any:
    return argument.float() if isinstance(argument, Tensor) and argument.dtype in HALF else argument


def load_seed(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
) -> tuple[SeedNetwork, Report]:
    """The network of a folder, its weights in `dtype`, and the names in its files.

    A `config.json` (`SeedConfig`) beside the files describes another size than the released one. `interpolation`:
    bilinear as in MIO, bicubic as in SEED; None: the configuration's.

    Raises:
        MissingError: files are absent; all of them are named. DataError: a file is damaged, would run code, lacks one
        of the 370 + 511 tensors or has one of another shape.
    """
    need(folder, FILES, "seed-tokenizer-2")
    config = _config(folder)
    with torch.device("meta"):
        network = (HalfSeedNetwork if dtype in HALF else SeedNetwork)(
            replace(config, interpolation=interpolation or config.interpolation)
        )
    vit = [name for name in network.state_dict() if name.startswith(PREFIX)]
    others = [name for name in network.state_dict() if not name.startswith(PREFIX)]
    report = fill(network, tensors(folder / QUANTIZER), others, dtype, str(folder / QUANTIZER))
    report += fill(network, _vit(folder / VIT, config), vit, dtype, str(folder / VIT))
    network.quantize.seen = torch.zeros(config.codebook_size)  # counts of training; no file holds them
    return network.eval(), report


def _config(folder: Path) -> SeedConfig:
    path = folder / CONFIG
    return from_dict(SeedConfig, read_json(path), at=CONFIG) if path.is_file() else SeedConfig()


def _vit(path: Path, config: SeedConfig) -> Iterator[tuple[str, Tensor]]:
    """The ViT's tensors under our names. The file, of BLIP-2, has no prefix, and also holds the dropped last block."""
    for name, tensor in tensors(path):
        yield PREFIX + name, resized(tensor, config.image_size // config.patch) if name == "pos_embed" else tensor


def resized(positions: Tensor, side: int) -> Tensor:
    """Bicubic (1, 1 + n * n, D) -> (1, 1 + side * side, D), the class token's position kept (LAVIS, eva_vit.py).

    What is no square grid, or fits already, is returned as it is.
    """
    grid = isqrt(max(positions.shape[1] - 1, 0)) if positions.ndim == 3 else 0
    if grid in (0, side) or grid * grid + 1 != positions.shape[1]:
        return positions
    patches = positions[:, 1:].float().unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1].float(), patches.flatten(2).transpose(1, 2)], dim=1)
