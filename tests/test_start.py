"""recipe/start.py, Recipe.released: a training may begin at a text model and with the tokenizers of a release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fabricate_llama import SMALL, folder_of
from fabricate_release import fabricate_release
from torch.testing import assert_close

from mio.data.store import Record, write_store
from mio.models.backbone import Backbone
from mio.pipeline import load
from mio.pretrained.llama import read_backbone
from mio.pretrained.release import read_processor
from mio.recipe import Run, Stage
from mio.recipe.language import language_stages, processor
from mio.recipe.start import ROWS, start_from
from mio.recipe.tree import TOKENIZERS
from mio.recipes.tiny import tiny
from mio.train.loop import Fit
from mio.train.optim import Optim
from mio.types import DataError, Document, Text


@pytest.mark.parametrize("tied", [False, True])
def test_old_ids_keep_their_rows_and_new_ones_begin_around_the_mean(tmp_path: Path, tied: bool) -> None:
    folder = folder_of(tmp_path, replace(SMALL, tied=tied))
    theirs = read_backbone(folder, torch.float32).state_dict()
    model = Backbone(replace(SMALL, tied=tied, vocabulary=5000, positions=32))
    start_from(model, folder)
    for name, tensor in model.state_dict().items():
        assert_close(tensor[: len(theirs[name])], theirs[name], rtol=0, atol=0)
        if name in ROWS:
            new, old = tensor[SMALL.vocabulary :], theirs[name]
            assert_close(new.mean(0), old.mean(0), rtol=0, atol=0.02 * float(old.std()))
            assert_close(new.std(0), 0.1 * old.std(0), rtol=0.1, atol=0)


def test_another_shape_or_too_many_ids_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with pytest.raises(DataError, match="another shape"):
        start_from(Backbone(replace(SMALL, hidden=64)), folder)
    with pytest.raises(DataError, match="50 ids; this vocabulary has 40"):
        start_from(Backbone(replace(SMALL, vocabulary=40)), folder)


def test_a_run_from_a_release_trains_no_tokenizer_and_its_model_speaks_with_the_releases(tmp_path: Path) -> None:
    release = fabricate_release(tmp_path / "MIO-7B-Base")
    theirs = read_processor(release, torch.float32)
    start = folder_of(tmp_path, replace(SMALL, vocabulary=theirs.text.size))
    texts = [Record(theirs.sequence(Document((Text("a b"),))), f"text{n}", "text") for n in range(4)]
    write_store(tmp_path / "store", texts, theirs.fingerprint)
    fit = Fit(1, Optim(lr=0.0, weight_decay=0.0))
    stage = Stage("one", str(tmp_path / "store"), {"text": 1.0}, fit, tokens=64)
    recipe = replace(tiny(), backbone=SMALL, stages=(stage,), released=str(release), start=str(start))
    run = Run(recipe, Path(), tmp_path / "run")
    assert all(run.done(name) for name in TOKENIZERS) and not run.done("prepare")
    assert processor(run).fingerprint == theirs.fingerprint
    language_stages(run)
    model = load(run.out / "model")
    assert (model.processor.fingerprint, model.processor.vocab) == (theirs.fingerprint, theirs.vocab)
    ended = model.backbone.state_dict()
    for name, tensor in read_backbone(start, torch.float32).state_dict().items():
        assert_close(ended[name][: len(tensor)], tensor, rtol=1e-2, atol=1e-2)  # stored in bf16
