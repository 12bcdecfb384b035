"""tokenizers/quantizers against vector-quantize-pytorch: equal codebooks, equal codes, vectors, losses, gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mio.tokenizers.quantizers import (
    BSQConfig,
    EMAVQConfig,
    EuclideanCodebook,
    FSQConfig,
    GroupedConfig,
    LFQConfig,
    Quantized,
    RVQConfig,
    VQConfig,
)

theirs = pytest.importorskip("vector_quantize_pytorch", reason="pip install 'mio[dev]'")
SIZE, DIM, LEVELS, GROUPS = 16, 6, 3, 2


def vectors(seed: int, dim: int = DIM) -> Tensor:
    """(2, 20, D)."""
    return torch.randn(2, 20, dim, generator=torch.Generator().manual_seed(seed))


def rows(seed: int, dim: int = DIM) -> Tensor:
    return vectors(100 + seed, dim).flatten(0, 1)[:SIZE].clone()


def load(ours: EuclideanCodebook, codebook: nn.Module, values: Tensor) -> None:
    """The same rows, believed in use by one vector each, into both."""
    for module, embed in ((ours, values), (codebook, values[None])):
        module.embed.data.copy_(embed)
        module.embed_avg.data.copy_(embed)
        module.cluster_size.fill_(1)
    ours.inited.fill_(1)


def books(module: nn.Module) -> list[EuclideanCodebook]:
    return [m for m in module.modules() if isinstance(m, EuclideanCodebook)]


def layers(module: nn.Module) -> list[nn.Module]:
    return [m._codebook for m in module.modules() if isinstance(m, theirs.VectorQuantize)]


def pair(config: EMAVQConfig | RVQConfig | GroupedConfig, other: nn.Module) -> tuple[nn.Module, nn.Module]:
    ours = config.build()
    for number, (mine, its) in enumerate(zip(books(ours), layers(other), strict=True)):
        load(mine, its, rows(number, mine.embed.shape[1]))
    return ours, other


def residual() -> tuple[nn.Module, nn.Module]:
    other = theirs.ResidualVQ(dim=DIM, num_quantizers=LEVELS, codebook_size=SIZE, decay=0.9)
    return pair(RVQConfig(LEVELS, SIZE, DIM, 0.9, 0.0), other)


def grouped() -> tuple[nn.Module, nn.Module]:
    inner = DIM // GROUPS
    other = theirs.GroupedResidualVQ(
        dim=DIM, groups=GROUPS, num_quantizers=LEVELS, codebook_size=SIZE, decay=0.9, rotation_trick=False
    )
    return pair(GroupedConfig(RVQConfig(LEVELS, SIZE, inner, 0.9, 0.0), GROUPS), other)


def moving(rotation: bool = False) -> tuple[nn.Module, nn.Module]:
    other = theirs.VectorQuantize(dim=DIM, codebook_size=SIZE, decay=0.9, rotation_trick=rotation)
    return pair(EMAVQConfig(SIZE, DIM, 0.9, 0.0, rotation=rotation), other)


def learned() -> tuple[nn.Module, nn.Module]:
    """Codebook by gradient: one error, which pulls both sides at once, stands for our two."""
    ours = VQConfig(SIZE, DIM, commitment=1.0, codebook=1.0).build()
    other = theirs.VectorQuantize(
        dim=DIM, codebook_size=SIZE, learnable_codebook=True, ema_update=False, rotation_trick=False
    )
    ours.seen.fill_(1)  # nothing to revive
    ours.embedding.weight.data.copy_(rows(0))
    other._codebook.embed.data.copy_(rows(0)[None])
    return ours, other


def told(out: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Their quantized, codes with the codebooks first, and the loss, which they leave apart by level."""
    quantized, codes, loss = out
    if codes.dim() == 4:  # (groups, B, T, levels)
        codes = codes.movedim(-1, 1).flatten(0, 1)
    elif codes.dim() == 3:
        codes = codes.movedim(-1, 0)
    return quantized, codes, loss


PAIRS = {"learned": learned, "moving averages": moving, "residual": residual, "group-residual": grouped}


@pytest.mark.parametrize("name", PAIRS)
def test_codes_and_vectors_are_theirs(name: str) -> None:
    ours, other = (m.eval() for m in PAIRS[name]())
    mine: Quantized = ours(vectors(0))
    quantized, codes, _ = told(other(vectors(0)))
    assert torch.equal(mine.codes, codes)
    assert_close(mine.quantized, quantized)
    assert len(mine.codes.unique()) > SIZE // 2


