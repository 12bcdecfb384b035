"""train/loop.py, optim.py: a run that was stopped ends where an unbroken one does, to the bit."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mio.checkpoint import load_tensors, read_json
from mio.data.loader import collate
from mio.layers import Batch
from mio.models.backbone import Backbone, BackboneConfig
from mio.sequence import TokenSequence
from mio.tokenizers.quantizers import VectorQuantizer
from mio.train.loop import Fit, Interrupted, fit
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim, adamw, hidden_matrices, optimizer_tensors, optimizers, rate, restore_optimizers
from mio.train.parallel import Task, run_ranks, run_tasks
from mio.types import DataError

STEPS = 12


class Net(nn.Module):
    """Dropout and a codebook that revives codes: both draw random numbers while training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)
        self.quantize = VectorQuantizer(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q = self.quantize(self.drop(self.first(x)))
        return self.last(q.quantized), q.loss


@dataclass
class Toy:
    """Regression; sends SIGTERM to itself in step `stop`, spoils the loss in step `nan`."""

    module: Net
    stop: int = -1
    nan: int = -1
    seen: list[int] = field(default_factory=list)

    def batch(self, step: int) -> Tensor:
        self.seen.append(step)
        return torch.from_numpy(np.random.default_rng(step).normal(size=(5, 4)).astype(np.float32))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        if self.seen[-1] == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        out, commit = self.module(batch)
        loss = (out - batch.sum(1, keepdim=True)).pow(2).mean() + commit
        loss = loss * float("nan") if self.seen[-1] == self.nan else loss
        return {"loss": loss, "commit": commit, "tokens": torch.tensor(5.0)}


def toy(**kwargs: int) -> Toy:
    torch.manual_seed(3)
    return Toy(Net(), **kwargs)


def run(objective: Toy, folder: Path, steps: int = STEPS, save_every: int = 5) -> Toy:
    c = Fit(steps, Optim(1e-2), save_every=save_every, log_every=4)
    fit(objective, c, folder, "toy", folder.with_suffix(".jsonl"))
    return objective


def weights(objective: Toy) -> dict[str, Tensor]:
    return {**objective.module.state_dict(), **dict(objective.module.named_buffers())}


@pytest.mark.parametrize("stop", sorted(np.random.default_rng(7).choice(STEPS - 1, 3, replace=False).tolist()))
def test_a_stopped_and_resumed_run_is_bit_equal_to_an_unbroken_one(tmp_path: Path, stop: int) -> None:
    whole = run(toy(), tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"after step {stop + 1}"):
        run(toy(stop=stop), tmp_path / "broken")
    torch.manual_seed(99)  # nothing of the first process is left
    again = run(Toy(Net()), tmp_path / "broken")
    assert again.seen == list(range(stop + 1, STEPS))
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


def test_a_loss_that_is_not_finite_stops_with_the_last_good_weights(tmp_path: Path) -> None:
    good, bad = toy(stop=7), toy(nan=8)
    with pytest.raises(Interrupted):
        run(good, tmp_path / "good")
    with pytest.raises(FloatingPointError, match="Loss is nan in batch 8"):
        run(bad, tmp_path / "bad")
    assert_close(dict(bad.module.named_parameters()), dict(good.module.named_parameters()), rtol=0, atol=0)
    assert read_json(tmp_path / "bad" / "state" / "step.json") == {"step": 5}
    again = run(Toy(Net()), tmp_path / "bad")
    assert again.seen == list(range(5, STEPS))


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        run(toy(stop=2), tmp_path / "x")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    run(toy(), tmp_path / "x")
    path = tmp_path / "x" / "state" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(DataError, match=r"optimizer\.safetensors is damaged"):
        run(toy(), tmp_path / "x", steps=20)


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


def test_a_state_holds_no_pickle(tmp_path: Path) -> None:
    run(toy(), tmp_path / "x")
    names = {p.name for p in (tmp_path / "x" / "state").iterdir()}
    assert names == {"module.safetensors", "optimizer.safetensors", "step.json", "manifest.json"}
    assert "quantize.seen" in load_tensors(tmp_path / "x" / "state" / "module.safetensors")


@dataclass
class Plain:
    """Regression without buffers or chance: what ranks share is the gradient, and nothing else may differ."""

    module: nn.Linear

    def batch(self, number: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(number).normal(size=(5, 4)).astype(np.float32))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.module(batch) - batch.sum(1, keepdim=True)).pow(2).mean()}


def train_parts(folder: Path) -> None:
    torch.manual_seed(3)
    c = Fit(6, Optim(1e-2), save_every=2, log_every=2, bf16=False, parts=2)
    fit(Plain(nn.Linear(4, 1)), c, folder, "plain", folder / "metrics.jsonl")


def test_two_ranks_train_what_one_trains_with_two_parts_a_step(tmp_path: Path) -> None:
    train_parts(tmp_path / "one")
    run_ranks(train_parts, (tmp_path / "two",), 2, 1)
    one, two = (load_tensors(tmp_path / n / "state" / "module.safetensors") for n in ("one", "two"))
    assert_close(two, one, rtol=1e-6, atol=1e-7)
    lines = [(tmp_path / n / "metrics.jsonl").read_text().splitlines() for n in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == 3  # only the first rank writes


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
