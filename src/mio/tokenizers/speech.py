"""SpeechTokenizer: SEANet encoder -> residual VQ (level 0 content, the rest timbre) -> SEANet decoder.

Module names and weight-norm tensors are those of the released `speechtokenizer_hubert_avg`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.checkpoint import fingerprint
from mio.config import to_dict
from mio.tokenizers.quantizers import ResidualQuantized, ResidualVQ
from mio.types import Audio, AudioChunk, Codes, Modality


@dataclass(frozen=True)
class SpeechConfig:
    """Defaults are the released SpeechTokenizer (its config.json)."""

    sample_rate: int = 16000
    filters: int = 64
    strides: tuple[int, ...] = (8, 5, 4, 2)
    dimension: int = 1024
    semantic_dimension: int = 768
    codebook_size: int = 1024
    levels: int = 8
    lstm_layers: int = 2
    decay: float = 0.99  # of the codebooks' moving averages
    dead_below: float = 2.0

    @property
    def hop(self) -> int:
        return prod(self.strides)

    @property
    def lookahead(self) -> int:
        """Steps of codes after a step that its samples hear: the last sample's way back through the decoder."""
        last = self.hop - 1 + 3  # the last convolution's 3 samples
        for stride in reversed(self.strides):
            last = (last + 1 + stride - stride // 2) // stride  # a residual's 1, and what a transposed one cuts off
        return last + 3  # the first convolution's 3 steps


class _WeightNorm(nn.Module):
    """Tensors of a legacy weight-normalised convolution: weight = g * v / |v|, norm over all but dimension 0."""

    def __init__(self, shape: tuple[int, int, int], out: int) -> None:
        super().__init__()
        bound = (shape[1] * shape[2]) ** -0.5
        self.weight_v = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.weight_g = nn.Parameter(self.weight_v.detach().flatten(1).norm(dim=1)[:, None, None].clone())
        self.bias = nn.Parameter(torch.zeros(out))

    def weight(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class _Conv(nn.Module):
    """EnCodec's padded convolution, non-causal and reflecting: (B, C, n) -> (B, out, ceil(n / stride))."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.ModuleDict({"conv": _WeightNorm((out, channels, kernel), out)})

    def forward(self, x: Tensor) -> Tensor:
        weights: _WeightNorm = self.conv["conv"]  # type: ignore[assignment]
        length, total = x.shape[-1], self.kernel - self.stride
        extra = ceil(length / self.stride) * self.stride - length
        right = total // 2
        x = _reflect(x, total - right, right + extra)
        return F.conv1d(x, weights.weight(), weights.bias, self.stride)


def _reflect(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect padding; inputs shorter than the padding are extended by zeros first."""
    short = max(left, right) - x.shape[-1] + 1
    if short <= 0:
        return F.pad(x, (left, right), mode="reflect")
    return F.pad(F.pad(x, (0, short)), (left, right), mode="reflect")[..., : x.shape[-1] + left + right]


class _ConvTranspose(nn.Module):
    """(B, C, n) -> (B, out, n * stride)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.trim, self.stride = kernel - stride, stride
        self.convtr = nn.ModuleDict({"convtr": _WeightNorm((channels, out, kernel), out)})

    def forward(self, x: Tensor) -> Tensor:
        weights: _WeightNorm = self.convtr["convtr"]  # type: ignore[assignment]
        y = F.conv_transpose1d(x, weights.weight(), weights.bias, self.stride)
        right = self.trim // 2
        return y[..., self.trim - right : y.shape[-1] - right]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.block = nn.Sequential(nn.ELU(), _Conv(channels, half, 3), nn.ELU(), _Conv(half, channels, 1))
        self.shortcut = _Conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.block(x)
        return out


class _SLSTM(nn.Module):
    """LSTM over time with a skip; bidirectional doubles the channels: (B, C, T) -> (B, C or 2C, T)."""

    def __init__(self, channels: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(2, 0, 1)
        y, _ = self.lstm(x)
        return (y + (torch.cat([x, x], dim=-1) if self.lstm.bidirectional else x)).permute(1, 2, 0)


class _Seanet(nn.Module):
    def __init__(self, modules: Iterator[nn.Module]) -> None:
        super().__init__()
        self.model = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


def _encoder(c: SpeechConfig) -> Iterator[nn.Module]:
    channels = c.filters
    yield _Conv(1, channels, 7)
    for stride in reversed(c.strides):
        yield from (_Residual(channels), nn.ELU(), _Conv(channels, 2 * channels, 2 * stride, stride))
        channels *= 2
    yield from (_SLSTM(channels, c.lstm_layers, bidirectional=True), nn.ELU(), _Conv(2 * channels, c.dimension, 7))


def _decoder(c: SpeechConfig) -> Iterator[nn.Module]:
    channels = c.filters * 2 ** len(c.strides)
    yield from (_Conv(c.dimension, channels, 7), _SLSTM(channels, c.lstm_layers, bidirectional=False))
    for stride in c.strides:
        yield from (nn.ELU(), _ConvTranspose(channels, channels // 2, 2 * stride, stride), _Residual(channels // 2))
        channels //= 2
    yield from (nn.ELU(), _Conv(channels, 1, 7))


@dataclass(frozen=True)
class SpeechOutput:
    """samples (B, n); semantic: level 0 seen through `transform` (B, T, semantic); quantized: with codes and loss."""

    samples: Tensor
    semantic: Tensor
    quantized: ResidualQuantized


class SpeechNetwork(nn.Module):
    def __init__(self, c: SpeechConfig) -> None:
        super().__init__()
        self.config = c
        self.encoder = _Seanet(_encoder(c))
        self.transform = nn.Linear(c.dimension, c.semantic_dimension)
        self.quantizer = ResidualVQ(c.levels, c.codebook_size, c.dimension, c.decay, c.dead_below)
        self.decoder = _Seanet(_decoder(c))

    def forward(self, samples: Tensor) -> SpeechOutput:
        """(B, n) -> the same n samples through all levels."""
        features = self.encoder(samples[:, None]).transpose(1, 2)
        q = self.quantizer(features)
        out = self.decoder(q.quantized.transpose(1, 2))[:, 0, : samples.shape[1]]
        return SpeechOutput(out, self.transform(q.first), q)

    def encode(self, samples: Tensor, levels: int | None = None, start: int = 0) -> Tensor:
        """(B, n) -> codes (levels, B, ceil(n / hop))."""
        features = self.encoder(samples[:, None]).transpose(1, 2)
        out: Tensor = self.quantizer.encode(features, levels, start)
        return out

    def decode(self, codes: Tensor, start: int = 0) -> Tensor:
        """(K, B, T), any number of levels from `start` on -> (B, hop * T)."""
        out: Tensor = self.decoder(self.quantizer.decode(codes, start).transpose(1, 2))
        return out[:, 0]


def resample(audio: Audio, rate: int) -> Audio:
    """The same sound at `rate` Hz; never empty."""
    if audio.rate == rate:
        return audio
    samples = soxr.resample(audio.samples, audio.rate, rate).astype(np.float32)
    return Audio(samples if len(samples) else audio.samples[:1], rate)


class SpeechTokenizer:
    """Audio <-> (1, levels, T) codes, T = ceil(n / hop) at the tokenizer's sample rate."""

    def __init__(self, network: SpeechNetwork, row: Modality) -> None:
        self.network, self.modality = network.eval(), row

    @torch.inference_mode()
    def encode(self, media: Sequence[Audio]) -> list[Codes]:
        """Clips of any rate and length, one at a time: batching would mix padding into the ends."""
        rate = self.network.config.sample_rate
        samples = (torch.from_numpy(resample(m, rate).samples)[None] for m in media)
        return [self.network.encode(s, self.modality.codebooks).transpose(0, 1).numpy() for s in samples]

    @torch.inference_mode()
    def decode(self, codes: Sequence[Codes]) -> list[Audio]:
        """Any number of levels, content first; samples are a multiple of the hop."""
        rate = self.network.config.sample_rate
        waves = (self.network.decode(torch.from_numpy(c).transpose(0, 1))[0].clamp(-1, 1) for c in codes)
        return [Audio(w.numpy(), rate) for w in waves]

    def stream(self) -> SpeechStream:
        return SpeechStream(self)

    def fingerprint(self) -> str:
        return fingerprint(to_dict(self.network.config), self.network.state_dict())


FIRST = 5  # steps of the first chunk: a tenth of a second


class SpeechStream:
    """A clip while its codes come. Every chunk is cut from a decoding of all codes so far and holds only samples that
    later codes cannot change, so that the chunks joined are the clip decoded whole. Each is at least as long as all
    before it: the work is at most twice that of one decoding."""

    def __init__(self, tokenizer: SpeechTokenizer) -> None:
        self.tokenizer, self.config = tokenizer, tokenizer.network.config
        self.done = 0  # steps given

    def grow(self, codes: Codes, steps: int, closed: bool) -> AudioChunk | None:
        """The next chunk, if it is worth one by now."""
        ready = codes.shape[2] - (0 if closed else self.config.lookahead)
        if ready - self.done < (1 if closed else max(FIRST, self.done)):
            return None
        hop, whole = self.config.hop, self.tokenizer.decode([codes])[0]
        start, self.done = self.done * hop, ready
        return AudioChunk(whole.samples[start : ready * hop], whole.rate, start, steps * hop)
