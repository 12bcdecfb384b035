"""Recipe.released, Recipe.init: a training may begin at a text model and with the tokenizers of a release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fabricate_llama import SMALL, folder_of
from fabricate_release import fabricate_release
from torch.testing import assert_close

from mio.checkpoint import load_tensors
from mio.data.store import Record, write_store
from mio.pipeline import load
from mio.pretrained.llama import read_backbone
from mio.pretrained.release import read_processor
from mio.recipe import Run, Stage
from mio.recipe.language import language_stages, processor
from mio.recipe.tree import TOKENIZERS
from mio.recipes.tiny import tiny
from mio.train.loop import Fit
from mio.train.optim import Optim
from mio.types import Document, Text


@pytest.mark.slow
def test_two_sharded_ranks_leave_the_model_that_one_process_leaves(tmp_path: Path) -> None:
    release = fabricate_release(tmp_path / "MIO-7B-Base")
    theirs = read_processor(release, torch.float32)
    start = folder_of(tmp_path, replace(SMALL, vocabulary=theirs.text.size))
    texts = [Record(theirs.sequence(Document((Text("a b"),))), f"text{n}", "text") for n in range(4)]
    write_store(tmp_path / "store", texts, theirs.fingerprint)
    stage = Stage("one", str(tmp_path / "store"), {"text": 1.0}, Fit(3, Optim(lr=1e-2, muon=True), parts=2), tokens=64)
    recipe = replace(tiny(), backbone=SMALL, stages=(stage, replace(stage, name="two")), init=str(start))
    run = Run(replace(recipe, released=str(release)), Path(), tmp_path / "whole")
    for each in (run, replace(run, out=tmp_path / "sharded", workers=2, sharded=True)):
        language_stages(each)
    assert (tmp_path / "sharded" / "work" / "two" / "state" / "00000003" / "module.1-of-2.safetensors").is_file()
    whole, shards = (load_tensors(tmp_path / n / "stages" / "two" / "model.safetensors") for n in ("whole", "sharded"))
    assert_close(shards, whole, rtol=1e-3, atol=1e-4)
    assert load(tmp_path / "sharded" / "model").backbone.config == load(tmp_path / "whole" / "model").backbone.config


def test_a_run_from_a_release_trains_no_tokenizer_and_its_model_speaks_with_the_releases(tmp_path: Path) -> None:
    release = fabricate_release(tmp_path / "MIO-7B-Base")
    theirs = read_processor(release, torch.float32)
    start = folder_of(tmp_path, replace(SMALL, vocabulary=theirs.text.size))
    texts = [Record(theirs.sequence(Document((Text("a b"),))), f"text{n}", "text") for n in range(4)]
    write_store(tmp_path / "store", texts, theirs.fingerprint)
    fit = Fit(1, Optim(lr=0.0, weight_decay=0.0))
    stage = Stage("one", str(tmp_path / "store"), {"text": 1.0}, fit, tokens=64)
    recipe = replace(tiny(), backbone=SMALL, stages=(stage,), released=str(release), init=str(start))
    run = Run(recipe, Path(), tmp_path / "run")
    assert all(run.done(name) for name in TOKENIZERS) and not run.done("prepare")
    assert processor(run).fingerprint == theirs.fingerprint
    language_stages(run)
    model = load(run.out / "model")
    assert (model.processor.fingerprint, model.processor.vocab) == (theirs.fingerprint, theirs.vocab)
    ended = model.backbone.state_dict()
    for name, tensor in read_backbone(start, torch.float32).state_dict().items():
        assert_close(ended[name][: len(tensor)], tensor, rtol=1e-2, atol=1e-2)  # stored in bf16
