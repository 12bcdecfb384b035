"""pretrained/weights.py: tensors out of files that strangers made; damage is named, and no file is ever run."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from mio.pretrained import weights
from mio.pretrained.weights import shapes, shards, tensors
from mio.types import DataError, MissingError

STATE = {
    "a": torch.randn(5, 3),
    "b": torch.randn(4).bfloat16(),
    "c": torch.arange(6).view(2, 3),
    "d": torch.tensor(1.5),
}


def save_old(state: dict[str, Tensor], path: Path) -> None:
    """As torch wrote before 1.6: pickles one after another, no archive."""
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], None]]] = {
    "safetensors": ("x.safetensors", save_file),
    "bin": ("x.bin", torch.save),
    "old": ("x.pt", save_old),
}


@pytest.fixture(params=WRITERS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, write = WRITERS[request.param]
    write(STATE, tmp_path / name)
    return tmp_path / name


def index(folder: Path, weight_map: Any, name: str = "pytorch_model.bin.index.json") -> None:
    (folder / name).write_text(json.dumps({"weight_map": weight_map}))


# ------------------------------------------------------------------------------------------------ one file


def test_tensors_are_those_that_were_saved(file: Path) -> None:
    assert_close(dict(tensors(file)), STATE, rtol=0, atol=0)


def test_shapes_are_those_of_the_tensors(file: Path) -> None:
    assert shapes(file) == {name: tuple(tensor.shape) for name, tensor in STATE.items()}


def test_a_file_mapped_anew_for_every_tensor_gives_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAPPED", 0)
    assert_close(dict(tensors(file)), STATE, rtol=0, atol=0)


def resident(path: Path) -> int:
    """Bytes of a mapped file that count as this process's memory now."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    maps = [n for n, line in enumerate(lines) if line.endswith(str(path))]
    sizes = [next(line for line in lines[n:] if line.startswith("Rss:")) for n in maps]
    return 1024 * sum(int(size.split()[1]) for size in sizes)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="memory maps are read from Linux's /proc")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_what_a_caller_drops_is_no_longer_held(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAPPED", 0)
    name, write = WRITERS[kind]
    write({f"w{n}": torch.ones(1 << 20) for n in range(6)}, tmp_path / name)  # 24 MiB
    held = []
    for _, tensor in tensors(tmp_path / name):
        assert float(tensor.sum()) == 1 << 20
        held.append(resident(tmp_path / name))
    assert 0 < max(held) <= 2.5 * (4 << 20)  # this tensor, and the end of its neighbours


def test_a_cut_file_is_refused_by_name(file: Path) -> None:
    whole = file.read_bytes()
    for size in (0, 1, 2, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        for read in (shapes, lambda path: list(tensors(path))):
            with pytest.raises(DataError, match=rf"{file.name} is") as caught:
                read(file)
            assert caught.value.fix


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (shapes, lambda path: list(tensors(path))):
        with pytest.raises(MissingError, match=r"No x\.bin"):
            read(tmp_path / "x.bin")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def save_pickle(state: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(state, protocol=2))


@pytest.mark.parametrize("write", [torch.save, save_old, save_pickle])
def test_a_file_that_would_run_code_is_refused_and_not_run(tmp_path: Path, write: Callable[..., None]) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "pytorch_model.bin"
    write({**STATE, "e": Canary(sprung)}, path)
    for read in (shapes, lambda path: list(tensors(path))):
        with pytest.raises(DataError, match=r"pytorch_model\.bin is no file of tensors"):
            read(path)
    assert not sprung.exists()


def test_the_canary_is_alive(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("found", [{"state_dict": STATE}, [torch.ones(1)], {1: torch.ones(1)}, {"a": 3}, None])
def test_what_is_no_flat_dictionary_of_tensors_is_refused(tmp_path: Path, found: object) -> None:
    torch.save(found, tmp_path / "x.bin")
    with pytest.raises(DataError, match="not a flat dictionary of tensors"):
        list(tensors(tmp_path / "x.bin"))


# ------------------------------------------------------------------------------------------------ a folder


def test_the_shards_of_an_index_come_in_order_and_once(tmp_path: Path) -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for name in names:
        torch.save(STATE, tmp_path / name)
    index(tmp_path, {"x": names[1], "y": names[0], "z": names[1]})
    assert shards(tmp_path) == [tmp_path / name for name in names]


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert shards(tmp_path) == [tmp_path / "model.safetensors"]


def test_every_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.bin").touch()
    index(tmp_path, {"x": "a.bin", "y": "b.bin", "z": "c.bin"})
    with pytest.raises(MissingError, match=r"Weights are missing: a\.bin, c\.bin"):
        shards(tmp_path)


def test_a_folder_without_weights_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="No weights here") as caught:
        shards(tmp_path)
    assert "model.safetensors" in caught.value.fix


@pytest.mark.parametrize("weight_map", [None, {}, [], {"x": 3}, {"x": None}])
def test_an_index_that_is_none_is_refused(tmp_path: Path, weight_map: object) -> None:
    index(tmp_path, weight_map)
    with pytest.raises(DataError, match="no weight_map"):
        shards(tmp_path)


@pytest.mark.parametrize("name", ["../other.bin", "/etc/passwd", "deep/x.bin"])
def test_an_index_cannot_reach_out_of_its_folder(tmp_path: Path, name: str) -> None:
    index(tmp_path, {"x": name})
    with pytest.raises(DataError, match="points outside its folder"):
        shards(tmp_path)
