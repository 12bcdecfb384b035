"""A modality of one's own: signals of a sensor, from the file to a model that reads and writes them.

docs/howto/add-a-modality.md walks through this file. Importing it is all that mio needs to know of signals.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mio.checkpoint import commit, fingerprint, load_state, load_tensors, read_json, save_module, write_json
from mio.config import from_dict, to_dict
from mio.data.loader import collate
from mio.evals.forms import FORMS, Form
from mio.evals.kinds import KINDS, Kind, Measure, Probe, each
from mio.layers import Batch
from mio.media import Limits
from mio.models.backbone import Backbone, BackboneConfig
from mio.pipeline import BUILDERS, WRITERS, Model, ModelConfig, Writer, assistant, load, load_processor, save, user
from mio.processor import MODALITY_OF, READERS
from mio.recipe.language import kinds_of
from mio.sequence import TokenSequence
from mio.tokenizers.quantizers import Quantized, RVQConfig
from mio.tokenizers.text import TextTokenizer
from mio.train.loop import Fit, fit
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim
from mio.train.watch import Watch
from mio.types import Codes, DataError, Modality, Turns

# ------------------------------------------------------------------------------------------------ 1. the medium


@dataclass(frozen=True, eq=False)
class Signal:
    """samples: (n,) float32 in [-1, 1], 32 each second."""

    samples: NDArray[np.float32]


def read_signal(source: Path | str | bytes, limits: Limits | None = None) -> Signal:
    """One number per line -> a signal. Raises: DataError where there is anything else, or nothing."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        samples = np.array([float(word) for word in data.split()], np.float32)
    except ValueError:
        samples = np.zeros(0, np.float32)
    if not len(samples) or not np.isfinite(samples).all():
        raise DataError("This is no signal.", at="" if isinstance(source, bytes) else str(source))
    return Signal(np.clip(samples, -1, 1))


def write_signal(signal: Signal, path: Path) -> None:
    np.savetxt(path, signal.samples, "%.5f")


def drawn(signal: Signal) -> bytes:
    """As an SVG picture."""
    points = " ".join(f"{2 * n},{32 - 28 * value:.1f}" for n, value in enumerate(signal.samples))
    line = f'<polyline points="{points}" fill="none" stroke="#0a665b" stroke-width="2"/>'
    size = f'viewBox="0 0 {2 * len(signal.samples)} 64"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{line}</svg>'.encode()


# ------------------------------------------------------------------------------------------------ 2. the tokenizer


@dataclass(frozen=True)
class SignalConfig:
    width: int = 32
    quantizer: RVQConfig = RVQConfig(levels=2, size=32, dim=16, decay=0.9, dead_below=0.5)  # noqa: RUF009 (frozen)


class SignalNetwork(nn.Module):
    """Convolutions down to an eighth of the rate, residual quantization, and back up."""

    def __init__(self, c: SignalConfig) -> None:
        super().__init__()
        w, dim = c.width, c.quantizer.dim
        down = [nn.Conv1d(a, b, 6, 2, 2) for a, b in ((1, w), (w, w), (w, dim))]
        up = [nn.ConvTranspose1d(a, b, 4, 2, 1) for a, b in ((dim, w), (w, w), (w, 1))]
        self.encoder = nn.Sequential(down[0], nn.GELU(), down[1], nn.GELU(), down[2])
        self.decoder = nn.Sequential(up[0], nn.GELU(), up[1], nn.GELU(), up[2])
        self.quantizer, self.config = c.quantizer.build(), c

    def features(self, samples: Tensor) -> Tensor:
        """(B, n) -> (B, ceil(n / 8), dim)."""
        padded = F.pad(samples[:, None], (0, -samples.shape[1] % 8), "replicate")
        return self.encoder(padded).mT

    def forward(self, samples: Tensor) -> tuple[Tensor, Quantized]:
        q: Quantized = self.quantizer(self.features(samples))
        return self.decoder(q.quantized.mT)[:, 0, : samples.shape[1]], q


class SignalTokenizer:
    """Signals <-> (1, 2, T) codes, T = ceil(n / 8)."""

    def __init__(self, network: SignalNetwork, row: Modality) -> None:
        self.network, self.modality = network.eval(), row

    @torch.inference_mode()
    def encode(self, media: Sequence[Signal]) -> list[Codes]:
        features = (self.network.features(torch.from_numpy(m.samples)[None]) for m in media)
        return [self.network.quantizer.encode(f).transpose(0, 1).numpy() for f in features]

    @torch.inference_mode()
    def decode(self, codes: Sequence[Codes]) -> list[Signal]:
        quantized = (self.network.quantizer.decode(torch.from_numpy(c).transpose(0, 1)) for c in codes)
        return [Signal(self.network.decoder(q.mT)[0, 0].clamp(-1, 1).numpy()) for q in quantized]

    def fingerprint(self) -> str:
        return fingerprint(to_dict(self.network.config), self.network.state_dict())


def build(folder: Path, row: Modality, others: Mapping[str, Any], frames: int) -> SignalTokenizer:
    """The tokenizer that lies in a model folder."""
    network = SignalNetwork(from_dict(SignalConfig, read_json(folder / "sensor" / "config.json")))
    load_state(network, load_tensors(folder / "sensor" / "model.safetensors"), str(folder))
    return SignalTokenizer(network, row)


# ------------------------------------------------------------------------------------------------ 3. the rows

