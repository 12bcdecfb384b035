"""pretrained/llama.py: folders of the Llama family load bit for bit; whatever does not fit is refused by name."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricate_llama import (
    KINDS,
    SMALL,
    VARIANTS,
    folder_of,
    fresh,
    settings_of,
    state_of,
    write_settings,
    write_weights,
)
from torch import Tensor, nn
from torch.testing import assert_close

from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import Bits, QuantizedLinear, quantize_linears
from mio.models.steps import Cache, Steps
from mio.pretrained.llama import extend_vocabulary, read_backbone
from mio.types import DataError, MioError, MissingError


@torch.inference_mode()
def logits_of(model: Backbone, ids: Tensor) -> Tensor:
    cache = Cache(model.config, *ids.shape, model.lm_head.weight)
    return model.logits(Steps(model).extend(ids, torch.arange(ids.shape[1]).expand_as(ids), cache))


# ------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("files", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c", VARIANTS)
def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path: Path, c: BackboneConfig, kind: str, files: int) -> None:
    model = read_backbone(folder_of(tmp_path, c, kind, files), torch.float32)
    assert model.config == c
    assert_close(model.state_dict(), state_of(c), rtol=0, atol=0)
    assert all(p.requires_grad and p.is_contiguous() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_stored_dtype_goes_into_every_other(
    tmp_path: Path, kind: str, stored: torch.dtype, dtype: torch.dtype
) -> None:
    state = state_of(dtype=stored)
    write_weights(write_settings(tmp_path, settings_of(SMALL)), state, kind)
    got = read_backbone(tmp_path, dtype).state_dict()
    assert_close(got, {name: tensor.to(dtype) for name, tensor in state.items()}, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_does_not_hang_on_its_files(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path, kind=kind)
    model = read_backbone(folder, torch.float32)
    for path in folder.glob("*model-*"):
        path.write_bytes(b"\0" * path.stat().st_size)
    assert_close(model.state_dict(), state_of(), rtol=0, atol=0)


@pytest.mark.parametrize("c", VARIANTS)
def test_a_loaded_model_gives_the_logits_of_the_model_that_was_saved(tmp_path: Path, c: BackboneConfig) -> None:
    ids = torch.randint(0, 50, (2, 20))
    assert_close(logits_of(read_backbone(folder_of(tmp_path, c), torch.float32), ids), logits_of(fresh(c), ids))


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_a_folder_saved_by_transformers_gives_its_logits(tmp_path: Path, family: str) -> None:
    transformers = importlib.import_module("transformers")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=family == "Qwen2",
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ids = torch.randint(0, 50, (2, 20))
    with torch.no_grad():
        expected = theirs(ids).logits
    assert_close(logits_of(read_backbone(tmp_path, torch.float32), ids), expected, atol=1e-5, rtol=1e-5)


def test_old_rotary_tables_are_ignored(tmp_path: Path) -> None:
    tables = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(8) for n in range(2)}
    write_weights(write_settings(tmp_path, settings_of(SMALL)), {**state_of(), **tables})
    assert_close(read_backbone(tmp_path, torch.float32).state_dict(), state_of(), rtol=0, atol=0)


@pytest.mark.parametrize("lacking", ["lm_head.weight", "model.embed_tokens.weight"])
def test_only_a_tied_head_may_be_left_out(tmp_path: Path, lacking: str) -> None:
    c = replace(SMALL, tied=True)
    state = {name: tensor for name, tensor in state_of(c).items() if name != lacking}
    folder = write_weights(write_settings(tmp_path, settings_of(c)), state)
    if lacking == "model.embed_tokens.weight":
        with pytest.raises(DataError, match=r"model\.embed_tokens\.weight \(50, 64\) missing"):
            read_backbone(folder, torch.float32)
    else:
        model = read_backbone(folder, torch.float32)
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_refused(tmp_path: Path) -> None:
    write_weights(write_settings(tmp_path, settings_of(SMALL), tie_word_embeddings=True), state_of())
    with pytest.raises(DataError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        read_backbone(tmp_path, torch.float32)


# ------------------------------------------------------------------------------------------------ refusals


def short(state: dict[str, Tensor]) -> None:
    del state["model.layers.1.mlp.up_proj.weight"]


def extra(state: dict[str, Tensor]) -> None:
    state["model.layers.2.mlp.up_proj.weight"] = torch.zeros(96, 64)


def misshaped(state: dict[str, Tensor]) -> None:
    state["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(64, 64)


def other_rows(state: dict[str, Tensor]) -> None:
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = state[name][:40]


def biased(state: dict[str, Tensor]) -> None:
    state["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("harm", "reasons"),
    [
        (short, ["model.layers.1.mlp.up_proj.weight (96, 64) missing (1 faults)"]),
        (extra, ["model.layers.2.mlp.up_proj.weight (96, 64) not expected"]),
        (misshaped, ["model.layers.0.self_attn.k_proj.weight is (64, 64) instead of (32, 64)"]),
        (other_rows, ["model.embed_tokens.weight is (40, 64) instead of (50, 64)", "lm_head.weight is (40, 64)"]),
        (biased, ["model.layers.0.self_attn.q_proj.bias (64,) not expected"]),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, kind: str, harm: Callable[[dict[str, Tensor]], None], reasons: list[str]
) -> None:
    state = state_of()
    harm(state)
    write_weights(write_settings(tmp_path, settings_of(SMALL)), state, kind)
    with pytest.raises(DataError) as caught:
        read_backbone(tmp_path, torch.bfloat16)
    assert all(reason in str(caught.value) for reason in reasons)
    assert caught.value.at == str(tmp_path)


def test_a_name_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    path = folder / "pytorch_model-00002-of-00003.bin"
    torch.save({**torch.load(path), "model.embed_tokens.weight": torch.zeros(50, 64)}, path)
    with pytest.raises(DataError, match=r"model\.embed_tokens\.weight \(50, 64\) is in 2 files"):
        read_backbone(folder, torch.float32)


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    state = state_of()
    state["model.norm.weight"] = torch.ones(64, dtype=torch.int8)
    write_weights(write_settings(tmp_path, settings_of(SMALL)), state)
    with pytest.raises(DataError, match=r"model\.norm\.weight holds torch\.int8"):
        read_backbone(tmp_path, torch.float32)


def no_weight_is_placed(*_: object) -> None:
    raise AssertionError("a weight was read although a later file is bad")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_shard_is_named_before_a_weight_is_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, kind=kind)
    last = sorted(folder.glob("*-00003-of-00003.*"))[0]
    last.write_bytes(last.read_bytes()[:-100])
    monkeypatch.setattr("mio.pretrained.llama._place", no_weight_is_placed)
    with pytest.raises(DataError, match=f"{last.name} is damaged or cut short"):
        read_backbone(folder, torch.float32)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(MissingError, match=r"Weights are missing: pytorch_model-00002-of-00003\.bin"):
        read_backbone(folder, torch.float32)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_shard_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    torch.save({"model.norm.weight": Canary(tmp_path / "sprung")}, folder / "pytorch_model-00003-of-00003.bin")
    with pytest.raises(DataError, match=r"pytorch_model-00003-of-00003\.bin is no file of tensors"):
        read_backbone(folder, torch.float32)
    assert not (tmp_path / "sprung").exists()


# ------------------------------------------------------------------------------------------------ memory


PEAK = """
import sys, torch
from pathlib import Path
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import quantize_linears
from mio.pretrained import weights
from mio.pretrained.llama import read_backbone

