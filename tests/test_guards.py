"""train/guards.py: a step that cannot be used changes nothing; too many in a row, or a full disk, end the training."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, nan
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from toys import STEPS, Net, Toy, run, state, toy, weights

from mio.checkpoint import read_json, verify
from mio.train.guards import SPAN, WARM, Guard, Guards, Kept
from mio.train.loop import Interrupted
from mio.types import ResourceError


def test_a_loss_that_is_not_finite_skips_its_step_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = toy(stop=7), toy(stop=8, nan=(8,))
    for objective, name in ((good, "good"), (bad, "bad")):
        with pytest.raises(Interrupted):
            run(objective, tmp_path / name)
    assert_close(weights(bad), weights(good), rtol=0, atol=0)  # step 8 left no trace
    manifests = [read_json(state(tmp_path / name) / "manifest.json") for name in ("good", "bad")]
    for file in ("module.safetensors", "optimizer.safetensors"):
        assert manifests[0][file] == manifests[1][file]
    assert "toy: step 9 skipped, its loss is nan." in capsys.readouterr().err


def test_training_goes_on_after_a_skipped_step_and_the_log_counts_it(tmp_path: Path) -> None:
    objective = run(toy(nan=(4, 5)), tmp_path / "x")
    assert objective.seen == list(range(STEPS))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line.get("skipped", 0) for line in lines] == [0, 2, 0]
    assert all(line["loss"] > 0 for line in lines)


class Spoiled(Toy):
    """Its loss is finite, its gradient is not: sqrt has no slope at 0."""

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = super().losses(batch)
        if self.seen[-1] in self.nan:
            return out | {"loss": out["commit"] * 0 + (self.module.last.weight * 0).sum().sqrt() + 1}
        return out


def test_a_gradient_that_is_not_finite_skips_its_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    run(Spoiled(Net(), nan=(3,)), tmp_path / "x", steps=5)
    assert "step 4 skipped, its gradient norm is nan" in capsys.readouterr().err


def test_repeated_bad_steps_stop_with_the_last_good_weights_saved(tmp_path: Path) -> None:
    good, bad = toy(stop=6), toy(nan=range(7, 100))
    with pytest.raises(Interrupted):
        run(good, tmp_path / "good")
    said = "3 steps of toy in a row could not be used: of the last, its loss is nan. The weights are those after step 7"
    with pytest.raises(FloatingPointError, match=said):
        run(bad, tmp_path / "bad", guards=Guards(repeats=3))
    assert_close(weights(bad), weights(good), rtol=0, atol=0)
    assert read_json(state(tmp_path / "bad") / "step.json")["step"] == 7
    whole, again = run(toy(), tmp_path / "whole"), run(Toy(Net()), tmp_path / "bad")  # the data are mended
    assert again.seen == list(range(7, STEPS))
    assert_close(weights(again), weights(whole), rtol=0, atol=0)


def test_a_leap_of_the_loss_is_judged_only_where_asked_and_once_there_is_a_mean() -> None:
    for spike, fault in ((0.0, ""), (3.0, "its loss 7 is more than 3 times the mean, 2")):
        guard = Guard(Guards(spike=spike))
        assert [guard.judge(2.0, 1.0) for _ in range(WARM)] == [""] * WARM
        assert guard.judge(7.0, 1.0) == fault
        assert guard.judge(5.9, 1.0) == ""
    assert Guard(Guards(spike=3.0)).judge(1e9, 1.0) == ""


def test_the_mean_is_exact_at_first_then_looks_back_over_its_span_and_never_at_bad_steps() -> None:
    guard = Guard(Guards())
    for loss in (1.0, 2.0, 6.0, inf, nan):
        guard.judge(loss, 1.0)
    assert guard.mean == pytest.approx(3.0)
    for _ in range(20 * SPAN):
        guard.judge(4.0, 1.0)
    assert guard.mean == pytest.approx(4.0)


def test_a_guard_goes_on_from_its_facts() -> None:
    first = Guard(Guards(repeats=4))
    for loss in (1.0, 3.0, nan, nan):
        first.judge(loss, 1.0)
    second = Guard.of(Guards(repeats=4), json.loads(json.dumps(first.facts())))
    assert second == first
    assert (second.given_up(), second.judge(nan, 1.0), second.judge(nan, 1.0)) == (0, *["its loss is nan"] * 2)
    assert (second.given_up(), second.given_up()) == (4, 0)


def test_kept_undoes_what_a_forward_pass_writes() -> None:
    net = Net().train()
    before = {k: v.clone() for k, v in {**net.state_dict(), **dict(net.named_buffers())}.items()}
    kept = Kept(net)
    net(torch.randn(5, 4))
    assert not torch.equal(net.quantize.embedding.weight, before["quantize.embedding.weight"])  # revived
    assert not torch.equal(net.quantize.seen, before["quantize.seen"])
    kept.restore()
    assert_close({**net.state_dict(), **dict(net.named_buffers())}, before, rtol=0, atol=0)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the system refuses the write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_training_and_leaves_the_old_state_whole(tmp_path: Path) -> None:
    whole = run(toy(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(toy(stop=4), tmp_path / "x")
    with full_disk(700), pytest.raises(ResourceError, match="Could not write") as caught:
        run(Toy(Net()), tmp_path / "x")
    assert (caught.value.exit_code, "untouched" in caught.value.fix) == (5, True)
    assert [p.name for p in (tmp_path / "x" / "state").iterdir()] == ["00000005"]
    verify(tmp_path / "x" / "state" / "00000005")
    again = run(Toy(Net()), tmp_path / "x")
    assert_close(weights(again), weights(whole), rtol=0, atol=0)
