"""recipes/mio.py: twenty losses of each of the laptop's four stages, one after the other, on data made of rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mio.data.loader import Loader
from mio.data.plan import Plan, write_plan
from mio.data.store import Record, Store, write_store
from mio.models.backbone import Backbone, BackboneConfig
from mio.recipe.language import LanguageObjective
from mio.recipes.mio import laptop
from mio.sequence import TokenSequence
from mio.train.loop import fit

V, KINDS = 60, ("text", "image", "speech")
OF = np.repeat([0, 1, 2], V // 3)  # kind of every id
GOLDEN = {
    "stage1-align": "4.214 4.124 4.097 3.92 3.837 3.858 3.883 3.593 3.535 3.599 "
    "3.657 3.322 3.256 3.45 3.479 3.115 3.042 3.279 3.311 2.9",
    "stage2-interleave": "3.583 3.242 3.479 3.438 3.39 3.098 3.323 3.279 3.241 2.997 "
    "3.165 3.129 3.107 2.913 3.07 3.009 3.003 2.828 2.955 2.913",
    "stage3-speech": "2.817 2.607 2.708 2.811 2.785 2.565 2.46 2.426 2.406 2.351 "
    "2.327 2.636 2.608 2.225 2.237 2.184 2.14 2.162 2.08 2.487",
    "sft": "2.377 2.349 2.248 2.296 2.398 2.231 2.804 2.604 2.225 2.546 "
    "2.705 2.484 1.93 2.067 2.075 2.546 2.404 2.038 2.308 2.532",
}


def records() -> Iterator[Record]:
    """Of every task that a stage names: ids of the kind that it speaks of go up by one or two."""
    for name in dict.fromkeys(name for stage in laptop().stages for name in shares(stage)):
        task, _, source = name.partition("/")
        kind = 2 if "speech" in task else int("image" in task or "picture" in task)
        rng = np.random.default_rng(len(name))
        for number in range(6):
            steps = rng.integers(1, 3, rng.integers(8, 40)) if kind else rng.integers(1, 5, 24)
            ids = kind * V // 3 + (rng.integers(V) + np.cumsum(steps)) % (V // 3)
            yield Record(TokenSequence(ids, np.ones(len(ids), bool)), f"{name}{number}", task, source)


def shares(stage: object) -> list[str]:
    slots = stage.slots.values()  # type: ignore[attr-defined]
    return [*stage.shares, *(name for slot in slots for name in slot.shares)]  # type: ignore[attr-defined]


def curves(folder: Path) -> dict[str, list[float]]:
    """Loss of every step by stage; weights are drawn by numpy, and handed over from stage to stage."""
    write_store(folder / "store", records(), "0" * 16)
    store = Store.open(folder / "store", "0" * 16)
    model = Backbone(BackboneConfig(V, 1, 32, 4, 2, 8, 48, 10_000.0, positions=64, tied=True))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.05, parameter.shape)))
    for number, stage in enumerate(laptop().stages):
        small = replace(stage, tokens=128, fit=replace(stage.fit, steps=20, parts=2, log_every=1, bf16=False))
        write_plan(folder / stage.name, store, small.mix(number, 64), OF, 40)
        loader = Loader(store, Plan.open(folder / stage.name), OF)
        objective = LanguageObjective(model, loader, KINDS, small, {})
        fit(objective, small.fit, folder / "work" / stage.name, stage.name, folder / "metrics.jsonl")
    found: dict[str, list[float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        found.setdefault(json.loads(line)["stage"], []).append(json.loads(line)["loss"])
    return found


def test_every_stages_first_twenty_losses_are_the_golden_ones(tmp_path: Path) -> None:
    found = curves(tmp_path)
    assert list(found) == list(GOLDEN) == [stage.name for stage in laptop().stages]
    for name, losses in GOLDEN.items():
        assert found[name] == pytest.approx([float(loss) for loss in losses.split()], rel=5e-3), name
    assert found["stage1-align"][-1] < 0.8 * found["stage1-align"][0]
    assert found["stage2-interleave"][0] > 1.05 * found["stage1-align"][-1]  # another mixture lifts the loss