def test_groups_side_by_side_are_their_heads_with_codebooks_of_their_own() -> None:
    inner = DIM // GROUPS
    ours = GroupedConfig(EMAVQConfig(SIZE, inner, dead_below=0.0), GROUPS).build().eval()
    other = theirs.VectorQuantize(
        dim=DIM, codebook_size=SIZE, heads=GROUPS, codebook_dim=inner, separate_codebook_per_head=True
    ).eval()
    for number, book in enumerate(books(ours)):
        book.embed.copy_(rows(number, inner))
        other._codebook.embed[number].copy_(rows(number, inner))
    mine, (quantized, codes, _) = ours(vectors(0)), told(other(vectors(0)))
    assert torch.equal(mine.codes, codes)
    assert_close(mine.quantized, quantized)


@pytest.mark.parametrize("name", ["residual", "group-residual"])
def test_codes_are_read_back_as_they_read_them(name: str) -> None:
    ours, other = (m.eval() for m in PAIRS[name]())
    _, codes, _ = other(vectors(0))
    _, stacked, _ = told(other(vectors(0)))
    assert_close(ours.decode(stacked), other.get_output_from_indices(codes))


@pytest.mark.parametrize("name", ["moving averages", "residual", "group-residual"])
def test_moving_averages_walk_the_same_way(name: str) -> None:
    ours, other = PAIRS[name]()
    for step in range(5):
        ours(vectors(step))
        other(vectors(step))
    for mine, its in zip(books(ours), layers(other), strict=True):
        assert_close(mine.embed, its.embed[0])
        assert_close(mine.cluster_size, its.cluster_size[0])
        assert not torch.allclose(mine.embed, rows(0, mine.embed.shape[1]))


@pytest.mark.parametrize("name", ["moving averages", "residual", "group-residual"])
def test_the_commitment_is_theirs_up_to_the_mean_over_levels(name: str) -> None:
    ours, other = PAIRS[name]()
    x = vectors(0).requires_grad_()
    assert_close(ours(x).loss, told(other(x))[2].mean())


def test_rows_and_vectors_are_pulled_as_theirs() -> None:
    ours, other = learned()
    x, y = (vectors(0).requires_grad_() for _ in range(2))
    mine = torch.autograd.grad(ours(x).loss, [x, ours.embedding.weight])
    its = torch.autograd.grad(other(y)[2], [y, other._codebook.embed])
    assert_close(mine[0], its[0])
    assert_close(mine[1], its[1][0])


@pytest.mark.parametrize("rotation", [False, True], ids=["straight through", "rotation"])
def test_gradients_pass_as_theirs(rotation: bool) -> None:
    weigh, found = vectors(7), []
    for module in moving(rotation):
        x = vectors(0).requires_grad_()
        out = module(x)
        quantized = out.quantized if isinstance(out, Quantized) else out[0]
        found.append(torch.autograd.grad((quantized * weigh).sum(), x)[0])
    assert_close(*found)
    assert torch.allclose(found[0], weigh) is not rotation


@pytest.mark.parametrize("levels", [(8, 5, 5, 3), (3, 4, 7), (5,) * 6])
def test_finite_scalars_are_theirs(levels: tuple[int, ...]) -> None:
    x = 2 * vectors(0, len(levels))
    ours, other = FSQConfig(levels).build(), theirs.FSQ(levels=list(levels))
    quantized, codes = other(x)
    mine = ours(x)
    assert torch.equal(mine.codes, codes.long())
    assert_close(mine.quantized, quantized)
    everything = torch.arange(ours.sizes[0])
    assert_close(ours.decode(everything), other.implicit_codebook)


@pytest.mark.parametrize("sphere", [False, True], ids=["lfq", "bsq"])
def test_bits_and_their_entropies_are_theirs(sphere: bool) -> None:
    config = (BSQConfig if sphere else LFQConfig)(DIM, 0.1, 0.7, 0.25, 0.5)
    other = theirs.LFQ(
        dim=DIM, entropy_loss_weight=0.1, commitment_loss_weight=0.25, diversity_gamma=0.7, spherical=sphere
    )
    x = vectors(0)
    mine = config.build()(x)
    quantized, codes, loss = other(x, inv_temperature=2.0)
    assert torch.equal(mine.codes, codes.long())
    assert_close(mine.quantized, quantized)
    assert_close(mine.loss, loss, atol=1e-4, rtol=1e-4)  # they clamp probabilities at 1e-5 before the log
    assert_close(config.build().decode(mine.codes), other.indices_to_codes(codes))
