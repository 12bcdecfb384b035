"""Where released models are."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from mio.pretrained.hub import LEFT_OUT, PATTERNS, is_id, locate
from mio.pretrained.inventory import LAYOUT
from mio.types import MissingError

MIO = "m-a-p/MIO-7B-Instruct"
Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Exception | None], Calls]:
    """A hub whose download fails as told, or gives an empty folder."""

    def fake(error: Exception | None) -> Calls:
        calls: Calls = []

        def download(*args: Any, **options: Any) -> str:
            calls.append((args, options))
            if error:
                raise error
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        return calls

    return fake


# ------------------------------------------------------------------------------------------------------- locate


def test_a_local_folder_is_taken_as_it_is(hub: Callable[..., Calls], tmp_path: Path) -> None:
    calls = hub(None)
    assert locate(tmp_path) == locate(str(tmp_path)) == tmp_path
    assert calls == []


def test_an_id_is_downloaded_by_the_hub_library(hub: Callable[..., Calls], tmp_path: Path) -> None:
    calls = hub(None)
    assert locate(MIO, revision="v1", patterns=["*.json"]) == tmp_path
    [(names, options)] = calls
    assert names == (MIO,)
    assert options == {
        "revision": "v1",
        "allow_patterns": ["*.json"],
        "ignore_patterns": list(LEFT_OUT),
        "local_files_only": False,
    }


def test_offline_asks_for_what_is_there(hub: Callable[..., Calls]) -> None:
    calls = hub(None)
    locate(Path(MIO), offline=True)
    assert calls[0][1]["local_files_only"] is True


def test_the_patterns_bring_the_released_layout_and_no_second_copies() -> None:
    wanted = [need.path for part in LAYOUT.values() for need in part if "." in Path(need.path).name]
    wanted += [
        "model-00001-of-00003.safetensors",
        "stable-diffusion-2-1-unclip/unet/diffusion_pytorch_model.safetensors",
    ]
    spared = [
        "stable-diffusion-2-1-unclip/sd21-unclip-h.ckpt",
        "stable-diffusion-2-1-unclip/vae/model.fp16.safetensors",
    ]
    spared += ["stable-diffusion-2-1-unclip/image_encoder/model.safetensors", "run.py"]
    chosen = huggingface_hub.utils.filter_repo_objects(
        wanted + spared, allow_patterns=list(PATTERNS), ignore_patterns=list(LEFT_OUT)
    )
    assert list(chosen) == wanted


@pytest.mark.parametrize("name", ["none", "/nowhere/at/all", "a/b/c", "./a/b", "a/", "../b", "a b/c"])
def test_what_is_neither_a_folder_nor_an_id(
    name: str, hub: Callable[..., Calls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no neighbour is called b
    calls = hub(None)
    assert not is_id(name)
    with pytest.raises(MissingError, match="no such folder") as caught:
        locate(name)
    assert caught.value.at == name and "MIO-7B" in caught.value.fix
    assert calls == []


REPLY: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (errors.GatedRepoError("403", response=REPLY), "consent", "hf auth login"),
        (errors.RepositoryNotFoundError("404", response=REPLY), "no model of that id", "hf auth login"),
        (errors.RevisionNotFoundError("404", response=REPLY), "no revision 'v9'", "branch"),
        (errors.LocalEntryNotFoundError("long story"), "not on this machine", f"hf download {MIO}"),
        (errors.OfflineModeIsEnabled("offline"), "not on this machine", f"hf download {MIO}"),
        (errors.HfHubHTTPError("500 came\nback", response=REPLY), "cannot be had: 500 came", f"hf download {MIO}"),
        (ConnectionError(), "cannot be had: ConnectionError", f"hf download {MIO}"),
    ],
)
def test_what_the_hub_refuses_has_a_way_out(error: Exception, what: str, fix: str, hub: Callable[..., Calls]) -> None:
    hub(error)
    with pytest.raises(MissingError, match=what) as caught:
        locate(MIO, revision="v9")
    assert fix in caught.value.fix and caught.value.at == MIO
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_no_missing_model(hub: Callable[..., Calls]) -> None:
    hub(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        locate(MIO)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingError, match="no huggingface_hub") as caught:
        locate(MIO)
    assert "mio[hf]" in caught.value.fix
