"""models/steps.py: steps over the cache are the backbone's own forward pass, and share its weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mio.layers import Segments
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import quantize_linears
from mio.models.steps import BLOCK, Cache, Steps, fused

SMALL = BackboneConfig(50, 2, 32, 4, 2, 8, 48, 10_000.0, positions=160)
FAMILIES: list[dict[str, Any]] = [{}, {"bias": True}, {"qk_norm": True}, {"kv_heads": 4}, {"kv_heads": 1}]


def backbone(**changes: Any) -> Backbone:
    model = Backbone(replace(SMALL, **changes)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_() if parameter.ndim == 1 else parameter.mul_(8)
    return model


def whole(model: Backbone, ids: Tensor) -> Tensor:
    """Hidden states without a cache, a sequence at a time."""
    at = torch.arange(ids.shape[1])
    return torch.stack([model(row, at, Segments.of((len(row),))) for row in ids])


def stepped(model: Backbone, ids: Tensor, prompt: int) -> Tensor:
    """The prompt at once, and then id by id."""
    steps, cache = Steps(model), Cache(model.config, len(ids), model.config.positions, model.lm_head.weight)
    ends = [0, prompt, *range(prompt + 1, ids.shape[1] + 1)]
    spans = [torch.arange(a, b) for a, b in pairwise(ends)]
    return torch.cat([steps.extend(ids[:, s], s.expand(len(ids), -1), cache) for s in spans], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_the_forward_pass(family: dict[str, Any]) -> None:
    model, ids = backbone(**family), torch.randint(50, (3, BLOCK + 20))
    assert_close(stepped(model, ids, BLOCK - 9), whole(model, ids), atol=1e-4, rtol=1e-4)


def test_rows_of_one_batch_stand_at_their_own_positions() -> None:
    model, ids = backbone(), torch.randint(50, (2, 40))
    steps, cache = Steps(model), Cache(SMALL, 2, 160, model.lm_head.weight)
    for row, length in enumerate((30, 7)):
        steps.extend(ids[row : row + 1, :length], torch.arange(length)[None], cache.rows(slice(row, row + 1)))
    got = steps.extend(torch.stack([ids[0, 30:31], ids[1, 7:8]]), torch.tensor([[30], [7]]), cache)
    assert_close(got[0, 0], whole(model, ids[:1])[0, 30], atol=1e-4, rtol=1e-4)
    assert_close(got[1, 0], whole(model, ids[1:])[0, 7], atol=1e-4, rtol=1e-4)


def test_keys_of_others_behind_an_answer_do_not_show() -> None:
    model, ids = backbone(), torch.randint(50, (1, 20))
    steps, clean, used = Steps(model), *(Cache(SMALL, 1, 160, model.lm_head.weight) for _ in range(2))
    used.tensor.normal_()
    at = torch.arange(20)[None]
    assert torch.equal(steps.extend(ids, at, clean), steps.extend(ids, at, used))


def test_products_share_the_memory_of_the_weights_they_join() -> None:
    model = backbone()
    before = copy.deepcopy(model.state_dict())
    Steps(model)
    attention = model.model.layers[0].self_attn
    q, k, v = (p.weight for p in (attention.q_proj, attention.k_proj, attention.v_proj))  # type: ignore[union-attr]
    assert k.data_ptr() == q.data_ptr() + q.nbytes and v.data_ptr() == k.data_ptr() + k.nbytes  # type: ignore[operator]
    held = q.data_ptr()  # type: ignore[operator]
    Steps(model)  # joined once
    assert q.data_ptr() == held  # type: ignore[operator]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_changed_in_place_act_at_once() -> None:
    model, ids = backbone(bias=True), torch.randint(50, (1, 12))
    steps, at = Steps(model), torch.arange(12)[None]
    for parameter in model.parameters():
        parameter.mul_(1.3)
    got = steps.extend(ids, at, Cache(SMALL, 1, 160, model.lm_head.weight))
    assert_close(got, whole(model, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_layers_are_stepped_as_they_are(bits: Any) -> None:
    model, ids = backbone(), torch.randint(50, (2, 30))
    quantize_linears(model, bits)
    assert_close(stepped(model, ids, 20), whole(model, ids), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_a_fused_product_is_the_products_side_by_side(bias: bool) -> None:
    layers = [nn.Linear(16, n, bias=bias).requires_grad_(False) for n in (8, 3, 5)]
    x = torch.randn(4, 16)
    assert_close(fused(layers)(x), torch.cat([layer(x) for layer in layers], dim=-1))
