"""SEED-2's image tokenizer: ViT -> causal Q-Former -> VQ -> reverse blocks -> image embedding and latents.

Module names are those of the released checkpoint `seed_quantizer.pt`, so that it loads without a key map; the shipped
small model is the same class with other numbers. Pixels come from a decoder handed in from above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.checkpoint import fingerprint
from mio.config import to_dict
from mio.layers import Block, attend, grid_positions, look_alike, look_alike_blocks
from mio.media import resize
from mio.tokenizers.quantizers import Quantized, VectorQuantizer
from mio.types import Codes, Image, MissingError, Modality

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class SeedConfig:
    """Defaults are the released SEED-2 (AILab-CVC/SEED)."""

    image_size: int = 224
    patch: int = 14
    vit_width: int = 1408
    vit_depth: int = 39
    vit_heads: int = 16
    vit_hidden: int = 6144
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    cross_every: int = 2
    queries: int = 32
    codebook_size: int = 8192
    code_dim: int = 32
    reverse_depth: int = 4
    image_down: tuple[int, ...] = (256, 128, 32)
    embedding: int = 1024
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class VisionTransformer(nn.Module):
    """EVA-CLIP-g trunk: all tokens of the last block, no final norm. (B, 3, S, S) -> (B, 1 + patches, width)."""

    def __init__(self, c: SeedConfig) -> None:
        super().__init__()
        patches = (c.image_size // c.patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.vit_width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + patches, c.vit_width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, c.vit_width, c.patch, c.patch)})
        self.blocks = nn.ModuleList(Block(c.vit_width, c.vit_heads, c.vit_hidden, eva=True) for _ in range(c.vit_depth))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


class _Projections(nn.Module):
    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(context, dim)
        self.value = nn.Linear(context, dim)


class _Dense(nn.Module):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, out)


class _AddNorm(_Dense):
    def __init__(self, dim: int, out: int) -> None:
        super().__init__(dim, out)
        self.LayerNorm = nn.LayerNorm(out, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dense(x) + residual)
        return out


class _Attention(nn.Module):
    """BERT attention with its post-norm; causal among queries, unmasked towards a context."""

    def __init__(self, dim: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.self = _Projections(dim, context)
        self.output = _AddNorm(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (self.self.query(x), self.self.key(source), self.self.value(source))
        )
        attended = attend(q, k, v, causal=context is None)
        out: Tensor = self.output(attended.transpose(1, 2).flatten(2), x)
        return out


class _Layer(nn.Module):
    def __init__(self, c: SeedConfig, crosses: bool) -> None:
        super().__init__()
        self.attention = _Attention(c.width, c.heads, c.width)
        self.crossattention = _Attention(c.width, c.heads, c.vit_width) if crosses else None
        self.intermediate_query = _Dense(c.width, c.hidden)
        self.output_query = _AddNorm(c.hidden, c.width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attention(x)
        if self.crossattention is not None:
            x = self.crossattention(x, context)
        out: Tensor = self.output_query(F.gelu(self.intermediate_query.dense(x)), x)
        return out


class _Embeddings(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(512)[None])


class _Bert(nn.Module):
    def __init__(self, c: SeedConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(c.width)
        layers = nn.ModuleList(_Layer(c, i % c.cross_every == 0) for i in range(c.layers))
        self.encoder = nn.ModuleDict({"layer": layers})


class QFormer(nn.Module):
    """Learned queries that read the image in order: query j sees queries <= j. (1, Q, D), (B, P, V) -> (B, Q, D)."""

    def __init__(self, c: SeedConfig) -> None:
        super().__init__()
        self.bert = _Bert(c)

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        x = self.bert.embeddings.LayerNorm(queries).expand(len(context), -1, -1)
        for layer in self.bert.encoder["layer"]:  # type: ignore[attr-defined]
            x = layer(x, context)
        return x


@dataclass(frozen=True)
class Decoded:
    """latents (B, Q, width) and image embedding (B, embedding) that codes stand for."""

    latents: Tensor
    embedding: Tensor


class SeedNetwork(nn.Module):
    """The trainable part; pixels are normalised (B, 3, S, S), codes (B, Q)."""

    def __init__(self, c: SeedConfig) -> None:
        super().__init__()
        self.config = c
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, c.queries, c.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, c.queries, c.width))
        self.pos_embed_image = nn.Parameter(torch.zeros(1, c.queries, c.width))
        self.visual_encoder = VisionTransformer(c)
        self.ln_vision = nn.LayerNorm(c.vit_width)
        self.Qformer = QFormer(c)
        self.quantize = VectorQuantizer(c.codebook_size, c.code_dim)
        self.encode_task_layer = nn.Sequential(nn.Linear(c.width, c.width), nn.Tanh(), nn.Linear(c.width, c.code_dim))
        self.decode_task_layer = nn.Sequential(
            nn.Linear(c.code_dim, c.code_dim), nn.Tanh(), nn.Linear(c.code_dim, c.width)
        )
        self.blocks = nn.ModuleList(Block(c.width, c.heads, 4 * c.width) for _ in range(c.reverse_depth))
        self.blocks_image = nn.ModuleList(Block(c.width, c.heads, 4 * c.width) for _ in range(c.reverse_depth))
        self.image_down = _bottleneck(c.width, c.image_down)
        self.distill_image_proj = nn.Linear(c.queries * c.image_down[-1], c.embedding)

    def causal_embeddings(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, Q, width)."""
        context = self.ln_vision(self.visual_encoder(pixels))
        out: Tensor = self.Qformer(self.query_tokens, context)
        return out

    def quantized(self, causal: Tensor) -> Quantized:
        out: Quantized = self.quantize(self.encode_task_layer(causal))
        return out

    def encode(self, pixels: Tensor) -> Tensor:
        return self.quantized(self.causal_embeddings(pixels)).codes

    def reconstruct_causal(self, quantized: Tensor) -> Tensor:
        """The branch that rebuilds the causal embeddings; used in training only. (B, Q, code_dim) -> (B, Q, width)."""
        x = self.decode_task_layer(quantized) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x

    def reverse(self, quantized: Tensor) -> Decoded:
        """(B, Q, code_dim) -> latents and image embedding."""
        x = self.decode_task_layer(quantized) + self.pos_embed_image
        for block in self.blocks_image:
            x = block(x)
        return Decoded(x, self.distill_image_proj(self.image_down(x).flatten(1)))

    def decode(self, codes: Tensor) -> Decoded:
        return self.reverse(self.quantize.decode(codes))


