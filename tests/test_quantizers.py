"""tokenizers/quantizers.py: codes stand for what forward returned, gradients pass, codebooks stay alive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from mio.tokenizers.quantizers import EuclideanCodebook, Quantized, ResidualVQ, VectorQuantizer, health, nearest


def rvq(levels: int = 3, size: int = 8, dim: int = 4) -> ResidualVQ:
    """With random rows in use, as after training."""
    quantizer = ResidualVQ(levels, size, dim)
    for codebook in quantizer.codebooks():
        codebook.inited.fill_(1)
        codebook.cluster_size.fill_(10)
    return quantizer


def quantizers() -> list[nn.Module]:
    vq = VectorQuantizer(8, 4)
    vq.embedding.weight.data.normal_()
    return [vq, rvq()]


def everything(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in (*module.named_parameters(), *module.named_buffers())}


KINDS = pytest.mark.parametrize("kind", [0, 1], ids=["vq", "rvq"])


@KINDS
def test_codes_rebuild_what_forward_returned(kind: int) -> None:
    quantizer = quantizers()[kind].eval()
    out = quantizer(torch.randn(5, 7, 4))
    assert out.codes.dtype == torch.int64
    assert_close(quantizer.decode(out.codes), out.quantized)


@KINDS
def test_codes_rebuild_what_forward_returned_while_training_a_moment_ago(kind: int) -> None:
    quantizer, x = quantizers()[kind], torch.randn(5, 7, 4)
    quantizer(x)
    out = quantizer.eval()(x)
    assert_close(quantizer.decode(out.codes), out.quantized)


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
def test_nearest_is_brute_force(count: int, size: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, rows = torch.randn(count, dim, generator=generator), torch.randn(size, dim, generator=generator)
    expected = [min(range(size), key=lambda k: float((v - rows[k]).double().pow(2).sum())) for v in x]
    assert nearest(x.view(1, count, dim), rows).tolist() == [expected]


def test_residual_levels_quantize_what_is_left_over() -> None:
    quantizer, x = rvq().eval(), torch.randn(2, 5, 4)
    out, residual = quantizer(x), x
    for level, codebook in enumerate(quantizer.codebooks()):
        codes = nearest(residual, codebook.embed)
        assert torch.equal(out.codes[level], codes)
        residual = residual - codebook.embed[codes]
    assert torch.equal(quantizer.encode(x), out.codes)
    assert_close(out.first, quantizer.codebooks()[0].embed[out.codes[0]])


@KINDS
def test_the_straight_through_gradient_is_the_identity(kind: int) -> None:
    x, weigh = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4)
    out = quantizers()[kind](x)
    (gradient,) = torch.autograd.grad((out.quantized * weigh).sum(), x)
    assert_close(gradient, weigh)


def test_the_first_level_passes_its_gradient_for_distillation() -> None:
    x, weigh = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4)
    (gradient,) = torch.autograd.grad((rvq()(x).first * weigh).sum(), x)
    assert_close(gradient, weigh)


@KINDS
def test_gradients_reach_the_encoder_from_output_and_from_loss(kind: int) -> None:
    encoder = nn.Linear(3, 4)
    for pick in (lambda out: out.quantized.sum(), lambda out: out.loss):
        out: Quantized = quantizers()[kind](encoder(torch.randn(2, 5, 3)))
        (gradient,) = torch.autograd.grad(pick(out), encoder.weight)
        assert gradient.abs().min() > 0


def test_the_commitment_gradient_of_every_level_pulls_towards_its_row() -> None:
    quantizer, x = rvq().eval(), torch.randn(1, 6, 4, requires_grad=True)
    out = quantizer(x)
    (gradient,) = torch.autograd.grad(out.loss, x)
    residual, expected = x.detach(), torch.zeros(1, 6, 4)
    for codebook, codes in zip(quantizer.codebooks(), out.codes, strict=True):
        residual = residual - codebook.embed[codes]
        expected += 2 * residual / residual.numel() / 3
    assert_close(gradient, expected)


def test_the_vq_loss_is_the_sum_of_both_pulls_by_hand() -> None:
    vq = VectorQuantizer(2, 2).eval()
    vq.embedding.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    z = torch.tensor([[0.2, 0.0], [1.0, 0.6]], requires_grad=True)
    out = vq(z)
    assert out.codes.tolist() == [0, 1]
    assert_close(out.loss, torch.tensor(1.25 * (0.04 + 0.16) / 4))
    rows, inputs = torch.autograd.grad(out.loss, [vq.embedding.weight, z])
    assert_close(inputs, 2 / 4 * torch.tensor([[0.2, 0.0], [0.0, -0.4]]))
    assert_close(rows, -0.25 * 2 / 4 * torch.tensor([[0.2, 0.0], [0.0, -0.4]]))


def test_the_ema_step_by_hand() -> None:
    codebook = EuclideanCodebook(2, 1)
    codebook.inited.fill_(1)
    codebook.cluster_size.fill_(4)
    codebook.embed.copy_(torch.tensor([[0.0], [10.0]]))
    codebook.embed_avg.copy_(torch.tensor([[0.0], [40.0]]))
    rows, codes = codebook(torch.tensor([[[1.0], [3.0], [9.0]]]))
    assert codes.tolist() == [[0, 0, 1]] and rows.tolist() == [[[0.0], [0.0], [10.0]]]  # as they were chosen
    assert_close(codebook.cluster_size, torch.tensor([3.98, 3.97]))  # 0.99 * 4 + 0.01 * (2, 1)
    assert_close(codebook.embed_avg, torch.tensor([[0.04], [39.69]]))  # 0.99 * (0, 40) + 0.01 * (4, 9)
    smooth = (torch.tensor([3.98, 3.97]) + 1e-5) / (7.95 + 2e-5) * 7.95
    assert_close(codebook.embed, torch.tensor([[0.04], [39.69]]) / smooth[:, None])


def test_the_codebook_starts_as_k_means_of_the_first_batch() -> None:
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    x = centres.repeat(16, 1) + 0.01 * torch.randn(64, 2)
    best = []
    for seed in range(4):  # k-means may start with two rows in one cluster
        torch.manual_seed(seed)
        codebook = EuclideanCodebook(4, 2, decay=1.0, dead_below=0.0)
        codebook(x[None])
        assert codebook.inited.item() == 1
        best.append(torch.cdist(centres, codebook.embed).min(1).values.max())
    assert min(best) < 0.01


def used(codes: Tensor, size: int) -> float:
    return health(codes.numpy(), size).usage


def test_dead_codes_of_a_vq_are_revived() -> None:
    vq = VectorQuantizer(32, 2)
    vq.embedding.weight.data.fill_(1e3)
    vq.seen.fill_(1)  # believed alive
    for _ in range(100):
        vq(torch.randn(256, 2))
    assert used(vq(torch.randn(1024, 2)).codes, 32) > 0.9


def test_dead_codes_of_a_residual_vq_are_revived_at_every_level() -> None:
    quantizer = rvq(2, 32, 2)
    for codebook in quantizer.codebooks():
        codebook.embed.fill_(1e3)
        codebook.embed_avg.fill_(1e4)
    for _ in range(250):
        quantizer(torch.randn(1, 256, 2))
    for codes in quantizer(torch.randn(1, 1024, 2)).codes:
        assert used(codes, 32) > 0.9


@KINDS
def test_evaluation_changes_nothing(kind: int) -> None:
    quantizer = quantizers()[kind].eval()
    before = everything(quantizer)
    quantizer(torch.randn(2, 5, 4))
    assert_close(everything(quantizer), before, rtol=0, atol=0)


def test_some_levels_alone_are_encoded_and_decoded() -> None:
    quantizer, x = rvq(), torch.randn(2, 5, 4)
    codes = quantizer.encode(x)
    assert torch.equal(quantizer.encode(x, levels=2), codes[:2])
    assert not torch.equal(quantizer.encode(x, start=1), codes[1:])  # what level 0 leaves over is not taken off
    assert_close(quantizer.decode(codes[:1]) + quantizer.decode(codes[1:], start=1), quantizer.decode(codes))


@pytest.mark.parametrize(
    ("codes", "usage", "perplexity", "dead"),
    [
        ([0, 1, 2, 3], 1.0, 4.0, 0),
        ([0, 0, 0, 0], 0.25, 1.0, 3),
        ([0, 0, 1, 1], 0.5, 2.0, 2),
        ([0, 0, 0, 1], 0.5, 1.7547654, 2),
    ],
)
def test_health_counts_used_codes_and_their_perplexity(
    codes: list[int], usage: float, perplexity: float, dead: int
) -> None:
    got = health(np.array([codes]), 4)
    assert (got.usage, got.dead) == (usage, dead)
    assert got.perplexity == pytest.approx(perplexity)


def test_health_of_no_codes_is_all_dead() -> None:
    assert health(np.empty(0, np.int64), 4).dead == 4
