"""tokenizers/quantizers: what every quantizer of the union `Quantizer` promises."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mio.tokenizers.quantizers import (
    BSQConfig,
    EMAVQConfig,
    FSQConfig,
    GroupedConfig,
    GumbelConfig,
    LFQConfig,
    MultiScaleConfig,
    ProductConfig,
    Quantizer,
    RVQConfig,
    VectorModule,
    VQConfig,
    diagnose,
    health,
)
from mio.train.parallel import rank, run_ranks
from mio.types import DataError

DIM = 6
LEARNED: dict[str, Quantizer] = {
    "vq": VQConfig(8, DIM),
    "vq, rotation": VQConfig(8, DIM, rotation=True),
    "ema": EMAVQConfig(8, DIM),
    "gumbel": GumbelConfig(8, DIM),
    "residual": RVQConfig(3, 8, DIM),
    "grouped": GroupedConfig(VQConfig(8, 3), 2),
    "group-residual": GroupedConfig(RVQConfig(2, 8, 3), 2),
    "product": ProductConfig(EMAVQConfig(8, 3), 2),
    "multi-scale": MultiScaleConfig(8, DIM, (1, 2, 4)),
}
FREE: dict[str, Quantizer] = {
    "fsq": FSQConfig((8, 5, 5, 3, 2, 4)),
    "lfq": LFQConfig(DIM),
    "bsq": BSQConfig(DIM, group=3),
}
ALL = LEARNED | FREE


def data(seed: int = 0, count: int = 4) -> Tensor:
    """Features of maps (B, 4, 4, D): all quantizers take these."""
    return torch.randn(count, 4, 4, DIM, generator=torch.Generator().manual_seed(seed))


def built(c: Quantizer) -> VectorModule:
    torch.manual_seed(0)
    return c.build()


@pytest.mark.parametrize("name", ALL)
def test_codes_rebuild_what_forward_returned(name: str) -> None:
    module = built(ALL[name])
    with torch.no_grad():
        module(data())  # learns, and starts what starts with its first batch
        out = module.eval()(data(1))
    assert_close(module.decode(out.codes), out.quantized, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_codes_are_in_range_and_have_a_health_each(name: str) -> None:
    out = built(ALL[name])(data())
    rows = out.codes.reshape(len(out.sizes), -1)
    assert out.codes.dtype == torch.int64
    for row, size, state in zip(rows, out.sizes, out.health, strict=True):
        assert row.min() >= 0 and row.max() < size
        assert state.usage == pytest.approx(len(row.unique()) / size)
        assert 1 <= state.perplexity <= len(row.unique()) + 1e-6


@pytest.mark.parametrize("name", ALL)
def test_gradient_reaches_the_encoder(name: str) -> None:
    x = data().requires_grad_()
    out = built(ALL[name])(x)
    (out.quantized.pow(2).sum() + out.loss).backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    assert (x.grad.abs().sum(-1) > 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ALL)
def test_autocast_to_bf16_changes_no_code(name: str) -> None:
    module = built(ALL[name]).eval()
    plain = module(data())
    with torch.autocast("cpu", torch.bfloat16):
        cast = module(data())
    assert torch.equal(cast.codes, plain.codes)
    assert cast.quantized.dtype == torch.float32


@pytest.mark.parametrize("name", ALL)
def test_nan_is_refused_and_changes_nothing(name: str) -> None:
    module = built(ALL[name])
    module(data())
    before = {k: v.clone() for k, v in {**module.state_dict(), **dict(module.named_buffers())}.items()}
    bad = data(1)
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match=r"1 vectors .* NaN"):
        module(bad)
    assert_close({**module.state_dict(), **dict(module.named_buffers())}, before, rtol=0, atol=0)


def far(c: Quantizer) -> VectorModule:
    """Its rows on one far point: without revival a single code takes everything."""
    module = built(c)
    for rows in (module.codebook.embed,) if isinstance(c, EMAVQConfig) else (module.embedding.weight,):
        rows.data.fill_(50.0)
        rows.data[0] = 0.0
    return module


@pytest.mark.parametrize("name", ["vq", "ema", "gumbel", "multi-scale"])
def test_a_collapsed_codebook_recovers(name: str) -> None:
    module = far(LEARNED[name])
    if name == "ema":
        module.codebook.inited.fill_(1)
    first = module.eval()(data(0, 16))
    assert first.health[0].usage <= 1 / 8
    assert any("collapsed" in words or "larger" in words for words in diagnose(data(0, 16), first)) or name != "vq"
    module.train()
    with torch.no_grad():
        for step in range(150):
            module(data(step, 16))
    assert module.eval()(data(999, 16)).health[0].usage > 0.9


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(64, 2), "constant data"),
        (torch.randn(1, 2), "batch of one"),
        (torch.randn(3, 2), "larger than the data"),
    ],
)
def test_poor_data_are_named(x: Tensor, words: str) -> None:
    assert any(words in found for found in diagnose(x, VQConfig(8, 2).build()(x)))


def test_good_data_and_codes_are_not_complained_of() -> None:
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    module = built(EMAVQConfig(8, 2))
    assert diagnose(x, module(x)) == ()


def train_ranks(folder: Path) -> None:
    for name, c in LEARNED.items():
        torch.manual_seed(rank())  # chance differs between processes; codebooks must not
        module = c.build()
        module.load_state_dict(built(c).state_dict())
        with torch.no_grad():
            for step in range(4):
                module(data(10 * step + rank()))
        tensors = {**module.state_dict(), **dict(module.named_buffers())}
        digest = sha256(b"".join(tensors[k].numpy().tobytes() for k in sorted(tensors))).hexdigest()
        (folder / f"{name} {rank()}").write_text(digest)


def test_all_processes_have_the_same_codebooks(tmp_path: Path) -> None:
    run_ranks(train_ranks, (tmp_path,), 2, 1)
    for name in LEARNED:
        assert (tmp_path / f"{name} 0").read_text() == (tmp_path / f"{name} 1").read_text(), name


@dataclass(frozen=True)
class Known:
    """Codes that follow from the papers' formulas by hand."""

    config: Quantizer
    x: list[float]
    code: int
    values: list[float]


@pytest.mark.parametrize(
    "k",
    [
        Known(FSQConfig((3, 3)), [0.0, 9.0], 1 + 3 * 2, [0.0, 1.0]),
        Known(FSQConfig((3, 3)), [-9.0, 0.0], 0 + 3 * 1, [-1.0, 0.0]),
        Known(LFQConfig(3), [0.3, -2.0, 0.1], 0b101, [1.0, -1.0, 1.0]),
        Known(BSQConfig(4), [1.0, 1.0, -1.0, 1.0], 0b1101, [0.5, 0.5, -0.5, 0.5]),
    ],
)
def test_codes_of_grids_are_those_of_their_papers(k: Known) -> None:
    out = k.config.build()(torch.tensor([k.x]))
    assert out.codes.tolist() == [k.code]
    assert_close(out.quantized, torch.tensor([k.values]))


def test_health_counts_huge_codebooks_without_a_table() -> None:
    import numpy as np

    state = health(np.array([0, 2**40]), 2**41)
    assert (state.perplexity, state.dead) == (pytest.approx(2.0), 2**41 - 2)