@torch.no_grad()
def start_from_places(network: SeedNetwork) -> None:
    """Initialise for training from nothing: patches know their place, and query j begins at the jth of the picture.

    A pretrained Q-Former has learned as much; without it the queries stay alike for thousands of steps.
    """
    c = network.config
    places = grid_positions(c.image_size // c.patch, c.vit_width)
    network.visual_encoder.pos_embed[0, 1:] = places
    nn.init.orthogonal_(network.visual_encoder.patch_embed["proj"].weight)  # type: ignore[arg-type]
    for blocks in (network.visual_encoder.blocks, network.blocks, network.blocks_image):
        look_alike_blocks(blocks)
    for layer in (*network.encode_task_layer, *network.decode_task_layer):
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
    if c.vit_width == c.width:
        starts = torch.linspace(0, len(places), c.queries + 1).long()
        own = torch.stack([places[a:b].mean(0) for a, b in pairwise(starts)])
        network.query_tokens[0] = network.pos_embed[0] = network.pos_embed_image[0] = own
        for layer in network.Qformer.bert.encoder["layer"]:  # type: ignore[attr-defined]
            if layer.crossattention is not None:
                reads, output = layer.crossattention.self, layer.crossattention.output
                look_alike(reads.query.weight, reads.key.weight, reads.value.weight, output.dense.weight)


def _bottleneck(width: int, sizes: tuple[int, ...]) -> nn.Sequential:
    steps: list[nn.Module] = []
    for size in sizes:
        steps += [nn.Linear(width, size, bias=False), nn.ReLU()]
        width = size
    return nn.Sequential(*steps[:-1])


def normalise(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float with CLIP's mean and deviation."""
    x = pixels.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(t, device=x.device)[:, None, None] for t in (MEAN, STD))
    return (x - mean) / std


Render = Callable[[Decoded], Tensor]  # -> (B, 3, H, W) in [0, 1]


class SeedTokenizer:
    """Images <-> 32 codes each. `render` turns decoded codes into pixels; without it, `decode` refuses."""

    def __init__(self, network: SeedNetwork, row: Modality, render: Render | None = None, batch: int = 64) -> None:
        self.network, self.modality, self.render, self.batch = network.eval(), row, render, batch

    @torch.inference_mode()
    def encode(self, media: Sequence[Image]) -> list[Codes]:
        """Images of any size -> (1, 1, Q) codes each."""
        c, out = self.network.config, []
        for start in range(0, len(media), self.batch):
            images = [resize(m, c.image_size, c.interpolation).pixels for m in media[start : start + self.batch]]
            out.append(self.network.encode(normalise(torch.from_numpy(np.stack(images)))))
        return [codes.numpy()[None, None] for codes in torch.cat(out)] if out else []

    @torch.inference_mode()
    def decode(self, codes: Sequence[Codes]) -> list[Image]:
        """The inverse of `encode`, up to what quantization loses."""
        if self.render is None:
            raise MissingError(
                "This image tokenizer has no pixel decoder: its codes stop at the image embedding.",
                fix='SEED-2: pip install "mio[hf]", and put stable-diffusion-2-1-unclip beside seed-tokenizer-2.',
            )
        out: list[Image] = []
        for start in range(0, len(codes), self.batch):
            batch = torch.from_numpy(np.stack([c[0, 0] for c in codes[start : start + self.batch]]))
            pixels = (self.render(self.network.decode(batch)).clamp(0, 1) * 255).round().byte()
            out += [Image(p) for p in pixels.permute(0, 2, 3, 1).numpy()]
        return out

    def fingerprint(self) -> str:
        return fingerprint(to_dict(self.network.config), self.network.state_dict())