def high() -> int:
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

with torch.device("meta"):
    quantize_linears(Backbone(BackboneConfig(9, 1, 8, 1, 1, 8, 8)), 8)  # what torch imports for it is no weight
weights.MAPPED = 4 << 20
before = high()
read_backbone(Path(sys.argv[1]), torch.bfloat16, eval(sys.argv[2]))
print(high() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(("kind", "bits"), [("bin", None), ("safetensors", 8)])
def test_never_two_copies_are_held(tmp_path: Path, kind: str, bits: Bits | None) -> None:
    c = BackboneConfig(512, 6, 512, 8, 2, 64, 2048, 10_000.0, positions=64)
    folder = write_settings(write_weights(tmp_path, Backbone(c).state_dict(), kind, 1), settings_of(c))
    stored = sum(p.stat().st_size for p in folder.glob("*model.*"))  # fp32, 95 MB
    command = [sys.executable, "-c", PEAK, str(folder), str(bits)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finished = stored // 2 if bits is None else stored // 4
    assert grown < 1.15 * finished + (30 << 20)


# ------------------------------------------------------------------------------------------------ quantization


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("c", VARIANTS)
def test_weights_quantized_as_they_stream_are_those_quantized_afterwards(
    tmp_path: Path, c: BackboneConfig, bits: Bits, kind: str
) -> None:
    got = read_backbone(folder_of(tmp_path, c, kind), torch.float32, bits)
    expected = fresh(c)
    quantize_linears(expected, bits)
    assert_close(got.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert not any(t.is_meta for t in got.state_dict().values())
    assert isinstance(got.model.get_submodule("layers.0.self_attn.q_proj"), QuantizedLinear)
    assert type(got.lm_head) is nn.Linear


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.03), (4, 0.4)])
def test_quantized_logits_stay_near(tmp_path: Path, bits: Bits, bound: float) -> None:
    folder, ids = folder_of(tmp_path), torch.randint(0, 50, (2, 20))
    exact = logits_of(read_backbone(folder, torch.float32), ids)
    for dtype in (torch.float32, torch.bfloat16):
        got = logits_of(read_backbone(folder, dtype, bits), ids).float()
        assert (got - exact).norm() / exact.norm() < bound


