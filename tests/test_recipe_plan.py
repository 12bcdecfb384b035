"""recipe/plan.py, train/footprint.py, cli/plan.py: what a training will take, held against what one takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mio.checkpoint import read_json
from mio.cli import main
from mio.cli.plan import lengths_of
from mio.data.loader import Loader
from mio.data.plan import Mix, Plan, Slot, write_plan
from mio.data.store import Record, Store, write_store
from mio.models.backbone import BackboneConfig
from mio.pretrained.memory import parameters
from mio.recipe.plan import Devices, operations, plan, resident, vocabulary_size
from mio.recipe.tree import Stage
from mio.recipes.tiny import tiny
from mio.sequence import TokenSequence
from mio.train.footprint import footprint
from mio.train.loop import Fit
from mio.train.optim import Optim

SMALL = BackboneConfig(50, 2, 16, 2, 1, 8, 24, positions=64, tied=True)
STAGE = Stage("one", "pretrain", {"caption": 1.0}, Fit(10, parts=2), tokens=256)
ROOMY = Devices(1, 10**12, 1e9)


def test_weights_and_two_moments_are_kept_and_a_step_count_for_each_tensor() -> None:
    tensors = 1 + 9 * SMALL.layers + 1
    assert footprint(SMALL, Optim(), (9, 5)).kept == 12 * parameters(SMALL) + 4 * tensors


def test_muon_keeps_one_moment_of_hidden_matrices() -> None:
    hidden = SMALL.layers * (16 * 16 * 2 + 2 * 8 * 16 + 3 * 16 * 24)
    spared = footprint(SMALL, Optim(), (9, 5)).kept - footprint(SMALL, Optim(muon=True), (9, 5)).kept
    assert spared == 4 * hidden + 4 * 7 * SMALL.layers


def test_longer_packs_and_a_second_pack_take_more() -> None:
    one, long, two = (footprint(SMALL, Optim(), n, p).peak for n, p in (((64,), 1), ((64, 64), 1), ((64,), 2)))
    assert one < long and one < two <= one + 4 * parameters(SMALL)


MEASURE = """
import json, resource, sys, torch
torch.set_num_threads(1)
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train.footprint import pack
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim, optimizers

def train(c, optim, lengths, parts):
    model = Backbone(c)
    learning = optimizers(model, optim)
    for _ in range(2):
        for _ in range(parts):
            next_token_loss(model, pack(lengths), ("text",))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in learning:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

c, muon, lengths, parts = json.loads(sys.argv[1])
train(BackboneConfig(**c), Optim(muon=muon), tuple(lengths), parts)
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("c", "muon", "lengths", "parts"),
    [
        (BackboneConfig(16384, 2, 320, 5, 5, 64, 864, tied=True), False, (80, 300, 660), 1),
        (BackboneConfig(4722, 3, 256, 4, 2, 64, 640, tied=True), True, (64, 64, 64, 300, 400, 500), 2),
        (BackboneConfig(16384, 4, 512, 8, 8, 64, 1376, tied=True), False, (78, 80, 560, 1110), 1),
    ],
)
def test_memory_is_within_a_tenth_of_what_a_process_takes(
    c: BackboneConfig, muon: bool, lengths: tuple[int, ...], parts: int
) -> None:
    words = json.dumps([vars(c), muon, lengths, parts])
    done = subprocess.run([sys.executable, "-c", MEASURE, words], capture_output=True, text=True, check=True)
    assert resident(footprint(c, Optim(muon=muon), lengths, parts).peak) == pytest.approx(int(done.stdout), rel=0.1)


def test_operations_are_six_for_a_weight_and_token_and_grow_with_squared_lengths() -> None:
    one, two = operations(SMALL, (32,)), operations(SMALL, (32, 32))
    assert two == 2 * one
    assert operations(SMALL, (64,)) - two == 6 * SMALL.layers * 16 * (64**2 - 2 * 32**2)
    assert one == 6 * parameters(SMALL) * 32 + 6 * SMALL.layers * 16 * 32**2


