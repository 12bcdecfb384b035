"""models/backbone.py, data/loader.py, train/objectives.py: packing changes speed, never a number."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch import Tensor
from torch.testing import assert_close

from mio.data.loader import collate
from mio.layers import Segments
from mio.models.backbone import Backbone, BackboneConfig, Cache
from mio.sequence import TokenSequence
from mio.train.objectives import next_token_loss

V = 50
KINDS = (np.arange(V) >= 30).astype(np.int64)
SMALL = BackboneConfig(V, 2, 32, 4, 2, 8, 48, 10_000.0, positions=64)
lengths_of = st.lists(st.integers(1, 20) | st.just(6), min_size=1, max_size=5)


def fresh(c: BackboneConfig = SMALL, scale: float = 5.0) -> Backbone:
    """Random weights large enough that logits are far from uniform."""
    torch.manual_seed(0)
    model = Backbone(c)
    for parameter in model.parameters():
        parameter.data *= scale if parameter.ndim > 1 else 1
    return model


def samples_of(lengths: Sequence[int], seed: int = 0) -> list[TokenSequence]:
    rng = np.random.default_rng(seed)
    return [TokenSequence(rng.integers(0, V, n), rng.random(n) < 0.7) for n in lengths]


def logits_of(model: Backbone, ids: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """One pack -> logits of each sample."""
    positions = torch.cat([torch.arange(n) for n in lengths])
    return list(model.logits(model(ids, positions, Segments.of(tuple(lengths)))).split(list(lengths)))


# ------------------------------------------------------------------------------------------------ packing


@settings(max_examples=25)
@given(lengths_of, st.data())
@torch.inference_mode()
def test_pack_mates_ids_change_no_bit_of_a_samples_logits(lengths: list[int], data: st.DataObject) -> None:
    model, ids = fresh(), torch.randint(0, V, (sum(lengths),))
    changed = data.draw(st.integers(0, len(lengths) - 1))
    other = list(ids.split(lengths))
    other[changed] = (other[changed] + 7) % V
    before, after = logits_of(model, ids, lengths), logits_of(model, torch.cat(other), lengths)
    for n in range(len(lengths)):
        assert torch.equal(before[n], after[n]) == (n != changed)


@settings(max_examples=25)
@given(lengths_of)
@torch.inference_mode()
def test_a_sample_in_a_pack_has_the_logits_it_has_alone(lengths: list[int]) -> None:
    model, ids = fresh(), torch.randint(0, V, (sum(lengths),))
    alone = [logits_of(model, part, [len(part)])[0] for part in ids.split(lengths)]
    assert_close(logits_of(model, ids, lengths), alone, atol=1e-5, rtol=1e-5)


def loss_and_gradients(model: Backbone, samples: Sequence[TokenSequence]) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    loss = next_token_loss(model, collate(samples, KINDS), ("text", "image"))["loss"]
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


@settings(max_examples=15)
@given(st.lists(st.integers(3, 20), min_size=1, max_size=5), st.integers(0, 99))
def test_packed_loss_and_gradients_are_the_sums_over_all_targets(lengths: list[int], seed: int) -> None:
    model, samples = fresh(scale=1.0), samples_of(lengths, seed)
    for sample in samples:
        sample.loss[-1] = True
    targets = sum(int(s.loss[1:].sum()) for s in samples)
    each = [loss_and_gradients(model, [s]) for s in samples]
    loss, gradients = loss_and_gradients(model, samples)
    assert_close(loss / targets, sum(alone for alone, _ in each) / targets, atol=1e-6, rtol=1e-6)
    expected = [sum(g[i] for _, g in each) / targets for i in range(len(gradients))]
    assert_close([g / targets for g in gradients], expected, atol=1e-6, rtol=1e-5)


@settings(max_examples=15)
@given(st.permutations(range(5)))
def test_the_order_of_samples_does_not_change_the_loss(order: list[int]) -> None:
    model, samples = fresh(), samples_of([4, 9, 17, 2, 8])
    with torch.no_grad():
        losses = [
            next_token_loss(model, collate(some, KINDS), ("text", "image"))
            for some in (samples, [samples[i] for i in order])
        ]
    assert_close(losses[0], losses[1], atol=1e-6, rtol=1e-6)


def test_the_mean_of_each_kind_is_logged_and_they_add_up() -> None:
    batch = collate(samples_of([9, 12, 5]), KINDS)
    with torch.no_grad():
        out = next_token_loss(fresh(), batch, ("text", "image"))
    counts = torch.bincount(batch.kinds).float()
    assert_close(out["text"] * counts[0] + out["image"] * counts[1], out["loss"])
    assert (out["weight"], out["tokens"]) == (counts.sum(), 26)


def test_a_declared_weight_counts_as_so_many_targets() -> None:
    batch = collate(samples_of([9, 12, 5]), KINDS)
    with torch.no_grad():
        plain, heavy = (next_token_loss(fresh(), batch, ("text", "image"), w) for w in (None, {"text": 3.0}))
    counts = torch.bincount(batch.kinds).float()
    assert_close(heavy["loss"] - plain["loss"], 2 * plain["text"] * counts[0])
    assert heavy["weight"] - plain["weight"] == 2 * counts[0]


@given(lengths_of, st.integers(0, 99))
def test_targets_are_the_trained_next_ids_of_their_own_sample(lengths: list[int], seed: int) -> None:
    samples = samples_of(lengths, seed)
    batch = collate(samples, KINDS)
    samples.sort(key=len)  # so that samples of one length attend as one
    expected = [int(s.ids[t + 1]) for s in samples for t in range(len(s) - 1) if s.loss[t + 1]]
    assert batch.targets.tolist() == expected
    assert batch.kinds.tolist() == KINDS[expected].tolist()
    assert_array_equal(batch.ids, np.concatenate([s.ids for s in samples]))
    assert batch.positions.tolist() == [t for s in samples for t in range(len(s))]
    assert all(batch.positions[batch.where + 1] > 0)


def test_collate_leaves_the_samples_as_they_are() -> None:
    sample = TokenSequence(np.arange(3), np.ones(3, bool))
    collate([sample], KINDS)
    assert_array_equal(sample.loss, [True] * 3)


# ------------------------------------------------------------------------------------------------ cache


@settings(max_examples=15)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 3))
@torch.inference_mode()
def test_cached_logits_are_the_uncached_ones(prompts: list[int], steps: int, chunk: int) -> None:
    model, longest = fresh(), max(prompts)
    rows = [torch.randint(0, V, (n + steps,)) for n in prompts]
    cache = Cache(SMALL, len(rows), longest + steps, model.lm_head.weight)
    padded = torch.stack([torch.cat([r[:n], r.new_zeros(longest - n)]) for r, n in zip(rows, prompts, strict=True)])
    hidden = model.extend(padded, torch.arange(longest).expand(len(rows), -1), cache)
    got = [[h[:n]] for h, n in zip(hidden, prompts, strict=True)]
    for start in range(0, steps, chunk):
        at = torch.tensor(prompts)[:, None] + torch.arange(start, min(start + chunk, steps))
        new = torch.stack([r[a] for r, a in zip(rows, at, strict=True)])
        for parts, h in zip(got, model.extend(new, at, cache), strict=True):
            parts.append(h)
    for row, parts in zip(rows, got, strict=True):
        assert_close(model.logits(torch.cat(parts)), logits_of(model, row, [len(row)])[0], atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ parity


FAMILIES: dict[str, dict[str, bool]] = {"Llama": {}, "Qwen2": {"bias": True}, "Qwen3": {"qk_norm": True}}


def config_of(family: str, tied: bool = False) -> BackboneConfig:
    """Eight query heads on one key-value head, as in MIO-7B."""
    return BackboneConfig(V, 2, 64, 8, 1, 8, 96, 5_000_000.0, positions=64, tied=tied, **FAMILIES[family])


def hugging_face(family: str, c: BackboneConfig) -> torch.nn.Module:
    transformers = importlib.import_module("transformers")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=c.vocabulary,
        hidden_size=c.width,
        intermediate_size=c.hidden,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        max_position_embeddings=c.positions,
        tie_word_embeddings=c.tied,
    )
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def pair_of(family: str, tied: bool = False) -> tuple[Backbone, torch.nn.Module]:
    """Ours and Hugging Face's with equal weights; norms and biases are random too, so that each of them counts."""
    c = config_of(family, tied)
    ours, theirs = fresh(c), hugging_face(family, c)
    for parameter in ours.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.5 * torch.randn_like(parameter)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensor_names_and_shapes_are_hugging_faces(family: str, tied: bool) -> None:
    ours, theirs = pair_of(family, tied)
    shapes = {k: v.shape for k, v in ours.state_dict().items()}
    assert shapes == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_hugging_faces(family: str, tied: bool) -> None:
    ours, theirs = pair_of(family, tied)
    ids = torch.randint(0, V, (2, 40))
    expected = theirs(ids).logits
    got = torch.stack(logits_of(ours, ids.flatten(), [40, 40]))
    assert expected.std() > 0.5
    assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_cached_logits_are_hugging_faces_cached_ones(family: str) -> None:
    ours, theirs = pair_of(family)
    ids = torch.randint(0, V, (2, 40))
    cache, past = Cache(ours.config, 2, 40, ours.lm_head.weight), importlib.import_module("transformers").DynamicCache()
    for new in torch.arange(40).split([30, *[1] * 10]):
        out = theirs(ids[:, new], cache=past)
        got = ours.logits(ours.extend(ids[:, new], new.expand(2, -1), cache))
        assert_close(got, out.logits, atol=1e-5, rtol=1e-5)


def test_biases_start_at_zero_and_q_norms_at_one() -> None:
    model = Backbone(BackboneConfig(V, 1, 8, 2, 1, 4, 16, bias=True, qk_norm=True))
    state = model.state_dict()
    assert [float(state[f"model.layers.0.self_attn.{x}_proj.bias"].abs().max()) for x in "qkv"] == [0, 0, 0]
    assert state["model.layers.0.self_attn.q_norm.weight"].tolist() == [1, 1, 1, 1]


def test_the_default_is_mio_7b() -> None:
    with torch.device("meta"):
        model = Backbone(BackboneConfig())
    assert len(model.state_dict()) == 291
    assert sum(p.numel() for p in model.parameters()) == 6_161_747_968


def test_tied_embeddings_are_one_tensor() -> None:
    tied, apart = (Backbone(BackboneConfig(V, 1, 8, 2, 1, 4, 16, tied=t)) for t in (True, False))
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in tied.parameters()) == V * 8


def test_projections_into_the_residual_start_smaller() -> None:
    torch.manual_seed(0)
    model = Backbone(BackboneConfig(V, 8, 64, 4, 2, 16, 128))
    layer = model.model.layers[3]
    assert layer.self_attn.o_proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
