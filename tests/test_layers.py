"""layers.py: attention equals its references, in values and in gradients."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mio.layers import (
    Block,
    RMSNorm,
    Segments,
    SelfAttention,
    apply_rope,
    attend,
    dense_attention,
    look_alike,
    rope,
    segment_attention,
)

lengths_of = st.lists(st.integers(1, 40) | st.sampled_from([7, 8]), min_size=1, max_size=6).map(tuple)


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(s).requires_grad_() for s in shapes]


def with_gradients(out: Tensor, inputs: list[Tensor], seed: int = 0) -> list[Tensor]:
    """The output and the gradient of a random weighing of it with respect to every input."""
    weigh = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
    return [out, *torch.autograd.grad((out * weigh).sum(), inputs)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("steps", [1, 7, 33])
def test_attend_is_scaled_dot_product_attention(causal: bool, steps: int) -> None:
    qkv = leaves(*[(2, 3, steps, 8)] * 3)
    expected = F.scaled_dot_product_attention(*qkv, is_causal=causal)
    got = with_gradients(attend(*qkv, causal=causal), qkv)
    assert_close(got, with_gradients(expected, qkv), atol=1e-5, rtol=1e-5)


def test_attend_of_long_sequences_is_the_same_function() -> None:
    qkv = [torch.randn(1, 1, 513, 4) for _ in range(3)]
    short = attend(*(t[:, :, :512] for t in qkv), causal=True)
    assert_close(attend(*qkv, causal=True)[:, :, :512], short, atol=1e-5, rtol=1e-5)


def test_attend_reads_a_longer_context() -> None:
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v), atol=1e-5, rtol=1e-5)


@given(lengths_of, st.booleans(), st.sampled_from([1, 2, 4]))
def test_segment_attention_is_dense_attention(lengths: tuple[int, ...], ordered: bool, kv_heads: int) -> None:
    n, segments = sum(lengths), Segments.of(sorted(lengths) if ordered else lengths)
    qkv = leaves((n, 4, 8), (n, kv_heads, 8), (n, kv_heads, 8))
    got = with_gradients(segment_attention(*qkv, segments), qkv)
    assert_close(got, with_gradients(dense_attention(*qkv, segments), qkv), atol=1e-5, rtol=1e-5)


@given(lengths_of)
def test_runs_spell_out_the_lengths(lengths: tuple[int, ...]) -> None:
    runs = Segments.of(lengths).runs
    assert tuple(length for count, length in runs for _ in range(count)) == lengths
    assert all(a[1] != b[1] for a, b in pairwise(runs))


def test_no_gradient_flows_between_samples() -> None:
    (q, k, v), segments = leaves(*[(9, 2, 4)] * 3), Segments.of((4, 5))
    segment_attention(q, k, v, segments)[4:].sum().backward()
    for t in (q, k, v):
        assert_close(t.grad[:4], torch.zeros(4, 2, 4), rtol=0, atol=0)


def test_no_gradient_flows_from_the_future() -> None:
    q, k, v = leaves(*[(6, 2, 4)] * 3)
    segment_attention(q, k, v, Segments.of((6,)))[:3].sum().backward()
    assert_close(v.grad[3:], torch.zeros(3, 2, 4), rtol=0, atol=0)
    assert (v.grad[:3] != 0).all()


def test_rope_turns_pairs_of_halves_by_position_times_frequency() -> None:
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]]])
    got = apply_rope(x, rope(torch.tensor([2, 3]), 4, 100.0))
    angles = torch.tensor([2.0, 3.0 / 100**0.5])
    expected = torch.zeros(2, 1, 4)
    expected[0, 0, 0], expected[0, 0, 2] = angles[0].cos(), angles[0].sin()
    expected[1, 0, 1], expected[1, 0, 3] = angles[1].cos(), angles[1].sin()
    assert_close(got, expected)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_rope_scores_depend_on_distance_only(a: int, b: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 8, generator=generator) for _ in range(2))

    def score(i: int, j: int) -> Tensor:
        return (apply_rope(q, rope(torch.tensor([i]), 8, 1e4)) * apply_rope(k, rope(torch.tensor([j]), 8, 1e4))).sum()

    assert_close(score(a, b), score(a + shift, b + shift), atol=1e-4, rtol=1e-4)


def test_rms_norm_is_torchs() -> None:
    x, ours, theirs = 3 * torch.randn(5, 8), RMSNorm(8), torch.nn.RMSNorm(8, eps=1e-5)
    ours.weight.data.normal_()
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours(x), theirs(x))


def test_rms_norms_gradients_are_torchs() -> None:
    x, ours, theirs = 3 * torch.randn(3, 5, 8), RMSNorm(8), torch.nn.RMSNorm(8, eps=1e-5)
    ours.weight.data.normal_()
    theirs.load_state_dict(ours.state_dict())
    x.requires_grad_()
    got, expected = (with_gradients(norm(x), [x, norm.weight]) for norm in (ours, theirs))
    assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_rms_norm_of_bf16_is_computed_in_fp32() -> None:
    x = (1000 * torch.randn(5, 64)).bfloat16()
    assert_close(RMSNorm(64)(x), RMSNorm(64)(x.float()).bfloat16(), rtol=0, atol=0)


def test_evas_attention_has_biases_of_query_and_value_only() -> None:
    plain, eva, x = SelfAttention(8, 2), SelfAttention(8, 2, eva=True), torch.randn(2, 5, 8)
    plain.qkv.bias.data[8:16] = 0
    state = plain.state_dict()
    bias = state.pop("qkv.bias")
    eva.load_state_dict(state | {"q_bias": bias[:8], "v_bias": bias[16:]})
    assert_close(eva(x), plain(x), rtol=0, atol=0)


def test_a_block_is_torchs_pre_norm_encoder_layer() -> None:
    block, x = Block(8, 2, 16), torch.randn(2, 5, 8)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, F.gelu, 1e-6, batch_first=True, norm_first=True)
    names = {
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj.": "self_attn.out_proj.",
        "mlp.fc1.": "linear1.",
        "mlp.fc2.": "linear2.",
    }
    state = block.state_dict()
    for ours, name in names.items():
        state = {k.replace(ours, name): v for k, v in state.items()}
    theirs.load_state_dict(state)
    assert_close(block(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_attention_starts_by_taking_over_what_its_likes_hold() -> None:
    query, key, value, out = (torch.randn(8, 8) for _ in range(4))
    look_alike(query, key, value, out)
    assert_close(query.T @ key, torch.eye(8), atol=1e-5, rtol=0)  # scores are products of the tokens themselves
    assert_close(out @ value, torch.eye(8), atol=1e-5, rtol=0)