def test_the_vocabulary_of_the_shipped_model_is_known_before_training() -> None:
    shipped = read_json(Path(str(files("mio") / "assets" / "tiny")) / "config.json")
    assert vocabulary_size(tiny()) == shipped["backbone"]["vocabulary"]


def test_a_plan_adds_up_its_stages() -> None:
    recipe = replace(
        tiny(), backbone=replace(SMALL, layers=1, vocabulary=0), stages=(STAGE, replace(STAGE, name="two"))
    )
    made = plan(recipe, ROOMY, {})
    assert [(s.name, s.steps, s.tokens, s.fill, s.advice) for s in made.stages] == [
        ("one", 10, 5120, None, ""),
        ("two", 10, 5120, None, ""),
    ]
    assert made.parameters == parameters(replace(SMALL, layers=1, vocabulary=vocabulary_size(recipe)))
    assert made.hours == pytest.approx(2 * made.stages[0].hours)


def test_two_ranks_halve_the_hours_and_three_share_no_step_of_two_parts() -> None:
    recipe = replace(tiny(), backbone=replace(SMALL, layers=1, vocabulary=0), stages=(STAGE,))
    one, two, three = (plan(recipe, replace(ROOMY, count=n), {}).stages[0] for n in (1, 2, 3))
    assert two.hours == pytest.approx(one.hours / 2)
    assert three == one


def test_prepared_samples_give_exact_tokens_and_fill() -> None:
    stage = replace(STAGE, tokens=110, fit=Fit(3, parts=1))
    recipe = replace(tiny(), backbone=replace(SMALL, layers=1, vocabulary=0), stages=(stage,))
    made = plan(recipe, ROOMY, {"one": [[20, 30, 60]] * 3}).stages[0]
    assert (made.tokens, made.fill) == (330, 1.0)


def test_the_packs_of_a_planned_stage_have_the_lengths_of_its_batches(tmp_path: Path) -> None:
    samples = [Record(TokenSequence(np.arange(5 + n), np.ones(5 + n, bool)), str(n), "name", "x") for n in range(9)]
    write_store(tmp_path / "store", samples, "made")
    store, kinds = Store.open(tmp_path / "store", "made"), np.zeros(20, np.int64)
    write_plan(tmp_path / "plan", store, Mix({"all": Slot(1, {"name": 1.0})}, tokens=32), kinds, 7)
    loader = Loader(store, Plan.open(tmp_path / "plan"), kinds)
    batches = [loader.batch(number).segments.lengths for number in range(7)]
    assert [tuple(sorted(pack)) for pack in lengths_of(loader)] == batches


def test_what_does_not_fit_is_told_the_mildest_change_that_does() -> None:
    recipe = replace(tiny(), backbone=replace(SMALL, layers=1, vocabulary=0), stages=(STAGE,))
    whole = plan(recipe, ROOMY, {}).stages[0].memory
    tight = [plan(recipe, Devices(1, m, 1e9), {}).stages[0].advice for m in (whole, whole - 1, 1)]
    assert tight[0] == ""
    assert tight[1] == "tokens=128, fit.parts=4: the same step in smaller packs"
    assert "narrower backbone" in tight[2]


def test_the_command_prints_a_line_for_each_stage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    changes = [
        "backbone.layers=1",
        "backbone.width=16",
        "backbone.hidden=24",
        "backbone.heads=2",
        "backbone.head_dim=8",
    ]
    words = [w for change in changes for w in ("--set", change)]
    assert main(["plan", "tiny", "--memory", "0.3", "--rate", "100", *words]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1 + len(tiny().stages)
    assert "at most" in out[1] and "does not fit" in out[1]
    assert main(["plan", "tiny", "--rate", "100", "--memory", "8", "--json", *words]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [s["name"] for s in data["stages"]] == [s.name for s in tiny().stages]
