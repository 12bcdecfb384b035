"""models/quantized.py: int8 and int4 weights stay within half a step of the floats, and the products within that."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from mio.models import quantized
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import GROUP, KINDS, Bits, Int4Linear, Int8Linear, QuantizedLinear, quantize_linears
from mio.models.steps import Cache, Steps
from mio.types import MioError

BITS: tuple[Bits, ...] = (8, 4)
SMALL = BackboneConfig(50, 2, 64, 4, 2, 16, 96, 10_000.0, positions=64, bias=True)
sizes = st.tuples(st.integers(1, 300), st.integers(1, 200))


def linear(outputs: int, inputs: int, bias: bool = False, seed: int = 0) -> nn.Linear:
    """Rows of very different sizes."""
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs, bias=bias)
    layer.weight.data *= torch.logspace(-3, 2, outputs)[:, None]
    return layer


def largest(weight: Tensor, bits: Bits) -> Tensor:
    """The largest magnitude among the weights that share a scale, for each weight."""
    groups = weight.abs().split(weight.shape[1] if bits == 8 else GROUP, dim=1)
    return torch.cat([g.amax(1, keepdim=True).expand_as(g) for g in groups], dim=1)


# ------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (4, 7)])
@given(sizes, st.integers(0, 99))
def test_no_weight_is_off_by_more_than_half_a_step(bits: Bits, most: int, size: tuple[int, int], seed: int) -> None:
    layer = linear(*size, seed=seed)
    step = largest(layer.weight.data, bits) / most * (1 + 2**-8)  # the scale's own rounding
    error = (KINDS[bits](layer).dequantized(torch.float32) - layer.weight.data).abs()
    assert (error <= step / 2 + 1e-12).all()


@pytest.mark.parametrize("bits", BITS)
def test_weights_that_are_steps_already_are_kept(bits: Bits) -> None:
    most = 127 if bits == 8 else 7
    layer = nn.Linear(128, 9, bias=False)
    layer.weight.data = torch.randint(-most, most + 1, (9, 128)) * 0.25
    layer.weight.data[:, ::GROUP] = most * 0.25
    assert_close(KINDS[bits](layer).dequantized(torch.float32), layer.weight.data, rtol=0, atol=0)


@pytest.mark.parametrize("bits", BITS)
def test_rows_of_zeros_stay_zero(bits: Bits) -> None:
    layer = nn.Linear(70, 3)
    layer.weight.data.zero_()
    assert not KINDS[bits](layer).dequantized(torch.float32).any()


def test_int4_holds_two_weights_in_a_byte() -> None:
    assert Int4Linear(nn.Linear(128, 10)).weight.shape == (10, 64)
    assert Int8Linear(nn.Linear(128, 10)).weight.shape == (10, 128)
    assert [kind(nn.Linear(128, 10)).weight.element_size() for kind in KINDS.values()] == [1, 1]


@pytest.mark.parametrize("bits", BITS)
def test_no_cast_of_the_module_changes_a_weight(bits: Bits) -> None:
    layer = KINDS[bits](linear(9, 128))
    before = layer.dequantized(torch.float32)
    assert_close(layer.to(torch.bfloat16).dequantized(torch.float32), before, rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------ products


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(128,), (1, 128), (2, 3, 128), (40, 128), (0, 128)])
@torch.inference_mode()
def test_products_are_those_of_the_dequantized_weights(bits: Bits, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer = KINDS[bits](nn.Linear(128, 300)).to(dtype)
    x = torch.randn(shape, dtype=dtype)
    expected = x.double() @ layer.dequantized(torch.float64).T + layer.bias.double()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}[dtype]
    got = layer(x)
    assert got.dtype == dtype
    assert_close(got.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rows", [1, 8])
@torch.inference_mode()
def test_the_fast_product_of_few_tokens_is_the_slow_one(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Int8Linear(nn.Linear(128, 300)).bfloat16(), torch.randn(rows, 128).bfloat16()
    fast = layer(x)
    monkeypatch.setattr(quantized, "PRODUCT8", False)
    assert_close(fast, layer(x), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("bits", BITS)
@given(st.integers(0, 99))
def test_outputs_are_off_by_no_more_than_the_steps_allow(bits: Bits, seed: int) -> None:
    layer = linear(20, 150, bias=True, seed=seed)
    x = torch.randn(5, 150)
    step = largest(layer.weight.data, bits) / (127 if bits == 8 else 7) * (1 + 2**-8)
    bound = x.abs() @ (step / 2).T
    with torch.no_grad():
        assert ((KINDS[bits](layer)(x) - layer(x)).abs() <= 1.001 * bound + 1e-5).all()


@pytest.mark.parametrize("bits", BITS)
def test_gradients_reach_the_inputs(bits: Bits) -> None:
    layer = KINDS[bits](nn.Linear(64, 8)).bfloat16()
    x = torch.randn(2, 64, dtype=torch.bfloat16, requires_grad=True)
    layer(x).float().sum().backward()
    assert x.grad is not None
    assert_close(x.grad.float(), layer.dequantized(torch.float32).sum(0).expand(2, -1), atol=2e-2, rtol=2e-2)


# ------------------------------------------------------------------------------------------------ modules


@pytest.mark.parametrize("bits", BITS)
def test_all_linear_layers_but_the_head_are_replaced(bits: Bits) -> None:
    model = Backbone(SMALL)
    assert quantize_linears(model, bits) is model
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert kinds == {"lm_head": nn.Linear}
    replaced = [name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)]
    assert len(replaced) == 7 * SMALL.layers
    assert all(type(model.get_submodule(name)) is KINDS[bits] for name in replaced)


def test_skip_names_layers_by_their_own_name() -> None:
    model = Backbone(SMALL)
    quantize_linears(model, 8, skip=("down_proj", "self_attn"))
    replaced = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    assert replaced == {"gate_proj", "up_proj", "lm_head"}


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.02), (4, 0.25)])
@torch.inference_mode()
def test_a_models_hidden_states_stay_near(bits: Bits, bound: float) -> None:
    model = Backbone(SMALL)
    ids, positions = torch.randint(0, 50, (1, 30)), torch.arange(30)[None]
    before = run(model, ids, positions)
    quantize_linears(model, bits)
    assert (run(model, ids, positions) - before).norm() / before.norm() < bound


def run(model: Backbone, ids: Tensor, positions: Tensor) -> Tensor:
    cache = Cache(model.config, *ids.shape, model.lm_head.weight)
    return Steps(model).extend(ids, positions, cache)


@pytest.mark.parametrize("bits", BITS)
def test_a_layer_filled_later_is_the_layer_quantized_at_once(bits: Bits) -> None:
    layer = linear(30, 100)
    with torch.device("meta"):
        late = KINDS[bits](nn.Linear(100, 30, bias=False))
    assert late.weight.is_meta
    late.fill(layer.weight)
    assert_close(late.state_dict(), KINDS[bits](layer).state_dict(), rtol=0, atol=0)


def test_other_widths_are_refused() -> None:
    with pytest.raises(MioError, match="of 3 bits") as caught:
        quantize_linears(nn.Linear(2, 2), 3)  # type: ignore[arg-type]
    assert caught.value.fix == "Choose 8 or 4."
