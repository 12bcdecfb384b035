"""The released SpeechTokenizer (`speechtokenizer_hubert_avg`): `SpeechTokenizer.pt` and its `config.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mio.checkpoint import CONFIG, read_json
from mio.config import from_dict
from mio.pretrained.fill import fill, need, refuse
from mio.pretrained.weights import tensors
from mio.tokenizers.speech import SpeechConfig, SpeechNetwork
from mio.types import DataError

WEIGHTS = "SpeechTokenizer.pt"
FILES = {WEIGHTS: "482 MB", CONFIG: "2 kB"}
PARAMETRISED = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


@dataclass(frozen=True)
class ReleasedConfig:
    """The keys of the released config.json that shape the network. Of the last five we carry one value each."""

    sample_rate: int
    n_filters: int
    strides: tuple[int, ...]
    dimension: int
    semantic_dimension: int
    codebook_size: int
    n_q: int
    lstm_layers: int
    activation: Literal["ELU"]
    bidirectional: Literal[True]
    dilation_base: Literal[2]
    residual_kernel_size: Literal[3]
    n_residual_layers: Literal[1]

    def ours(self) -> SpeechConfig:
        return SpeechConfig(
            sample_rate=self.sample_rate,
            filters=self.n_filters,
            strides=self.strides,
            dimension=self.dimension,
            semantic_dimension=self.semantic_dimension,
            codebook_size=self.codebook_size,
            levels=self.n_q,
            lstm_layers=self.lstm_layers,
        )


def load_speech(folder: Path) -> SpeechNetwork:
    """The network of a folder, in fp32. Strict: the file holds the 166 tensors and no others.

    Raises:
        MissingError: files are absent; all of them are named. MioError: a setting that our network does not carry.
        DataError: a file is damaged, would run code, or its tensors are not the 166 by name and shape.
    """
    need(folder, FILES, "SpeechTokenizer (speechtokenizer_hubert_avg)")
    with torch.device("meta"):
        network = SpeechNetwork(_config(folder / CONFIG).ours())
    at = str(folder / WEIGHTS)
    report = fill(network, _legacy(folder / WEIGHTS), network.state_dict().keys(), torch.float32, at)
    refuse([f"{name} not expected" for name in report.ignored], at)
    return network.eval()


def _config(path: Path) -> ReleasedConfig:
    """The rest of the file is about training and is left alone."""
    found: Any = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path.name} is no mapping.", at=str(path))
    shaping = {field.name for field in fields(ReleasedConfig)}
    return from_dict(ReleasedConfig, {k: v for k, v in found.items() if k in shaping}, at=str(path))


def _legacy(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Weight norm under its legacy names, whichever of torch's two ways the file was written in."""
    for name, tensor in tensors(path):
        for newer, legacy in PARAMETRISED.items():
            name = name.replace(newer, legacy)
        yield name, tensor
