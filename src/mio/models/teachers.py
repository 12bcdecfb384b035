"""Small towers trained here to teach the tokenizers: text for pictures, speech to characters. Tensors only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.layers import Block


class TextTower(nn.Module):
    """Bag of text ids -> unit vectors: (B, T) padded with -1 -> (B, dim)."""

    def __init__(self, vocabulary: int, dim: int, width: int = 192) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, dim))

    def forward(self, ids: Tensor) -> Tensor:
        there = (ids >= 0).float()[..., None]
        mean = (self.embed(ids.clamp(min=0)) * there).sum(1) / there.sum(1).clamp(min=1)
        return F.normalize(self.mlp(mean).float(), dim=-1)


class LogMel(nn.Module):
    """Log mel spectrogram of (B, n) samples: (B, bands, ceil(n / hop)), natural log.

    `floor`: amplitude of white noise that counts as silence, the same for every `fft`.
    """

    window: Tensor
    bank: Tensor

    def __init__(
        self, rate: int = 16000, fft: int = 1024, hop: int = 320, bands: int = 80, floor: float = 1e-5
    ) -> None:
        super().__init__()
        self.fft, self.hop = fft, hop
        self.floor = floor * (0.375 * fft) ** 0.5 * fft / rate  # what the bank makes of such noise under a Hann window
        self.register_buffer("window", torch.hann_window(fft), persistent=False)
        self.register_buffer("bank", mel_bank(rate, fft, bands), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        frames = -(-samples.shape[-1] // self.hop)
        with torch.autocast(samples.device.type, enabled=False):  # bf16 would round the log
            spectrum = torch.stft(
                samples.float(), self.fft, self.hop, window=self.window, return_complex=True, pad_mode="constant"
            ).abs()[..., :frames]
            return torch.log((self.bank @ spectrum).clamp(min=self.floor))


def mel_bank(rate: int, fft: int, bands: int) -> Tensor:
    """Triangular filters equally spaced on the HTK mel scale, each of unit area: (bands, fft // 2 + 1)."""

    def mel(hertz: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + hertz / 700)

    ends = mel(torch.tensor([0.0, rate / 2]))
    edges = 700 * (10 ** (torch.linspace(float(ends[0]), float(ends[1]), bands + 2) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, fft // 2 + 1)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]


class SpeechTeacher(nn.Module):
    """Log mel -> transformer -> characters by CTC, at 50 Hz. Its hidden states are what level 0 learns to carry."""

    def __init__(self, symbols: int, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.mel = LogMel()
        self.stem = nn.ModuleList([nn.Conv1d(80, width, 3, padding=1), nn.Conv1d(width, width, 9, padding=4)])
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)

    def hidden(self, mel: Tensor) -> list[Tensor]:
        """Standardised log mel (B, 80, T) -> states after the stem and each block, (B, T, width) each."""
        x = mel
        for conv in self.stem:
            x = F.gelu(conv(x))
        states = [x.transpose(1, 2)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states

    def features(self, samples: Tensor) -> Tensor:
        """(B, n) -> (B, T, width): the mean over all hidden states, as the released tokenizer takes of HuBERT."""
        return torch.stack([F.layer_norm(h, h.shape[-1:]) for h in self.hidden(self.standard(samples))]).mean(0)

    def standard(self, samples: Tensor) -> Tensor:
        return (self.mel(samples) + 5) / 3

    def forward(self, mel: Tensor) -> Tensor:
        """Standardised log mel -> log probabilities of symbols, (B, T, symbols); symbol 0 is the blank."""
        return self.head(self.norm(self.hidden(mel)[-1])).float().log_softmax(-1)
