"""train/bottleneck.py: new ones change nothing, what is frozen keeps its bits, what is saved comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_adapters import digest, fresh, logits, train
from torch.testing import assert_close

from mio.checkpoint import load_tensors
from mio.models.backbone import Backbone, BackboneConfig
from mio.train.bottleneck import Bottleneck, insert, load_bottlenecks, save_bottlenecks
from mio.types import DataError, MioError, MissingError

SMALL = Bottleneck(4)


def test_new_bottlenecks_change_nothing_and_only_they_learn() -> None:
    model = insert(fresh(True), SMALL)
    assert_close(logits(model), logits(fresh(True)), rtol=0, atol=0)
    frozen = {n: digest(p) for n, p in model.named_parameters() if not p.requires_grad}
    learned = {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(frozen) == len(list(fresh(True).parameters())) and len(learned) == 4 * 2 * model.config.layers
    losses = train(model, 6)
    assert losses[-1] < 0.9 * losses[0]
    assert {n: digest(p) for n, p in model.named_parameters() if n in frozen} == frozen


def test_saved_bottlenecks_give_the_same_logits_on_a_new_copy_and_can_go_on_training(tmp_path: Path) -> None:
    model = insert(fresh(True), SMALL)
    train(model)
    save_bottlenecks(model, tmp_path / "b")
    shapes = {tuple(t.shape) for t in load_tensors(tmp_path / "b" / "model.safetensors").values()}
    assert shapes == {(4, 16), (4,), (16, 4), (16,)}  # and no weight of the backbone
    again = load_bottlenecks(fresh(True), tmp_path / "b")
    assert_close(logits(again), logits(model), rtol=0, atol=0)
    assert train(again) == train(load_bottlenecks(fresh(True), tmp_path / "b"))
    assert not torch.equal(logits(again), logits(model))


def test_bottlenecks_of_another_shape_and_none_and_two_are_refused(tmp_path: Path) -> None:
    model = insert(fresh(True), SMALL)
    save_bottlenecks(model, tmp_path / "b")
    with pytest.raises(DataError, match="do not fit"):
        load_bottlenecks(Backbone(BackboneConfig(30, 1, 16, 4, 2, 4, 24)), tmp_path / "b")
    with pytest.raises(MissingError):
        load_bottlenecks(fresh(True), tmp_path / "none")
    with pytest.raises(MioError, match="already"):
        insert(model, SMALL)