# ------------------------------------------------------------------------------------------------ vocabulary


@pytest.mark.parametrize("how", ["mean", "normal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_old_rows_keep_every_bit_and_new_ones_are_appended(how: Any, dtype: torch.dtype, tied: bool) -> None:
    model = fresh(replace(SMALL, tied=tied)).to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert extend_vocabulary(model, 80, how, 0) is model
    after = model.state_dict()
    assert model.config == replace(SMALL, tied=tied, vocabulary=80)
    for name, old in before.items():
        new = after[name]
        assert new.dtype == dtype and len(new) == (80 if len(old) == 50 else len(old))
        assert_close(new[: len(old)], old, rtol=0, atol=0)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert torch.equal(model.lm_head.weight[50:], model.model.embed_tokens.weight[50:]) == tied
    assert logits_of(model, torch.tensor([[3, 79]])).shape == (1, 2, 80)


def test_old_ids_keep_their_logits() -> None:
    model, ids = fresh(), torch.randint(0, 50, (1, 20))
    before = logits_of(model, ids)
    assert_close(logits_of(extend_vocabulary(model, 80, "mean", 0), ids)[..., :50], before)


def test_mean_rows_lie_near_the_mean_and_differ() -> None:
    model = fresh(replace(SMALL, vocabulary=2000))
    old = model.lm_head.weight.detach().clone()
    new = extend_vocabulary(model, 4000, "mean", 0).lm_head.weight.detach()[2000:]
    assert_close(new.mean(0), old.mean(0), atol=0.01 * float(old.std()), rtol=0)
    assert_close(new.std(0), 0.1 * old.std(0), rtol=0.1, atol=0)
    assert len(new.unique(dim=0)) == 2000


def test_normal_rows_are_drawn_as_the_first_ones_were() -> None:
    new = extend_vocabulary(fresh(), 2050, "normal", 0).model.embed_tokens.weight.detach()[50:]
    assert abs(float(new.mean())) < 1e-3
    assert float(new.std()) == pytest.approx(0.02, rel=0.02)


def test_new_rows_follow_from_the_seed() -> None:
    grown = [extend_vocabulary(fresh(), 60, "mean", seed).state_dict() for seed in (1, 1, 2)]
    assert_close(grown[0], grown[1], rtol=0, atol=0)
    assert not torch.equal(grown[0]["lm_head.weight"], grown[2]["lm_head.weight"])


def test_an_extended_model_trains_all_its_rows() -> None:
    model = extend_vocabulary(fresh(), 60, "normal", 0)
    model.lm_head(model.model.embed_tokens(torch.arange(60))).sum().backward()
    for weight in (model.lm_head.weight, model.model.embed_tokens.weight):
        assert weight.grad is not None and weight.grad.shape == (60, 64)


def test_a_vocabulary_does_not_shrink() -> None:
    with pytest.raises(MioError, match="Cannot shrink a vocabulary of 50 ids to 49"):
        extend_vocabulary(fresh(), 49, "mean", 0)
    assert_close(extend_vocabulary(fresh(), 50, "mean", 0).state_dict(), state_of(), rtol=0, atol=0)
