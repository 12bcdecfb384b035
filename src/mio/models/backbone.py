"""Ids in, logits out: a Llama-family decoder with grouped queries. Knows nothing of text, images or files.

Tensor names are those of Hugging Face's LlamaForCausalLM, so checkpoints go in and out unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from mio.layers import RMSNorm, Segments, SwiGLU, apply_rope, rope, segment_attention

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]  # (N, H, Dh), (N, Hkv, Dh), (N, Hkv, Dh) -> (N, H, Dh)


@dataclass(frozen=True)
class BackboneConfig:
    """Defaults are MIO-7B (its config.json). `bias`: on q, k and v, as in Qwen2. `qk_norm`: each head's query and key
    are normed before RoPE, as in Qwen3."""

    vocabulary: int = 76294
    layers: int = 32
    width: int = 4096
    heads: int = 32
    kv_heads: int = 4
    head_dim: int = 128
    hidden: int = 11008
    rope_theta: float = 5_000_000.0
    norm_eps: float = 1e-5
    positions: int = 4096
    tied: bool = False
    bias: bool = False
    qk_norm: bool = False


class _Attention(nn.Module):
    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.head_dim = c.head_dim
        self.q_proj = nn.Linear(c.width, c.heads * c.head_dim, bias=c.bias)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=c.bias)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=c.bias)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.width, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(c.head_dim, c.norm_eps) if c.qk_norm else nn.Identity()

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mix: Mix) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = apply_rope(self.q_norm(q), table), apply_rope(self.k_norm(k), table)
        out: Tensor = self.o_proj(mix(q, k, v).flatten(1))
        return out


class _Layer(nn.Module):
    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.width, c.norm_eps)
        self.self_attn = _Attention(c)
        self.post_attention_layernorm = RMSNorm(c.width, c.norm_eps)
        self.mlp = SwiGLU(c.width, c.hidden)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor], mix: Mix) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), table, mix)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class _Model(nn.Module):
    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocabulary, c.width)
        self.layers = nn.ModuleList(_Layer(c) for _ in range(c.layers))
        self.norm = RMSNorm(c.width, c.norm_eps)


class Backbone(nn.Module):
    def __init__(self, c: BackboneConfig) -> None:
        super().__init__()
        self.config = c
        self.model = _Model(c)
        self.lm_head = nn.Linear(c.width, c.vocabulary, bias=False)
        self.apply(partial(_initialise, scale=0.02))
        for layer in self.model.layers:
            for proj in (layer.self_attn.o_proj, layer.mlp.down_proj):  # type: ignore[union-attr]
                nn.init.normal_(proj.weight, std=0.02 / (2 * c.layers) ** 0.5)  # type: ignore[union-attr, arg-type]
        if c.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor, positions: Tensor, segments: Segments) -> Tensor:
        """Packed samples: ids and positions (N,) -> hidden states (N, width)."""
        table = rope(positions, self.config.head_dim, self.config.rope_theta)
        mix = partial(segment_attention, segments=segments)
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, table, mix)
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., vocabulary)."""
        out: Tensor = self.lm_head(hidden)
        return out


def _initialise(module: nn.Module, scale: float) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=scale)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
