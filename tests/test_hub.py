"""Where files of released models are, what is missing of them, and what they would take in memory."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import quantize_linears
from mio.pretrained import memory
from mio.pretrained.hub import LAYOUT, LEFT_OUT, PATTERNS, Need, front_matter, is_id, locate, needs, readable
from mio.types import DataError, MissingError

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


# -------------------------------------------------------------------------------------------------------- needs


def test_one_error_names_every_missing_file_and_its_size(tmp_path: Path) -> None:
    held = needs(tmp_path)
    assert held.there == () and len(held.missing) == sum(map(len, LAYOUT.values()))
    with pytest.raises(MissingError) as caught:
        held.demand()
    message = str(caught.value)
    assert all(need.path in message for part in LAYOUT.values() for need in part)
    for size in ("24.6 GB", "(1.23 GB)", "2 GB", "(482 MB)", "(3.5 GB)"):
        assert size in message
    assert caught.value.at == str(tmp_path)


def test_only_wanted_parts_are_asked_for_and_found_sizes_are_told(tmp_path: Path) -> None:
    (tmp_path / "SpeechTokenizer").mkdir()
    (tmp_path / "SpeechTokenizer" / "config.json").write_text("{}")
    held = needs(tmp_path, ["speech"])
    assert held.there == (Need("SpeechTokenizer/config.json", 2, "its shape"),)
    assert [str(need) for need in held.missing] == ["SpeechTokenizer/SpeechTokenizer.pt (482 MB)"]
    with pytest.raises(MissingError, match=r"^File is missing"):
        held.demand()


def language(folder: Path, names: list[str], weight_map: dict[str, str] | None = None) -> Path:
    for name in names:
        (folder / name).write_text("{}")
    if weight_map is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


TEXTS = ["config.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"]


def test_an_index_says_which_weights_are_needed(tmp_path: Path) -> None:
    language(tmp_path, [*TEXTS, "a.safetensors"], {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"})
    held = needs(tmp_path, ["language"])
    assert [need.path for need in held.missing] == ["b.safetensors"]
    (tmp_path / "b.safetensors").touch()
    needs(tmp_path, ["language"]).demand()


@pytest.mark.parametrize(
    "names", [[*TEXTS, "model.safetensors"], ["config.json", "tokenizer.json", "pytorch_model.bin"]]
)
def test_one_file_of_weights_and_one_of_the_tokenizer_are_enough(names: list[str], tmp_path: Path) -> None:
    needs(language(tmp_path, names), ["language"]).demand()


@pytest.mark.parametrize("found", [{}, [], {"weight_map": 3}, {"weight_map": {"x": "../../etc/passwd"}}])
def test_an_index_that_names_no_files_is_refused(found: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="weight_map"):
        needs(tmp_path, ["language"])


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (481_906_997, "482 MB"), (24_646_991_872, "24.6 GB")],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert readable(count) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: apache-2.0\n---\n# Card", {"license": "apache-2.0"}),
        ("---\nlicense: mit\n---", {"license": "mit"}),
        ("# Card\n---\nlicense: mit\n---\n", {}),
        ("---\n[: broken\n---\n", {}),
        ("---\n- a\n---\n", {}),
        ("", {}),
    ],
)
def test_front_matter_of_a_card(text: str, found: dict[str, str], tmp_path: Path) -> None:
    assert front_matter(tmp_path / "none.md") == {}
    (tmp_path / "README.md").write_text(text)
    assert front_matter(tmp_path / "README.md") == found


# ------------------------------------------------------------------------------------------------------- memory


def test_the_released_model_in_memory() -> None:
    config = BackboneConfig()
    assert memory.parameters(config) == 6_161_747_968
    assert memory.weights(config, "fp32") == 24_646_991_872
    assert memory.weights(config, "bf16") == 12_323_495_936
    assert memory.cache(config, "bf16", 1) == 64 * 1024
    assert memory.total(config, "int4") == memory.weights(config, "int4") + 4096 * 64 * 1024


@pytest.mark.parametrize(("dtype", "bits"), [("int8", 8), ("int4", 4)])
@pytest.mark.parametrize("tied", [False, True])
def test_quantized_bytes_are_those_of_a_quantized_model(dtype: str, bits: Any, tied: bool) -> None:
    config = replace(BackboneConfig(100, 2, 48, 4, 2, 8, 80), tied=tied)
    model = Backbone(config).bfloat16()
    quantize_linears(model, bits)
    held = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}.values()
    assert memory.weights(config, dtype) == sum(t.numel() * t.itemsize for t in held)
    assert all(t.dtype in (torch.bfloat16, torch.int8, torch.uint8) for t in held)
