"""What can be seen of a tokenizer while it trains: how its codebooks are used, what it makes of held-out media."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mio.media import write_audio, write_image
from mio.tokenizers.quantizers import Quantized, collapse, health
from mio.tokenizers.speech import resample
from mio.types import Audio, Codes, Image, Tokenizer


@dataclass
class Watch:
    """Codebook health over the last `batches`: one alone holds too few vectors to show it. `told`: of which codebooks
    a collapse has been reported."""

    batches: int = 20
    seen: deque[Codes] = field(default_factory=deque)
    told: set[int] = field(default_factory=set)

    def add(self, q: Quantized) -> dict[str, Tensor]:
        """usage and perplexity of every codebook, by name: usage0, perplexity0, usage1, ..."""
        self.seen.append(q.codes.detach().cpu().numpy().reshape(len(q.sizes), -1))
        while len(self.seen) > self.batches:
            self.seen.popleft()
        found: dict[str, Tensor] = {}
        for level, (codes, size) in enumerate(zip(np.concatenate(self.seen, 1), q.sizes, strict=True)):
            state = health(codes, size)
            found |= {f"usage{level}": torch.tensor(state.usage), f"perplexity{level}": torch.tensor(state.perplexity)}
            if len(self.seen) == self.batches and codes.size >= size:
                self._report(level, collapse(level, size, state))
        return found

    def _report(self, level: int, words: str) -> None:
        """On stderr, once for each collapse."""
        if words and level not in self.told:
            print(f"{words} in the last {self.batches} batches", file=sys.stderr)
        self.told = self.told | {level} if words else self.told - {level}


@dataclass(frozen=True)
class Samples:
    """A few media that the training does not see, and how they are written beside what became of them."""

    tokenizer: Tokenizer
    media: Sequence[Any]
    write: Callable[[Sequence[Any], Sequence[Any], Path], None]

    def show(self, folder: Path, step: int) -> None:
        """Into `folder`/samples, a file named by the step."""
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        rebuilt = self.tokenizer.decode(self.tokenizer.encode(self.media))
        self.write(self.media, rebuilt, folder / "samples" / f"{step:08d}")


def write_pictures(originals: Sequence[Image], rebuilt: Sequence[Image], path: Path) -> None:
    """One PNG: square originals of one size in the upper row, reconstructions of that size below."""
    rows = (np.concatenate([p.pixels for p in row], 1) for row in (originals, rebuilt))
    write_image(Image(np.concatenate(list(rows))), path.with_suffix(".png"))


def write_sounds(originals: Sequence[Audio], rebuilt: Sequence[Audio], path: Path, gap: float = 0.3) -> None:
    """One WAV: each original, then its reconstruction, with `gap` seconds of silence after each."""
    rate = rebuilt[0].rate
    silence = np.zeros(int(gap * rate), np.float32)
    pieces = [
        s for pair in zip(originals, rebuilt, strict=True) for a in pair for s in (resample(a, rate).samples, silence)
    ]
    write_audio(Audio(np.concatenate(pieces), rate), path.with_suffix(".wav"))
