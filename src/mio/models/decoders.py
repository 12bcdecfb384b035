"""Decoded codes (latents and image embedding) -> pixels. Tensors only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mio.layers import Block, grid_positions, look_alike_blocks


@dataclass(frozen=True)
class PixelDecoderConfig:
    image_size: int = 64
    patch: int = 8
    width: int = 192
    depth: int = 4
    heads: int = 4
    latents: int = 192  # width of the tokenizer's latents
    embedding: int = 128
    smooth: int = 24  # channels of the convolutions that remove patch borders


class PixelDecoder(nn.Module):
    """A transformer over learned patch queries, the latents and the embedding; then two convolutions across patches.

    A regressor: where codes leave room it paints the average, so fine texture is soft.
    """

    def __init__(self, c: PixelDecoderConfig) -> None:
        super().__init__()
        self.config = c
        self.side = c.image_size // c.patch
        self.queries = nn.Parameter(grid_positions(self.side, c.width)[None])
        self.from_latents = nn.Linear(c.latents, c.width)
        self.from_embedding = nn.Linear(c.embedding, c.width)
        self.blocks = nn.ModuleList(Block(c.width, c.heads, 4 * c.width) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)
        self.to_pixels = nn.Linear(c.width, 3 * c.patch**2)
        self.smooth = nn.Sequential(
            nn.Conv2d(3, c.smooth, 5, padding=2), nn.GELU(), nn.Conv2d(c.smooth, 3, 3, padding=1)
        )
        if c.width == c.latents:
            nn.init.eye_(self.from_latents.weight)  # latents keep the places they come with
        look_alike_blocks(self.blocks)
        nn.init.zeros_(self.to_pixels.weight)
        nn.init.constant_(self.to_pixels.bias, 0.8)  # about the mean of drawings on white
        nn.init.zeros_(self.smooth[2].weight)  # type: ignore[arg-type]

    def forward(self, latents: Tensor, embedding: Tensor) -> Tensor:
        """(B, Q, latents), (B, embedding) -> (B, 3, S, S), about [0, 1]."""
        count, patches = len(latents), self.side**2
        condition = [self.from_latents(latents), self.from_embedding(embedding)[:, None]]
        x = torch.cat([self.queries.expand(count, -1, -1), *condition], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.to_pixels(self.norm(x[:, :patches]))
        p, s = self.config.patch, self.side
        x = x.view(count, s, s, 3, p, p).permute(0, 3, 1, 4, 2, 5).reshape(count, 3, s * p, s * p)
        return x + self.smooth(x)