ROW = Modality("sensor", 2, 32, 0, "<sensor>", "</sensor>", "<sensor{}>", rate=4.0)

MODALITY_OF[Signal] = ROW.name  # what goes through which tokenizer
READERS[ROW.name] = read_signal  # files
WRITERS[Signal] = Writer(".csv", write_signal)
BUILDERS[ROW.name] = build
FORMS[Signal] = Form("signal", ".svg", "image/svg+xml", drawn, '<img src="{}" alt="{}">')  # in pages


def cut(original: Signal, rebuilt: Signal) -> tuple[Signal, Signal]:
    return original, Signal(rebuilt.samples[: len(original.samples)])


def noise_ratio(original: Signal, rebuilt: Signal) -> float:
    """Signal to noise in decibels."""
    noise = float(((original.samples - rebuilt.samples) ** 2).mean())
    return 10 * float(np.log10((original.samples**2).mean() / max(noise, 1e-9)))


def spectra(signals: Sequence[Signal]) -> NDArray[np.float64]:
    return np.stack([np.abs(np.fft.rfft(s.samples, 96)) for s in signals])


KINDS[ROW.name] = Kind(  # in the report card of tokenizers
    "Signals",
    "second",
    lambda signal: len(signal.samples) / 32,
    cut,
    (Measure("signal to noise", "dB", 1, each(noise_ratio)),),
    (Probe("shape", "waves", lambda item: str(item.meta["shape"]), spectra),),
)


# ------------------------------------------------------------------------------------------------ 4. training

SHAPES = ("sine", "square", "saw")
SYSTEMS = {"std": "You read and write signals."}


def wave(shape: str, rng: np.random.Generator) -> Signal:
    """Three seconds of any pitch and phase, with a little noise."""
    phase = rng.uniform(0, 1) + np.arange(96) / 32 * rng.uniform(0.7, 1.5)
    forms = {"sine": np.sin(2 * np.pi * phase), "square": np.sign(phase % 1 - 0.5), "saw": 2 * (phase % 1) - 1}
    return Signal((0.8 * forms[shape] + rng.normal(0, 0.02, 96)).astype(np.float32))


@dataclass
class SignalObjective:
    module: SignalNetwork
    watch: Watch

    def batch(self, number: int) -> Tensor:
        rng = np.random.default_rng(number)
        return torch.from_numpy(np.stack([wave(SHAPES[n % 3], rng).samples for n in range(48)]))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        rebuilt, q = self.module(batch)
        return {"loss": F.mse_loss(rebuilt, batch) + 0.1 * q.loss, **self.watch.add(q)}


@dataclass
class ChatObjective:
    """Naming a signal's shape, and making one of a shape that is named."""

    module: Backbone
    sequences: list[TokenSequence]
    names: tuple[str, ...]
    kinds: NDArray[np.int64]

    def batch(self, number: int) -> Batch:
        rows = np.random.default_rng(number).integers(0, len(self.sequences), 24)
        return collate([self.sequences[r] for r in rows], self.kinds)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return next_token_loss(self.module, batch, self.names)


def talks(count: int) -> list[Turns]:
    rng, out = np.random.default_rng(1), []
    for n in range(count):
        shape, signal = SHAPES[n % 3], wave(SHAPES[n % 3], rng)
        out.append(Turns((user(signal, "Which shape?"), assistant(shape))))
        out.append(Turns((user(f"Make a {shape}."), assistant(signal))))
    return out


def train_tokenizer(folder: Path, steps: int = 400) -> None:
    torch.manual_seed(0)
    network = SignalNetwork(SignalConfig())
    plan = Fit(steps, Optim(3e-3))
    fit(SignalObjective(network, Watch()), plan, folder / "work" / "sensor", "sensor", folder / "metrics.jsonl")
    config = to_dict(network.config)
    commit(folder / "sensor", lambda staging: save_module(staging, config, network.state_dict()))


def train(folder: Path, steps: int = 400) -> Model:
    """Everything, from nothing: the text and signal tokenizers, and a language model over both."""
    text = TextTokenizer.train(["Which shape? Make a sine square saw.", *SYSTEMS.values()], 300)

    def write(staging: Path) -> None:
        (staging / "tokenizer.json").write_text(text.to_json(), encoding="utf-8")
        write_json(staging / "config.json", {"size": text.size})

    commit(folder / "text", write)
    train_tokenizer(folder, steps)
    processor = load_processor(folder, (ROW,), SYSTEMS, 1)
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(len(processor.vocab), 2, 64, 4, 2, 16, 160, 10_000.0, positions=256, tied=True))
    sequences = [processor.sequence(turns) for turns in talks(300)]
    objective = ChatObjective(backbone, sequences, *kinds_of(processor.vocab))
    fit(objective, Fit(steps, Optim(3e-3)), folder / "work" / "model", "model", folder / "metrics.jsonl")
    config = ModelConfig("signals", backbone.config, (ROW,), SYSTEMS, fingerprint=processor.fingerprint)
    save(folder / "model", config, backbone, folder, {"README.md": "# Signals\n"})
    return load(folder / "model")


if __name__ == "__main__":
    model = train(Path(sys.argv[1]))
    print(model.chat(wave("saw", np.random.default_rng(9)), "Which shape?").text)
    print(model.chat("Make a square.", out="sensor", seed=1).save(Path(sys.argv[1]))[0])
