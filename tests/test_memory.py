"""train/memory.py: a step that does not fit is done again in halves, with the same gradients; or says what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from test_golden import KINDS, V, Walks
from torch import Tensor
from torch.testing import assert_close
from toys import Toy, run, state, toy

from mio.checkpoint import read_json
from mio.data.loader import collate
from mio.layers import Batch
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train.loop import Fit, fit
from mio.train.memory import out_of_memory, pieces
from mio.train.optim import Optim
from mio.types import ResourceError

LENGTHS = (3, 7, 7, 20, 40)  # of a batch of Walks


def exhaust() -> None:
    """Ask the allocator for more than any machine has."""
    torch.empty(1 << 60, dtype=torch.uint8)


@dataclass
class Narrow(Walks):
    """Batches of more than `room` tokens do not fit: memory runs out once their gradients are half formed. `seen`:
    tokens of those that did."""

    room: int = 1 << 30
    seen: list[int] = field(default_factory=list)

    def halves(self, batch: Batch) -> tuple[Batch, ...]:
        return batch.halves()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().losses(batch)
        if len(batch.ids) > self.room:
            (losses["loss"] * 3).backward()  # what a failed pass leaves must not count
            exhaust()
        self.seen.append(len(batch.ids))
        return losses


def train(folder: Path, room: int = 1 << 30, steps: int = 2) -> Narrow:
    torch.manual_seed(2)
    objective = Narrow(Backbone(BackboneConfig(V, 1, 16, 2, 1, 8, 24, 10_000.0, positions=64, tied=True)), room)
    c = Fit(steps, Optim(1e-2, warmup=0), log_every=1, save_every=1, bf16=False, parts=2)
    fit(objective, c, folder, "narrow", folder / "metrics.jsonl")
    return objective


def gradients(objective: Narrow) -> dict[str, Tensor]:
    """Of the last step."""
    return {n: p.grad for n, p in objective.module.named_parameters() if p.grad is not None}


def test_less_memory_means_smaller_batches_and_the_same_gradients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, narrow = train(tmp_path / "whole"), train(tmp_path / "narrow", 40)
    assert narrow.seen == [37, 40] * 4  # of both parts of both steps
    assert_close(gradients(narrow), gradients(whole), rtol=1e-4, atol=1e-6)
    assert max(float(g.abs().max()) for g in gradients(whole).values()) > 0.01
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "narrow")]
    losses = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert capsys.readouterr().err.count("Memory ran out in step 1: batches go in 2 parts from now on.") == 1


def test_a_resumed_training_goes_on_with_smaller_batches(tmp_path: Path) -> None:
    train(tmp_path, 40, steps=1)
    assert read_json(state(tmp_path) / "step.json")["cuts"] == 1
    assert train(tmp_path).seen == [37, 40] * 2  # it does not try larger ones again


def test_a_sample_that_does_not_fit_alone_ends_the_training_with_words(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be cut further") as caught:
        train(tmp_path, 39)
    assert (caught.value.exit_code, "mio plan" in caught.value.fix) == (5, True)


def test_an_objective_that_cannot_halve_its_batches_ends_with_words(tmp_path: Path) -> None:
    objective = toy()
    objective.losses = lambda batch: exhaust() or {}  # type: ignore[method-assign]
    with pytest.raises(ResourceError, match="Memory ran out"):
        run(objective, tmp_path / "x")


def test_other_errors_are_not_taken_for_it(tmp_path: Path) -> None:
    objective = toy()
    objective.losses = lambda batch: Toy.losses(objective, batch[:, :2])  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(objective, tmp_path / "x")


def test_what_allocators_raise_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        exhaust()
    assert out_of_memory(caught.value) and out_of_memory(torch.OutOfMemoryError()) and out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("cuts", range(5))
def test_pieces_hold_every_sample_once_and_whole(cuts: int) -> None:
    rng = np.random.default_rng(0)
    batch = collate([TokenSequence(rng.integers(0, V, n), rng.random(n) < 0.6) for n in LENGTHS], KINDS)
    parts = list(pieces(Narrow(Backbone(BackboneConfig(V, 1, 8, 1, 1, 8, 8))), batch, cuts))
    assert len(parts) == (1, 2, 3, 4, 5)[cuts]
    assert sum((part.segments.lengths for part in parts), ()) == batch.segments.lengths
    starts = np.cumsum([0, *(len(part.ids) for part in parts[:-1])])
    for name in ("ids", "positions", "targets", "kinds"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert torch.equal(torch.cat([p.where + int(s) for p, s in zip(parts, starts, strict=True)]), batch.where)
