"""train/adapters.py: frozen is frozen to the bit, merged is unmerged, and what is saved loads on stock models."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_backbone import hugging_face
from torch import Tensor
from torch.testing import assert_close

from mio.layers import Batch, Segments
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import Bits, QuantizedLinear, quantize_linears
from mio.train.adapters import TARGETS, Lora, adapt, load_adapters
from mio.train.loop import Fit, fit
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim
from mio.types import MissingError

V, FIRST = 30, 24  # ids from 24 on are new
IDS = torch.tensor([3, 24, 29, 7, 25, 11, 28, 2])
LORA = Lora(2, 4.0, first_row=FIRST)


def fresh(tied: bool) -> Backbone:
    torch.manual_seed(0)
    model = Backbone(BackboneConfig(V, 2, 16, 4, 2, 4, 24, 10_000.0, positions=64, tied=tied))
    for parameter in model.parameters():
        parameter.data *= 5 if parameter.ndim > 1 else 1
    return model


def batch() -> Batch:
    places = torch.arange(len(IDS))
    return Batch(IDS, places, Segments.of([len(IDS)]), places[:-1], IDS[1:], torch.zeros_like(IDS[1:]))


def train(model: Backbone, steps: int = 3) -> list[float]:
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(learned, 0.05, weight_decay=0.1), []
    for _ in range(steps):
        loss = next_token_loss(model, batch(), ("text",))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def logits(model: Backbone) -> Tensor:
    return model.logits(model(IDS, torch.arange(len(IDS)), Segments.of([len(IDS)])))


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("tied", [True, False])
def test_new_adapters_change_nothing(tied: bool) -> None:
    expected = logits(fresh(tied))
    assert_close(logits(adapt(fresh(tied), LORA).backbone), expected, rtol=0, atol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_training_changes_no_bit_of_what_is_frozen(tied: bool) -> None:
    model = adapt(fresh(tied), LORA).backbone
    frozen = {n: digest(p) for n, p in model.named_parameters() if not p.requires_grad}
    learned = {n: digest(p) for n, p in model.named_parameters() if p.requires_grad}
    losses = train(model, 6)
    after = {n: digest(p) for n, p in model.named_parameters()}
    assert {n: after[n] for n in frozen} == frozen
    assert all(after[n] != old for n, old in learned.items())
    assert len(learned) == 2 * len(TARGETS) * model.config.layers + (1 if tied else 2)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("tied", [True, False])
def test_merged_logits_are_the_unmerged_ones_and_only_new_rows_of_the_tables_moved(tied: bool) -> None:
    adapted, before = adapt(fresh(tied), LORA), fresh(tied)
    train(adapted.backbone)
    expected = logits(adapted.backbone)
    merged = adapted.merge()
    assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)
    assert merged.state_dict().keys() == before.state_dict().keys()
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) == tied
    pairs = ((merged.model.embed_tokens, before.model.embed_tokens), (merged.lm_head, before.lm_head))
    for new, old in pairs:
        assert torch.equal(new.weight[:FIRST], old.weight[:FIRST])
        assert not torch.isclose(new.weight[FIRST + 1 :], old.weight[FIRST + 1 :]).all(1).any()


@pytest.mark.parametrize("tied", [True, False])
def test_saved_adapters_give_the_same_logits_on_a_new_copy_and_can_go_on_training(tied: bool, tmp_path: Path) -> None:
    adapted = adapt(fresh(tied), LORA)
    train(adapted.backbone)
    adapted.save(tmp_path)
    again = load_adapters(fresh(tied), tmp_path, train=True)
    assert_close(logits(again.backbone), logits(adapted.backbone), rtol=0, atol=0)
    first = {n for n, p in adapted.backbone.named_parameters() if p.requires_grad}
    assert {n for n, p in again.backbone.named_parameters() if p.requires_grad} == first
    assert train(again.backbone) == train(load_adapters(fresh(tied), tmp_path, train=True).backbone)


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_adapter_holds_its_matrices_and_new_rows_and_no_whole_table(tied: bool, tmp_path: Path) -> None:
    adapted = adapt(fresh(tied), LORA)
    adapted.save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    rows = [t.shape for n, t in tensors.items() if "lora" not in n]
    assert rows == [(V - FIRST, 16)] * (1 if tied else 2)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft 0.21 on transformers 5.24
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_adapter_loads_on_hugging_faces_model(tied: bool, tmp_path: Path) -> None:
    plain, adapted = fresh(tied), adapt(fresh(tied), LORA)
    train(adapted.backbone)
    adapted.save(tmp_path)
    stock = hugging_face("Llama", plain.config)
    stock.load_state_dict(plain.state_dict())
    tuned = importlib.import_module("peft").PeftModel.from_pretrained(stock, str(tmp_path))
    with torch.no_grad():
        assert_close(tuned(IDS[None]).logits[0], logits(adapted.backbone), rtol=1e-5, atol=1e-5)


@dataclass
class Tuning:
    module: Backbone

    def batch(self, number: int) -> Batch:
        return batch()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return next_token_loss(self.module, batch, ("text",))


@pytest.mark.parametrize("tied", [True, False])
def test_the_loop_trains_adapters_and_resumes_them_to_the_bit(tied: bool, tmp_path: Path) -> None:
    def tune(folder: Path, steps: int) -> Backbone:
        model = adapt(fresh(tied), LORA).backbone
        c = Fit(steps, Optim(0.05, warmup=0, floor=1.0), save_every=2, bf16=False)
        fit(Tuning(model), c, folder, "lora", folder / "metrics.jsonl")
        return model

    whole = tune(tmp_path / "whole", 4)
    tune(tmp_path / "broken", 2)
    assert_close(tune(tmp_path / "broken", 4).state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert not torch.equal(logits(whole), logits(fresh(tied)))


def test_without_new_rows_only_matrices_are_trained() -> None:
    model = adapt(fresh(True), Lora(2)).backbone
    assert all("lora" in n for n, p in model.named_parameters() if p.requires_grad)


def test_a_folder_without_adapters_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no adapters"):
        load_adapters(fresh(True), tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_learn_on_quantized_weights_that_keep_every_bit(bits: Bits, tmp_path: Path) -> None:
    """QLoRA: the floats that integers stand for learn the same; merging leaves those floats with the adapters in."""

    def quantized() -> Backbone:
        model = quantize_linears(fresh(True), bits)
        assert isinstance(model, Backbone)
        return model

    stood_for, plain = quantized(), fresh(True)
    for module, twin in zip(stood_for.modules(), plain.modules(), strict=True):
        if isinstance(module, QuantizedLinear) and isinstance(twin, torch.nn.Linear):
            twin.weight.data = module.dequantized(torch.float32)
    both = [adapt(model, LORA) for model in (stood_for, plain)]
    assert_close(logits(both[0].backbone), logits(both[1].backbone), rtol=1e-4, atol=1e-4)
    before = {n: digest(b) for n, b in both[0].backbone.named_buffers()}
    for adapted in both:
        start_alike(adapted.backbone)
    assert train(both[0].backbone) == pytest.approx(train(both[1].backbone), rel=1e-4)
    assert {n: digest(b) for n, b in both[0].backbone.named_buffers()} == before
    both[0].save(tmp_path)
    again = load_adapters(quantized(), tmp_path)
    expected = logits(both[0].backbone)
    assert_close(logits(again.backbone), expected, rtol=0, atol=0)
    merged = both[0].merge()
    assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert merged.state_dict().keys() == fresh(True).state_dict().keys()


def start_alike(model: Backbone) -> None:
    """Two models draw their adapters one after the other."""
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            torch.nn.init.normal_(parameter, std=0.2)
