"""train/loop.py, optim.py: a run that was stopped ends where an unbroken one does, to the bit."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from toys import STEPS, Net, Toy, run, toy, weights

from mio.data.loader import collate
from mio.layers import Batch
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.train.loop import Fit, Interrupted, fit
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim, adamw, hidden_matrices, optimizer_tensors, optimizers, rate, restore_optimizers
from mio.train.parallel import Task, run_tasks
from mio.types import DataError


@pytest.mark.parametrize("stop", sorted(np.random.default_rng(7).choice(STEPS - 1, 3, replace=False).tolist()))
def test_a_stopped_and_resumed_run_is_bit_equal_to_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    whole = run(toy(), tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"after step {stop + 1}"):
        run(toy(stop=stop), tmp_path / "broken")
    torch.manual_seed(99)  # nothing of the first process is left
    again = run(Toy(Net()), tmp_path / "broken")
    assert again.seen == list(range(stop + 1, STEPS))
    assert again.chance == whole.chance[stop + 1 :]
    assert_close(weights(again), weights(whole), rtol=0, atol=0)


def test_a_crash_resumes_from_the_last_save(tmp_path: Path) -> None:
    whole, crashing = run(toy(), tmp_path / "whole"), toy()
    crashing.losses = lambda batch: 1 / 0 if crashing.seen[-1] == 8 else Toy.losses(crashing, batch)  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run(crashing, tmp_path / "broken")
    again = run(Toy(Net()), tmp_path / "broken")
    assert again.seen == list(range(5, STEPS))
    assert_close(weights(again), weights(whole), rtol=0, atol=0)


def test_a_finished_run_is_loaded_and_not_repeated(tmp_path: Path) -> None:
    whole = run(toy(), tmp_path / "x")
    again = run(Toy(Net()), tmp_path / "x")
    assert again.seen == []
    assert_close(weights(again), weights(whole), rtol=0, atol=0)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    run(toy(), tmp_path / "x", steps=80, save_every=80)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        run(toy(stop=2), tmp_path / "x")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_metrics_are_one_json_object_per_line_with_means_between_lines(tmp_path: Path) -> None:
    run(toy(), tmp_path / "x", steps=10)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 10]
    names = ["stage", "step", "seconds", "loss", "commit", "tokens", "grad_norm", "lr", "tokens_per_s"]
    assert [list(line) for line in lines] == [names] * 3
    assert {line["stage"] for line in lines} == {"toy"}
    expected = sum(rate(Optim(1e-2), step, 10) for step in (8, 9)) / 2
    assert lines[2]["lr"] == pytest.approx(expected, rel=1e-4)


@dataclass
class Language:
    module: Backbone

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng(step)
        samples = [TokenSequence(rng.integers(0, 20, n), np.ones(n, bool)) for n in (5, 3)]
        return collate(samples, np.zeros(20, np.int64))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return next_token_loss(self.module, batch, ("text",))


def test_a_backbone_with_tied_embeddings_is_saved_and_stays_tied(tmp_path: Path) -> None:
    c = BackboneConfig(20, 1, 8, 2, 1, 4, 16, positions=16, tied=True)
    first, second = Backbone(c), Backbone(c)
    for model, steps in ((first, 4), (second, 4)):
        fit(Language(model), Fit(steps, save_every=2), tmp_path / "x", "lm", tmp_path / "x.jsonl")
    assert second.lm_head.weight is second.model.embed_tokens.weight
    assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (35, 0.8608757), (60, 0.525), (85, 0.1891243)]
)
def test_the_rate_warms_up_linearly_and_falls_by_half_a_cosine(step: int, expected: float) -> None:
    assert rate(Optim(1.0, warmup=1 / 11), step, 110) == pytest.approx(expected)


def test_the_rate_never_rises_after_warm_up_and_ends_near_its_floor() -> None:
    rates = [rate(Optim(3e-4), step, 1000) for step in range(1000)]
    assert max(rates) == rates[30] == rates[29] == 3e-4
    assert all(a >= b for a, b in pairwise(rates[29:]))
    assert rates[-1] == pytest.approx(0.05 * 3e-4, rel=1e-3)


def test_decay_is_for_matrices_only() -> None:
    groups = adamw(Net(), Optim(weight_decay=0.1)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {2}
    assert {p.ndim for p in groups[1]["params"]} == {1}


@pytest.mark.parametrize("muon", [False, True])
def test_restoring_optimizers_inverts_their_tensors(muon: bool) -> None:
    net = Net()
    first, second = (optimizers(net, Optim(muon=muon)) for _ in range(2))
    net(torch.randn(5, 4))[0].sum().backward()
    for optimizer in first:
        optimizer.step()
    assert len(optimizer_tensors(first)) >= len(list(net.parameters()))
    restore_optimizers(second, optimizer_tensors(first))
    assert_close(optimizer_tensors(second), optimizer_tensors(first), rtol=0, atol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_hidden_matrices_and_every_parameter_has_one_optimizer(tied: bool) -> None:
    c = BackboneConfig(50, layers=2, width=8, heads=2, kv_heads=1, head_dim=4, hidden=16, tied=tied)
    model = Backbone(c)
    found = [id(p) for o in optimizers(model, Optim(muon=True)) for g in o.param_groups for p in g["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())
    hidden = {id(p) for p in hidden_matrices(model)}
    names = {n.split(".")[-2] for n, p in model.named_parameters() if id(p) in hidden}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(hidden) == 14


def fail(number: int) -> None:
    raise DataError("broken", at="here", fix="mend it")


def wait_for_stop() -> None:
    time.sleep(60)


def test_an_error_in_one_process_is_raised_with_its_words_and_stops_the_others() -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match="broken") as caught:
        run_tasks([Task(wait_for_stop, (), 1), Task(fail, (1,), 1)])
    assert (caught.value.at, caught.value.fix) == ("here", "mend it")
    assert time.monotonic() - begun < 50
