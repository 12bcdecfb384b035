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
    "stage1-align": "4.199 4.13 4.026 3.977 3.844 3.814 3.697 3.676 3.547 3.529 "
    "3.431 3.417 3.312 3.295 3.216 3.21 3.107 3.108 3.018 3.035",
    "stage2-interleave": "3.347 3.427 3.247 3.338 3.171 3.237 3.092 3.161 3.024 3.083 "
    "2.963 3.014 2.918 2.952 2.86 2.892 2.816 2.856 2.757 2.795",
    "stage3-speech": "2.57 2.667 2.626 2.417 2.377 2.505 2.467 2.273 2.223 2.372 "
    "2.324 2.142 2.109 2.256 2.235 2.054 2.009 2.171 2.141 1.952",
    "sft": "2.22 2.171 2.237 2.628 2.344 2.549 1.977 2.264 2.166 2.34 "
    "2.136 2.364 2.105 2.016 2.008 2.347 1.95 2.227 2.103 2.099",
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
        small = replace(stage, tokens=128, fit=replace(stage.fit, steps=20, parts=4, log_every=1, bf16=False))
        write_plan(folder / stage.name, store, small.mix(number, 64), OF, 80)
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
