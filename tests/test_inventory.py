"""Which files of released models are there and which are missing, by name and size; and what models take in memory."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricate_llama import SMALL, folder_of, settings_of, write_settings
from safetensors.torch import load_file

from mio.checkpoint import read_json, write_json
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import quantize_linears
from mio.pipeline import load
from mio.pretrained import memory
from mio.pretrained.inventory import LAYOUT, Need, front_matter, inventory, is_released, needs, readable
from mio.types import DataError, MissingError

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


TEXTS = ["config.json", "tokenizer.model", "tokenizer_config.json"]
MODEL = ("language", "weights")


def test_an_index_says_which_weights_are_needed(tmp_path: Path) -> None:
    language(tmp_path, [*TEXTS, "a.safetensors"], {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"})
    held = needs(tmp_path, MODEL)
    assert [need.path for need in held.missing] == ["b.safetensors"]
    (tmp_path / "b.safetensors").touch()
    needs(tmp_path, MODEL).demand()


@pytest.mark.parametrize(
    "names", [[*TEXTS, "model.safetensors"], ["config.json", "tokenizer.json", "pytorch_model.bin"]]
)
def test_one_file_of_weights_and_one_of_the_tokenizer_are_enough(names: list[str], tmp_path: Path) -> None:
    needs(language(tmp_path, names), MODEL).demand()


@pytest.mark.parametrize("found", [{}, [], {"weight_map": 3}, {"weight_map": {"x": "../../etc/passwd"}}])
def test_an_index_that_names_no_files_is_refused(found: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"^model\.safetensors\.index\.json"):
        needs(tmp_path, MODEL)


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_missing_shard_s_size_is_that_of_its_tensors(kind: str, tied: bool, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, replace(SMALL, tied=tied), kind)
    path = sorted(folder.glob(f"*2-of-00003.{kind}"))[0]
    held = torch.load(path, weights_only=True) if kind == "bin" else load_file(path)
    path.unlink()
    (need,) = needs(folder, ["weights"]).missing
    assert (need.path, need.bytes) == (path.name, sum(tensor.nbytes for tensor in held.values()))


def test_without_a_configuration_or_a_total_sizes_are_not_known(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    index = folder / "pytorch_model.bin.index.json"
    write_json(index, read_json(index) | {"metadata": None})
    assert [need.bytes for need in needs(folder, ["weights"]).missing] == []
    for path in folder.glob("*.bin"):
        path.unlink()
    assert {str(need).partition(" ")[2] for need in needs(folder, ["weights"]).missing} == {"(1 of 3 weight files)"}
    (folder / "config.json").unlink()
    assert {need.bytes for need in needs(folder, ["weights"]).missing} == {0}


def remains(folder: Path) -> Path:
    """A release of which a part of the weights and the speech tokenizer are there."""
    made = folder_of(folder)
    write_settings(made, settings_of(SMALL), image_bos_id=64005)
    (made / "pytorch_model-00002-of-00003.bin").unlink()
    (made / "SpeechTokenizer").mkdir()
    for name in ("SpeechTokenizer.pt", "config.json"):
        (made / "SpeechTokenizer" / name).touch()
    return made


def test_loading_names_every_missing_file_and_its_size_before_anything_is_read(tmp_path: Path) -> None:
    folder = remains(tmp_path)
    with pytest.raises(MissingError, match=r"^13 files are missing") as caught:
        load(folder)
    message = str(caught.value)
    assert re.search(r"pytorch_model-00002-of-00003\.bin \(\d[\d.]* kB\)", message)
    assert "seed-tokenizer-2/seed_quantizer.pt (1.23 GB)" in message and "/unet (3.5 GB)" in message
    assert "tokenizer.model (text tokenizer, 1 MB)" in message and "SpeechTokenizer" not in message


def test_remains_without_a_configuration_are_a_release_and_an_empty_folder_is_none(tmp_path: Path) -> None:
    assert not is_released(tmp_path)
    folder = remains(tmp_path)
    (folder / "config.json").unlink()
    assert is_released(folder)
    with pytest.raises(MissingError, match=r"config\.json \(shape of the language model"):
        load(folder)
    assert {need.path for need in inventory(folder).missing} >= {"config.json", "seed-tokenizer-2/eva_vit_g.pth"}


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


def test_the_page_on_released_models_names_tests_that_there_are() -> None:
    """And gives every one of the 29."""
    page = (Path(__file__).parents[1] / "docs" / "released.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    sources = {file: (Path(__file__).parent / file).read_text(encoding="utf-8") for file, _ in named}
    assert [test for file, test in named if f"def {test}(" not in sources[file]] == []
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [str(n) for n in range(1, 30)]


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
    config = replace(BackboneConfig(100, 3, 48, 4, 2, 8, 80), tied=tied)
    model = Backbone(config).bfloat16()
    quantize_linears(model, bits)
    held = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}.values()
    assert memory.weights(config, dtype) == sum(t.numel() * t.itemsize for t in held)
    assert all(t.dtype in (torch.bfloat16, torch.int8, torch.uint8) for t in held)
