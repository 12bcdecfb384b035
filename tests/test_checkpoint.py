"""checkpoint.py: readers see the old folder or the new one, damage is found by name, and no file is ever run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from mio import checkpoint
from mio.checkpoint import (
    commit,
    compact,
    fingerprint,
    load_state,
    load_tensors,
    read_json,
    recover,
    require,
    save_module,
    verify,
    write_json,
)
from mio.types import DataError, MissingError, ResourceError


def writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.txt").write_text(text)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text(text * 2)

    return write


def failing(error: BaseException) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.txt").write_text("half")
        raise error

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kill_at_rename(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The process dies at its `number`-th rename."""
    real, calls = os.replace, [0]

    def replace(a: Path, b: Path) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise KeyboardInterrupt
        real(a, b)

    monkeypatch.setattr(checkpoint.os, "replace", replace)


def test_commit_writes_what_the_writer_wrote_and_a_manifest(tmp_path: Path) -> None:
    commit(tmp_path / "x" / "model", writer("new"))
    assert contents(tmp_path / "x" / "model").keys() == {"a.txt", "deep/b.txt", "manifest.json"}
    verify(tmp_path / "x" / "model")
    assert os.listdir(tmp_path / "x") == ["model"]


def test_commit_replaces_the_whole_folder(tmp_path: Path) -> None:
    commit(tmp_path / "model", writer("old"))
    (tmp_path / "model" / "extra.txt").write_text("not of the new one")
    commit(tmp_path / "model", writer("new"))
    assert contents(tmp_path / "model")["a.txt"] == b"new"
    assert "extra.txt" not in contents(tmp_path / "model")


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_writer_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    commit(tmp_path / "model", writer("old"))
    before = contents(tmp_path / "model")
    with pytest.raises((type(error), ResourceError)):
        commit(tmp_path / "model", failing(error))
    assert contents(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_full_disk_is_a_resource_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No space left on device") as caught:
        commit(tmp_path / "model", failing(OSError(28, "No space left on device")))
    assert "untouched" in caught.value.fix


@pytest.mark.parametrize("rename", [1, 2])
def test_recover_finds_the_old_folder_after_a_kill_at_a_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rename: int
) -> None:
    commit(tmp_path / "model", writer("old"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_rename(patch, rename)
        commit(tmp_path / "model", writer("new"))
    recover(tmp_path / "model")
    verify(tmp_path / "model")
    assert contents(tmp_path / "model")["a.txt"] == b"old"


def test_a_failing_commit_after_a_kill_still_keeps_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path / "model", writer("old"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at_rename(patch, 2)
        commit(tmp_path / "model", writer("new"))
    with pytest.raises(RuntimeError):
        commit(tmp_path / "model", failing(RuntimeError("again")))
    recover(tmp_path / "model")
    assert contents(tmp_path / "model")["a.txt"] == b"old"


def test_recover_leaves_a_whole_or_missing_folder_alone(tmp_path: Path) -> None:
    recover(tmp_path / "none")
    commit(tmp_path / "model", writer("old"))
    recover(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("harm", "state"),
    [
        (lambda p: p.write_bytes(bytes([p.read_bytes()[0] ^ 1]) + p.read_bytes()[1:]), "damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "damaged"),
        (lambda p: p.write_bytes(b""), "damaged"),
        (lambda p: p.unlink(), "missing"),
    ],
    ids=["flipped", "truncated", "emptied", "deleted"],
)
@pytest.mark.parametrize("name", ["a.txt", "deep/b.txt"])
def test_verify_names_the_harmed_file(tmp_path: Path, harm: Callable[[Path], None], state: str, name: str) -> None:
    commit(tmp_path / "model", writer("text"))
    harm(tmp_path / "model" / name)
    with pytest.raises(DataError, match=f"{name} is {state}"):
        verify(tmp_path / "model")


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"No manifest\.json"):
        verify(tmp_path)


def test_load_tensors_inverts_save_module(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 2).T, "b": torch.arange(4), "c": torch.randn(2).bfloat16()}
    save_module(tmp_path, {"width": 3}, state)
    assert read_json(tmp_path / "config.json") == {"width": 3}
    assert_close(
        load_tensors(tmp_path / "model.safetensors"), {k: v.contiguous() for k, v in state.items()}, rtol=0, atol=0
    )


def test_compact_rounds_weights_but_neither_codebooks_nor_integers() -> None:
    state = {"w": torch.tensor([1.0000001]), "quantize.embedding.weight": torch.tensor([0.1]), "n": torch.tensor([7])}
    small = compact(state)
    assert [small[k].dtype for k in state] == [torch.bfloat16, torch.float32, torch.int64]
    assert small["quantize.embedding.weight"] is state["quantize.embedding.weight"]


def test_load_state_takes_any_float_dtype_into_its_own() -> None:
    module = nn.Linear(2, 2)
    weights = {"weight": torch.eye(2).bfloat16(), "bias": torch.ones(2).double()}
    load_state(module, weights)
    assert module.weight.dtype == torch.float32
    assert_close(module(torch.tensor([[2.0, 3.0]])), torch.tensor([[3.0, 4.0]]))


def test_load_state_names_every_kind_of_fault_and_loads_nothing() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(DataError) as caught:
        load_state(module, {"weight": torch.zeros(3, 2), "other": torch.zeros(1)}, at="here")
    assert "bias missing; other not expected; weight is (3, 2) instead of (2, 2) (3 faults)" in str(caught.value)
    assert caught.value.at == "here"
    assert_close(module.weight, before, rtol=0, atol=0)


class Canary:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)

    def __init__(self, path: Path) -> None:
        self.path = str(path)


def test_a_pickle_that_says_it_is_safetensors_is_refused_and_not_run(tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Canary(sprung)))
    with pytest.raises(DataError, match="damaged or not safetensors"):
        load_tensors(path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())  # the canary is alive: unpickling would have run it
    assert sprung.exists()


@given(st.data())
def test_a_cut_safetensors_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_file({"a": torch.arange(6.0)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError):
        load_tensors(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"No model\.safetensors"):
        load_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_json_that_cannot_be_read_is_a_data_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(DataError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")


def test_read_json_inverts_write_json(tmp_path: Path) -> None:
    data = {"name": "Čeština 漢字", "n": [1, 2.5, None]}
    write_json(tmp_path / "x.json", data)
    assert read_json(tmp_path / "x.json") == data


def test_a_fingerprint_depends_on_configuration_names_and_bytes_only() -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1)}
    same = fingerprint({"x": 1, "y": 2}, tensors)
    assert fingerprint({"y": 2, "x": 1}, {"b": tensors["b"], "a": tensors["a"].T.contiguous().T}) == same
    changed = [
        fingerprint({"x": 1, "y": 3}, tensors),
        fingerprint({"x": 1, "y": 2}, {"a": tensors["a"], "c": tensors["b"]}),
        fingerprint({"x": 1, "y": 2}, {"a": tensors["a"] + 1e-6, "b": tensors["b"]}),
    ]
    assert len({same, *changed}) == 4


def test_an_artefact_of_other_tokenizers_is_refused_with_both_fingerprints() -> None:
    require("a1", "a1", "shard", "Prepare it again.")
    with pytest.raises(DataError, match="shard was made with tokenizers and vocabulary a1; here they are b2"):
        require("a1", "b2", "shard", "Prepare it again.")
