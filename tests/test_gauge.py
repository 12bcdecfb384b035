"""train/gauge.py: held-out loss ends a stage in time, keeps its best weights, and lifts text that fades."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, inf
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from toys import state

from mio.checkpoint import load_tensors, read_json
from mio.train.gauge import TEXT, Gauge, Judge
from mio.train.loop import Fit, Interrupted, fit
from mio.train.optim import Optim

LOG2 = 0.6931471805599453


@dataclass
class Drift:
    """One weight that learns towards 1; held-out loss is its distance from 0.3, text's grows with it. `lifted`: what
    it was told of text."""

    module: nn.Linear
    gauge: Gauge
    stop: int = -1
    lifted: list[float] = field(default_factory=list)
    names: tuple[str, ...] = (TEXT, "image")
    held_out: Mapping[str, Sequence[float]] = field(default_factory=lambda: {TEXT: [1.0], "mixture": [1.0, 3.0]})

    def batch(self, number: int) -> int:
        return number

    def losses(self, batch: int) -> dict[str, Tensor]:
        if batch == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": (self.module.weight - 1).abs().sum()}

    def sums(self, group: str, batch: float) -> dict[str, tuple[float, float]]:
        assert not torch.is_grad_enabled() and not self.module.training
        at = float(self.module.weight.detach())
        if group == TEXT:
            return {TEXT: (at * 10 * batch, 10.0 * batch)}
        return {"image": (abs(at - 0.3) * batch * 100, batch * 100)}

    def lift_text(self, factor: float) -> None:
        self.lifted.append(factor)


def train(folder: Path, gauge: Gauge, stop: int = -1, steps: int = 10) -> Drift:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    objective = Drift(module, gauge, stop)
    c = Fit(steps, Optim(0.1, warmup=0, floor=1, weight_decay=0), save_every=100, log_every=100, bf16=False)
    fit(objective, c, folder, "drift", folder / "metrics.jsonl")
    return objective


def looks(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "held-out image" in line]


def test_looks_are_logged_before_the_first_step_and_every_so_many(tmp_path: Path) -> None:
    objective = train(tmp_path, Gauge(every=4))
    assert [(line["step"], line["stage"]) for line in looks(tmp_path)] == [(0, "drift"), (4, "drift"), (8, "drift")]
    assert [line["held-out image"] for line in looks(tmp_path)] == pytest.approx([0.3, 0.1, 0.5], rel=1e-4)
    assert [line["text perplexity"] for line in looks(tmp_path)] == pytest.approx([1, exp(0.4), exp(0.8)], rel=1e-4)
    assert float(objective.module.weight.detach()) == pytest.approx(1.0, rel=1e-3)
    assert not (tmp_path / "best").exists()


def test_a_stage_without_a_gauge_never_looks(tmp_path: Path) -> None:
    train(tmp_path, Gauge())
    assert looks(tmp_path) == []


def test_patience_ends_the_stage_and_its_best_weights_are_kept(tmp_path: Path) -> None:
    objective = train(tmp_path, Gauge(every=1, patience=2, best=True))
    assert [line["step"] for line in looks(tmp_path)] == [0, 1, 2, 3, 4, 5]
    assert float(load_tensors(tmp_path / "best" / "model.safetensors")["weight"]) == pytest.approx(0.3, rel=1e-3)
    assert float(objective.module.weight.detach()) == pytest.approx(0.5, rel=1e-3)
    assert read_json(state(tmp_path) / "step.json")["step"] == 5
    again = train(tmp_path, Gauge(every=1, patience=2, best=True))
    assert (len(looks(tmp_path)), float(again.module.weight.detach())) == (
        6,
        pytest.approx(0.5, rel=1e-3),
    )  # it stays ended


def test_an_interrupted_stage_looks_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    gauge = Gauge(every=2, patience=2, fade=1.3)
    whole = train(tmp_path / "whole", gauge)
    with pytest.raises(Interrupted):
        train(tmp_path / "broken", gauge, stop=3)
    again = train(tmp_path / "broken", gauge)
    plain = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in looks(tmp_path / n)] for n in ("whole", "broken")
    ]
    assert plain[0] == plain[1]
    assert_close(again.module.weight, whole.module.weight, rtol=0, atol=0)
    assert again.lifted[-1] == whole.lifted[-1]


def test_text_that_fades_is_lifted_at_every_look_until_it_is_back(tmp_path: Path) -> None:
    objective = train(tmp_path, Gauge(every=2, fade=1.3, lift=2.0))
    assert [line["text weight"] for line in looks(tmp_path)] == [1, 1, 2, 4, 8, 16]  # perplexities e**(0, .2, .4, ...)
    assert objective.lifted[-1] == 16


def test_a_judge_counts_looks_since_the_best_and_lifts_above_the_line_only() -> None:
    judge = Judge(Gauge(every=1, patience=3, fade=2.0))
    found = [
        (judge.add({TEXT: text}, mean), judge.stale, judge.lifts, judge.over)
        for text, mean in ((1.0, 5.0), (1.0 + LOG2 - 1e-6, 4.0), (1.0 + LOG2 + 1e-6, 4.5), (0.5, 4.0), (0.5, 6.0))
    ]
    assert found == [
        (True, 0, 0, False),
        (True, 0, 0, False),
        (False, 1, 1, False),
        (False, 2, 1, False),
        (False, 3, 1, True),
    ]
    assert Judge.of(judge.c, json.loads(json.dumps(judge.facts()))) == judge
    assert Judge.of(judge.c, {}).best == inf
