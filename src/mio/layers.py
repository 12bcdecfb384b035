"""Building blocks of every network: norms, RoPE, packed attention, MLPs, transformer blocks. Tensors only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 natively. CPUs without AVX-512 BF16, AMX or Arm's BF16 only emulate it,
    tens of times slower than fp32."""
    if device.type != "cpu":
        return True
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class _RmsNorm(torch.autograd.Function):
    """The gradient by hand: a third of the passes over memory that the recorded operations would take, and only the
    input is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale[..., None]).to(x.dtype).mul_(weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        slopes, weight = (grad * x).float(), weight.float()
        along = (slopes @ weight) * scale.pow(3) / -x.shape[-1]  # the part that lengthens x changes nothing
        of_x = (grad * weight).mul_(scale[..., None]).addcmul_(x, along[..., None])
        return of_x.to(x.dtype), scale.flatten() @ slopes.flatten(0, -2), None


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, computed in fp32."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RmsNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return out


def rope(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of rotary embedding for integer positions: (N,) -> two (N, 1, head_dim)."""
    half = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float()[:, None] / theta**half
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate (N, H, Dh) by position; halves, not pairs, as in Llama checkpoints of Hugging Face."""
    cos, sin = (t.to(x.dtype) for t in table)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


@dataclass(frozen=True)
class Segments:
    """How N packed tokens split into samples: `runs` of (count, length), neighbours of one length counted together.

    Samples of equal length side by side attend as one batch without any copy, so packs are best sorted by length.
    """

    lengths: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]

    @staticmethod
    def of(lengths: Sequence[int]) -> Segments:
        runs = ((len(list(same)), length) for length, same in itertools.groupby(lengths))
        return Segments(tuple(lengths), tuple(runs))


@dataclass(frozen=True)
class Batch:
    """Packed samples, N tokens in all. `where` (M,): positions whose next id is trained; `targets` (M,): those ids;
    `kinds` (M,): 0 for text, then the number of the modality row the target belongs to."""

    ids: Tensor
    positions: Tensor
    segments: Segments
    where: Tensor
    targets: Tensor
    kinds: Tensor

    def halves(self) -> tuple[Batch, ...]:
        """Two batches of about half the tokens each, cut between samples; the batch alone where it is one sample."""
        lengths = self.segments.lengths
        if len(lengths) == 1:
            return (self,)
        ends = [*itertools.accumulate(lengths)]
        count = min(range(1, len(lengths)), key=lambda n: abs(2 * ends[n - 1] - ends[-1]))
        cut = ends[count - 1]
        trained = int((self.where < cut).sum())  # `where` ascends
        left, right = slice(trained), slice(trained, None)
        before = (self.where[left], self.targets[left], self.kinds[left])
        after = (self.where[right] - cut, self.targets[right], self.kinds[right])
        return (
            Batch(self.ids[:cut], self.positions[:cut], Segments.of(lengths[:count]), *before),
            Batch(self.ids[cut:], self.positions[cut:], Segments.of(lengths[count:]), *after),
        )


def segment_attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """Causal attention inside each sample of a pack and nowhere else.

    q (N, H, Dh), k and v (N, Hkv, Dh) -> (N, H, Dh). Cost grows with the sum of squared sample lengths.
    """
    sizes = [count * length for count, length in segments.runs]
    spans = zip(*(_repeated(t, q.shape[1]).split(sizes) for t in (q, k, v)), strict=True)  # one copy back for all
    parts = []
    for (count, length), span in zip(segments.runs, spans, strict=True):
        mine = [t.unflatten(0, (count, length)).transpose(1, 2) for t in span]
        parts.append(attend(mine[0], mine[1], mine[2], causal=True).transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Keys or values (N, Hkv, Dh) once for every query head: (N, heads, Dh)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Attention over (B, H, T, Dh).

    On a CPU and for short sequences two batched matrix products beat the fused kernel, whose backward pass is several
    times slower there (docs/results.md, "attention on two cores").
    """
    if q.device.type != "cpu" or k.shape[-2] > 512:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        scores = scores + torch.full(scores.shape[-2:], float("-inf"), dtype=scores.dtype).triu(1)
    return scores.softmax(-1).to(v.dtype) @ v


def dense_attention(q: Tensor, k: Tensor, v: Tensor, segments: Segments) -> Tensor:
    """The reference for `segment_attention`: one block-diagonal causal mask over the whole pack."""
    sample = torch.repeat_interleave(
        torch.arange(len(segments.lengths), device=q.device), torch.tensor(segments.lengths, device=q.device)
    )
    mask = (sample[:, None] == sample[None]).tril()
    k, v = (_repeated(t, q.shape[1]) for t in (k, v))
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1)


class SwiGLU(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden, bias=False)
        self.up_proj = nn.Linear(dim, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    """Bidirectional attention of a ViT. `eva`: no bias on the fused projection but separate ones for q and v."""

    def __init__(self, dim: int, heads: int, eva: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=not eva)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if eva else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if eva else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        out: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Pre-norm transformer block of a ViT: (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int, hidden: int, eva: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SelfAttention(dim, heads, eva)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def grid_positions(side: int, dim: int) -> Tensor:
    """Sines and cosines of row and column of a side x side grid, unit variance: (side * side, dim)."""
    steps = (torch.arange(side) + 0.5) / side
    waves = torch.arange(1, dim // 4 + 1) * (torch.pi / 4)
    line = torch.cat([(steps[:, None] * waves).sin(), (steps[:, None] * waves).cos()], dim=1)  # (side, dim / 2)
    grid = torch.cat([line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)], dim=-1)
    return grid.flatten(0, 1) * 2**0.5


@torch.no_grad()
def look_alike(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """Start an attention so that a token sees its likes and takes over what they hold; all (D, D), changed in place.

    Mimetic initialisation (Trockman and Kolter, 2023). Small data never teaches this to a random start: every query
    keeps seeing the mean of the whole picture, and little of it passes two random projections.
    """
    nn.init.orthogonal_(query)
    key.copy_(query)
    nn.init.orthogonal_(value)
    out.copy_(value.T)


@torch.no_grad()
def look_alike_blocks(blocks: nn.ModuleList) -> None:
    """`look_alike` for the self-attention of ViT blocks."""
    for block in blocks:
        attention: SelfAttention = block.attn  # type: ignore[assignment]
        query, key, value = attention.qkv.weight.chunk(3)
        look_alike(query, key, value, attention.proj.weight)
