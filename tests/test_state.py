"""train/state.py: the newest whole state is found, writing goes on beside the training, and no save is ever half."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from toys import STEPS, Net, Toy, run, state, toy, weights

from mio.checkpoint import load_tensors, verify
from mio.train import state as states
from mio.train.optim import Optim, optimizers
from mio.train.state import Saver, newest, resume, saved
from mio.types import DataError


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


HARMS: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize("file", ["module.safetensors", "optimizer.safetensors", "step.json", "manifest.json"])
def test_a_damaged_state_falls_back_to_the_one_before_and_still_ends_bit_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, harm: Callable[[Path], None]
) -> None:
    whole = run(toy(), tmp_path / "x")
    end = (state(tmp_path / "x") / "module.safetensors").read_bytes()
    harm(state(tmp_path / "x") / file)
    again = run(Toy(Net()), tmp_path / "x")
    assert again.seen == [10, 11]
    assert f"{STEPS:08d}: " in capsys.readouterr().err
    assert_close(weights(again), weights(whole), rtol=0, atol=0)
    assert (state(tmp_path / "x") / "module.safetensors").read_bytes() == end
    verify(state(tmp_path / "x"))


def test_a_training_with_no_whole_state_is_refused(tmp_path: Path) -> None:
    run(toy(), tmp_path / "x")
    for folder in saved(tmp_path / "x" / "state"):
        flip(folder / "module.safetensors")
    with pytest.raises(DataError, match="No saved state is whole") as caught:
        run(toy(), tmp_path / "x")
    assert "Remove" in caught.value.fix


def test_the_last_states_stay_and_leftovers_go(tmp_path: Path) -> None:
    run(toy(stop=99), tmp_path / "x", steps=6, save_every=1)
    (tmp_path / "x" / "state" / ".00000006.new").mkdir()
    run(Toy(Net()), tmp_path / "x", steps=8, save_every=1)
    assert sorted(p.name for p in (tmp_path / "x" / "state").iterdir()) == ["00000007", "00000008"]


def test_a_save_after_a_fallback_drops_the_later_state_and_not_the_good_one(tmp_path: Path) -> None:
    net, folder = toy().module, tmp_path / "state"
    with Saver(folder, 1) as saver:
        saver.save(net, [], {"step": 20})
    flip(folder / "00000020" / "module.safetensors")
    with Saver(folder, 1) as saver:
        saver.save(net, [], {"step": 15})
    assert newest(folder) == folder / "00000015"
    assert len(saved(folder)) == 1


def test_what_is_written_is_what_was_there_at_the_save_whatever_training_did_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = toy().module
    learning = optimizers(net, Optim())
    net(torch.randn(5, 4))[0].sum().backward()
    learning[0].step()
    before = {k: v.clone() for k, v in weights(Toy(net)).items()}
    go, real = threading.Event(), states.commit
    monkeypatch.setattr(states, "commit", lambda *args: (go.wait(10), real(*args)))
    with Saver(tmp_path, 2) as saver:
        saver.save(net, learning, {"step": 1})
        learning[0].step()  # the writer waits meanwhile
        assert saved(tmp_path) == []
        go.set()
    other = Net()
    assert resume(tmp_path, other, optimizers(other, Optim())) == {"step": 1}
    assert_close(weights(Toy(other)), before, rtol=0, atol=0)
    assert not torch.equal(net.last.weight, other.last.weight)


def test_the_next_save_waits_for_the_former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = states.commit
    monkeypatch.setattr(states, "commit", lambda folder, write: (real(folder, write), order.append(folder.name)))
    with Saver(tmp_path, 9) as saver:
        for step in range(5):
            saver.save(toy().module, [], {"step": step})
            assert len(order) >= step
    assert order == [f"{step:08d}" for step in range(5)]


def test_a_state_holds_no_pickle(tmp_path: Path) -> None:
    run(toy(), tmp_path / "x")
    names = {p.name for p in state(tmp_path / "x").iterdir()}
    assert names == {"module.safetensors", "optimizer.safetensors", "step.json", "manifest.json"}
    assert "quantize.seen" in load_tensors(state(tmp_path / "x") / "module.safetensors")
