"""The same decoder for a few new tokens of many sequences: fused products, precomputed RoPE, one static cache.

What a step costs on a CPU beside its weights is calls: q, k and v are one product, gate and up another; keys and values
are rotated (values by nothing) and stored in one go; the queries that share a key attend as rows of one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mio.layers import RMSNorm, rope
from mio.models.backbone import Backbone, BackboneConfig

Product = Callable[[Tensor], Tensor]
BLOCK = 64  # keys are attended to in blocks, so that sums run in one order however long the neighbours are


class Cache:
    """Keys and values of B sequences in one allocation: (layers, 2, B, Hkv, positions, Dh)."""

    def __init__(self, c: BackboneConfig, batch: int, positions: int, like: Tensor) -> None:
        shape = (c.layers, 2, batch, c.kv_heads, positions, c.head_dim)
        self.tensor = like.new_zeros(shape)

    def rows(self, which: slice) -> Cache:
        """Some of the sequences, in the same memory."""
        part = copy(self)
        part.tensor = self.tensor[:, :, which]
        return part


def fused(linears: Sequence[nn.Module]) -> Product:
    """One product for several linear layers of the same input. Plain ones share one weight from now on, of which theirs
    are views; quantized ones stay apart."""
    plain = [linear for linear in linears if type(linear) is nn.Linear]
    if len(plain) < len(linears):
        return lambda x: torch.cat([linear(x) for linear in linears], dim=-1)
    bias = _shared([linear.bias for linear in plain]) if plain[0].bias is not None else None
    return partial(F.linear, weight=_shared([linear.weight for linear in plain]), bias=bias)


def _shared(parts: Sequence[Tensor]) -> Tensor:
    """One tensor of parameters below each other, of which they are views from now on."""
    whole = _joined(parts)
    for part, view in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.data = view
    return whole


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (n, ...) below each other, without a copy where they lie so already."""
    first, rows = parts[0], sum(len(part) for part in parts)
    ends = (part.data_ptr() + part.nbytes for part in parts)
    held = first.untyped_storage().nbytes() // first.element_size() - first.storage_offset()
    near = all(p.is_contiguous() and p.data_ptr() == end for p, end in zip(parts[1:], ends, strict=False))
    if near and held >= sum(part.numel() for part in parts):
        return first.data.as_strided((rows, *first.shape[1:]), first.stride())
    return torch.cat([part.data for part in parts])


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape[-1:], self.weight, self.eps)


@dataclass(frozen=True)
class _Layer:
    """`heads`: a norm of each query and key head (and of no value), where the model has them."""

    before: _Norm
    qkv: Product
    heads: _Norm | None
    out: Product
    between: _Norm
    gate_up: Product
    down: Product


@dataclass(frozen=True)
class _Place:
    """Where new tokens (B, T) stand: rotation (N, H + 2 Hkv, Dh), rows and positions (N,), mask over `seen` keys."""

    cos: Tensor
    sin: Tensor
    rows: Tensor
    positions: Tensor
    mask: Tensor
    seen: int


class Steps:
    """The layers of a backbone, ready for decoding. Weights are shared with it, also after an optimizer's step; casting
    or replacing them asks for new `Steps`."""

    def __init__(self, backbone: Backbone) -> None:
        self.config, self.backbone = backbone.config, backbone
        with torch.inference_mode(backbone.lm_head.weight.is_inference()):  # weights fit for training stay so
            self.layers = [self._layer(layer) for layer in backbone.model.layers]

    def _layer(self, layer: nn.Module) -> _Layer:
        a, mlp = layer.self_attn, layer.mlp
        return _Layer(
            _norm(layer.input_layernorm),  # type: ignore[arg-type]
            fused([a.q_proj, a.k_proj, a.v_proj]),  # type: ignore[union-attr, list-item]
            self._heads(a),  # type: ignore[arg-type]
            fused([a.o_proj]),  # type: ignore[union-attr, list-item]
            _norm(layer.post_attention_layernorm),  # type: ignore[arg-type]
            fused([mlp.gate_proj, mlp.up_proj]),  # type: ignore[union-attr, list-item]
            fused([mlp.down_proj]),  # type: ignore[union-attr, list-item]
        )

    def _heads(self, attention: nn.Module) -> _Norm | None:
        c = self.config
        if not c.qk_norm:
            return None
        q, k = attention.q_norm.weight.data, attention.k_norm.weight.data  # type: ignore[union-attr]
        return _Norm(torch.cat([q.expand(c.heads, -1), k.expand(c.kv_heads, -1)]), c.norm_eps)  # type: ignore[operator]

    @torch.no_grad()
    def extend(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """New ids and positions (B, T) -> hidden states (B, T, width); `cache` takes their keys and values."""
        place = self._place(positions, cache)
        x: Tensor = self.backbone.model.embed_tokens(ids.flatten())
        for layer, held in zip(self.layers, cache.tensor, strict=True):
            x = x + layer.out(self._attend(layer, layer.before(x), held, place))
            gate, up = layer.gate_up(layer.between(x)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate).mul_(up))
        out: Tensor = self.backbone.model.norm(x)
        return out.unflatten(0, ids.shape)

    def _place(self, positions: Tensor, cache: Cache) -> _Place:
        c, (batch, steps), like = self.config, positions.shape, cache.tensor
        flat = positions.flatten()
        cos, sin = (t.to(like.dtype) for t in rope(flat, c.head_dim, c.rope_theta))
        sin = torch.cat([-sin[..., : c.head_dim // 2], sin[..., c.head_dim // 2 :]], dim=-1)
        turned, still = c.heads + c.kv_heads, (len(flat), c.kv_heads, c.head_dim)
        cos = torch.cat([cos.expand(-1, turned, -1), like.new_ones(still)], dim=1)
        sin = torch.cat([sin.expand(-1, turned, -1), like.new_zeros(still)], dim=1)
        seen = min(-(-(int(flat.max()) + 1) // BLOCK) * BLOCK, like.shape[-2])
        ahead = torch.arange(seen, device=flat.device) > positions[..., None]  # (B, T, seen)
        mask = like.new_zeros(ahead.shape).masked_fill_(ahead, float("-inf"))
        mask = mask.repeat_interleave(c.heads // c.kv_heads, dim=1)[:, None]
        rows = torch.arange(batch, device=flat.device).repeat_interleave(steps)
        return _Place(cos, sin, rows, flat, mask, seen)

    def _attend(self, layer: _Layer, x: Tensor, held: Tensor, at: _Place) -> Tensor:
        """x (N, width) -> (N, H * Dh), once `held` (2, B, Hkv, positions, Dh) has their keys and values."""
        c, count, batch, group = self.config, len(x), held.shape[1], self.config.heads // self.config.kv_heads
        qkv = layer.qkv(x).view(count, -1, c.head_dim)  # (N, H + 2 Hkv, Dh)
        if layer.heads is not None:
            qkv = self._normed(qkv, layer.heads)
        swapped = qkv.view(count, -1, 2, c.head_dim // 2).flip(2).view_as(qkv)
        turned = torch.addcmul(qkv * at.cos, swapped, at.sin)
        held[:, at.rows, :, at.positions] = turned[:, c.heads :].view(count, 2, c.kv_heads, c.head_dim)
        q = turned[:, : c.heads].reshape(batch, -1, c.kv_heads, group, c.head_dim)
        q = q.transpose(1, 2).flatten(2, 3)  # (B, Hkv, T * group, Dh)
        keys, values = held[..., : at.seen, :]
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=at.mask)
        return out.view(batch, c.kv_heads, -1, group, c.head_dim).transpose(1, 2).reshape(count, -1)

    def _normed(self, qkv: Tensor, norm: _Norm) -> Tensor:
        turned = F.rms_norm(qkv[:, : len(norm.weight)], (self.config.head_dim,), None, norm.eps) * norm.weight
        return torch.cat([turned, qkv[:, len(norm.weight) :]], dim=1)


def _norm(module: RMSNorm) -> _Norm:
    return _Norm(module.weight.data, module.eps)
