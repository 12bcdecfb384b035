"""`mio export`, and what `mio inspect` and `mio doctor` say of released folders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from fabricate import fabricate_model
from fabricate_llama import SMALL, folder_of, settings_of, write_settings
from fabricate_release import fabricate_language
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file

import mio.cli.doctor
from mio.cli import main, released
from mio.models.backbone import BackboneConfig
from mio.pretrained import memory
from mio.pretrained.inventory import LAYOUT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

MIO = "m-a-p/MIO-7B-Instruct"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Mio = Callable[..., Done]


@pytest.fixture
def mio_(capsys: pytest.CaptureFixture[str]) -> Mio:
    def run(*words: object) -> Done:
        capsys.readouterr()
        return Done(main([str(w) for w in words]), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("export") / "model")


def released_folder(folder: Path, lacking: str = "") -> Path:
    """A released-looking folder at reduced width: true names, small random weights, media files without contents."""
    made = folder_of(folder)
    write_settings(made, settings_of(SMALL), image_bos_id=64005)
    (made / "README.md").write_text("---\nlicense: apache-2.0\n---\n# MIO\n")
    for need in (need for part in LAYOUT.values() for need in part):
        path = made / need.path
        if path.exists() or need.path.startswith("pytorch_model"):
            continue
        path.parent.mkdir(exist_ok=True)
        if "." in path.name:
            path.write_bytes(b"0" * 1000)
        else:
            path.mkdir()
    if lacking:
        (made / lacking).unlink()
    return made


# ------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("command", ["export hf", "export gguf"])
def test_every_help_ends_with_an_example(command: str, mio_: Mio) -> None:
    assert f"mio {command} " in mio_(*command.split(), "--help").out.rpartition("examples:")[2]


def test_help_of_export_loads_nothing_heavy() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "mio", "export", "hf", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not modules & {"torch", "numpy", "transformers", "gguf", "mio.types"}


def test_export_hf_writes_checks_and_says_where(model: Path, tmp_path: Path, mio_: Mio) -> None:
    done = mio_("export", "hf", model, "-o", tmp_path / "a")
    assert (done.code, done.out) == (0, f"{tmp_path / 'a'}\n")
    assert "bit for bit" in done.err and "Loaded with transformers" in done.err
    document = mio_("export", "hf", model, "-o", tmp_path / "b", "--shard", 0.00001, "--json").document
    assert document["folder"] == str(tmp_path / "b")
    assert document["largest difference of logits"] <= 1e-5 * max(1, document["largest logit"])
    assert (document["dtype"], document["lossless"], document["equal texts"] > 0) == ("bf16", True, True)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 3
    assert (tmp_path / "b" / "image" / "model.safetensors").is_file()


def test_export_hf_may_leave_out_the_loading(model: Path, tmp_path: Path, mio_: Mio) -> None:
    document = mio_("export", "hf", model, "-o", tmp_path / "a", "--no-load", "--dtype", "fp32", "--json").document
    assert (document["dtype"], document["largest difference of logits"]) == ("fp32", None)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_released_model_in_fp32_leaves_unrounded_if_asked(dtype: str, tmp_path: Path, mio_: Mio) -> None:
    folder = fabricate_language(tmp_path / "MIO-7B-Base")
    state = {k: v for path in folder.glob("*.bin") for k, v in torch.load(path, weights_only=True).items()}
    done = mio_("export", "hf", folder, "-o", tmp_path / "out", "--no-load", "--dtype", dtype, "--json")
    assert done.document["dtype"] == dtype
    found = load_file(tmp_path / "out" / "model-00001-of-00001.safetensors")
    assert all(torch.equal(found[k], v.to(found[k].dtype)) for k, v in state.items())
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [2]


def test_export_gguf_writes_and_reads_back(model: Path, tmp_path: Path, mio_: Mio) -> None:
    path = tmp_path / "deep" / "model.gguf"
    done = mio_("export", "gguf", model, "-o", path)
    assert (done.code, done.out) == (0, f"{path}\n")
    assert "read back" in done.err
    document = mio_("export", "gguf", model, "-o", tmp_path / "b.gguf", "--dtype", "fp16", "--json").document
    assert document["dtype"] == "fp16" and document["bytes"] == (tmp_path / "b.gguf").stat().st_size
    assert [p.name for p in path.parent.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["hf"], 2),
        (["hf", "-o", "OUT", "--dtype", "int8"], 2),
        (["hf", "-o", "OUT", "--shard", "0"], 2),
        (["hf", "-o", "OUT", "--shard", "nan"], 2),
        (["hf", "-o", "FULL"], 2),
        (["gguf", "-o", "FULL"], 2),
        (["gguf", "NONE", "-o", "OUT"], 4),
        ([], 2),
    ],
)
def test_what_export_cannot_do(words: list[str], code: int, model: Path, tmp_path: Path, mio_: Mio) -> None:
    places = {"OUT": str(tmp_path / "out"), "FULL": str(model), "NONE": str(tmp_path / "none")}
    done = mio_("export", *(places.get(w, w) for w in words))
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ") and not (tmp_path / "out").exists()


def test_an_exported_model_is_a_released_folder_again(model: Path, tmp_path: Path, mio_: Mio) -> None:
    mio_("export", "hf", model, "-o", tmp_path / "hf", "--no-load")
    seen = mio_("inspect", tmp_path / "hf", "--json").document
    assert (seen["kind"], seen["architecture"], seen["missing"]) == ("released model", "LlamaForCausalLM", "nothing")
    assert seen["parameters"] == mio_("inspect", model, "--json").document["parts"]["backbone"]
    assert set(seen["parts"]) == {"language model", "image", "speech"}


# ------------------------------------------------------------------------------------------------------ inspect


def test_inspect_explains_a_released_folder(tmp_path: Path, mio_: Mio) -> None:
    folder = released_folder(tmp_path)
    seen = mio_("inspect", folder, "--json").document
    assert (seen["kind"], seen["licence"], seen["missing"]) == ("released model", "apache-2.0", "nothing")
    assert seen["parameters"] == memory.parameters(SMALL)
    assert (seen["ids"], seen["positions"]) == (SMALL.vocabulary, SMALL.positions)
    assert seen["memory for weights"] == {d: memory.weights(SMALL, d) for d in ("fp32", "bf16", "int8", "int4")}
    assert seen["memory for 1,000 tokens"]["bf16"] == 2 * 2 * 2 * 16 * 2 * 1000
    assert seen["parts"]["SpeechTokenizer"] == 2000 and seen["bytes"] == sum(seen["parts"].values())
    assert "stable-diffusion-2-1-unclip" in mio_("inspect", folder).out


def test_inspect_names_what_is_missing_with_its_size(tmp_path: Path, mio_: Mio) -> None:
    folder = released_folder(tmp_path, "seed-tokenizer-2/seed_quantizer.pt")
    assert mio_("inspect", folder, "--json").document["missing"] == ["seed-tokenizer-2/seed_quantizer.pt (1.23 GB)"]


def test_inspect_of_a_language_model_alone_misses_no_media(tmp_path: Path, mio_: Mio) -> None:
    seen = mio_("inspect", folder_of(tmp_path), "--json").document
    assert not any("seed" in name or "Speech" in name for name in seen["missing"])
    assert seen["licence"] == "not said"


def test_inspect_of_remains_names_all_that_is_missing(tmp_path: Path, mio_: Mio) -> None:
    (tmp_path / "SpeechTokenizer").mkdir()
    done = mio_("inspect", tmp_path)
    assert done.code == 4
    assert all(name in done.err for name in ("config.json", "pytorch_model-00006-of-00006.bin", "SpeechTokenizer.pt"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub of which nothing is on this machine; what it was asked."""
    asked: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        asked.append(options)
        raise LocalEntryNotFoundError("nothing here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_inspect_never_downloads(no_hub: list[dict[str, Any]], mio_: Mio) -> None:
    done = mio_("inspect", MIO)
    assert done.code == 4 and "not on this machine" in done.err and f"hf download {MIO}" in done.err
    assert no_hub[0]["local_files_only"] is True


def test_inspect_finds_what_the_hub_library_holds(tmp_path: Path, mio_: Mio, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = released_folder(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: str(folder))
    assert mio_("inspect", MIO, "--json").document["missing"] == "nothing"


@pytest.mark.parametrize(
    "words",
    [["chat", "Hi", "--model", MIO], ["export", "gguf", MIO, "-o", "x"], ["demo", "--out", "x", "--model", MIO]],
)
def test_commands_take_an_id_s_revision_and_may_stay_offline(
    words: list[str], no_hub: list[dict[str, Any]], mio_: Mio
) -> None:
    assert mio_(*words).code == mio_(*words, "--revision", "v1", "--offline").code == 4
    assert [(a["revision"], a["local_files_only"]) for a in no_hub] == [(None, False), ("v1", True)]


@pytest.mark.parametrize("words", [["inspect", MIO], ["doctor", "--model", MIO]])
def test_looking_at_an_id_takes_its_revision_too(words: list[str], no_hub: list[dict[str, Any]], mio_: Mio) -> None:
    assert mio_(*words, "--revision", "v1").code == 4
    assert {(a["revision"], a["local_files_only"]) for a in no_hub} == {("v1", True)}


def test_loading_names_what_is_missing_with_its_size(tmp_path: Path, mio_: Mio) -> None:
    folder = released_folder(tmp_path, "tokenizer.model")
    (folder / "seed-tokenizer-2" / "seed_quantizer.pt").unlink()
    done = mio_("chat", "Hi", "--model", folder)
    assert done.code == 4
    assert "tokenizer.model (text tokenizer, 1 MB), seed-tokenizer-2/seed_quantizer.pt (1.23 GB)" in done.err


# ------------------------------------------------------------------------------------------------------- doctor


def checks(done: Done) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in done.document["checks"]}


def test_doctor_says_whether_a_released_model_runs(tmp_path: Path, mio_: Mio) -> None:
    found = checks(mio_("doctor", "--json", "--model", released_folder(tmp_path)))
    assert found["model"]["state"] == found["fits"]["state"] == "ok"
    assert "in fp32" in found["fits"]["found"]


def test_doctor_names_what_is_missing(tmp_path: Path, mio_: Mio) -> None:
    done = mio_("doctor", "--json", "--model", released_folder(tmp_path, "SpeechTokenizer/SpeechTokenizer.pt"))
    assert done.code == 4
    assert "SpeechTokenizer/SpeechTokenizer.pt (482 MB)" in checks(done)["model"]["fix"]


@pytest.mark.parametrize(
    ("ram", "gpu", "state", "dtype"),
    [
        (30, 0, "ok", "in fp32"),
        (15, 0, "ok", "in bf16"),
        (9, 0, "warn", "int8 only"),
        (6, 0, "warn", "int4 only"),
        (6, 16, "ok", "in bf16"),
        (3, 0, "fail", "3 GB of memory"),
    ],
)
def test_doctor_knows_the_released_model_before_it_is_here(
    ram: int,
    gpu: int,
    state: str,
    dtype: str,
    no_hub: list[dict[str, Any]],
    mio_: Mio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mio.cli.doctor, "free_memory", lambda: ram * 10**9)
    monkeypatch.setattr(mio.cli.doctor, "_gpu_memory", lambda: gpu * 10**9)
    done = mio_("doctor", "--json", "--model", MIO)
    found = checks(done)
    assert done.code == 4 and found["model"]["state"] == "fail"
    assert found["fits"]["state"] == state and dtype in found["fits"]["found"]
    assert "6,161,747,968 parameters" in found["fits"]["found"]


def test_doctor_of_our_own_model_has_no_line_for_room(model: Path, mio_: Mio) -> None:
    assert "fits" not in checks(mio_("doctor", "--json", "--model", model))
    assert "fits" not in checks(mio_("doctor", "--json", "--model", "someone/else"))


def test_room_counts_weights_a_full_window_and_some_air() -> None:
    config = BackboneConfig()
    needed = memory.weights(config, "bf16") + memory.cache(config, "bf16", config.positions) + released.OVERHEAD
    assert released.room(config, needed, 0)[0] == "bf16"
    assert released.room(config, needed - 1, 0)[0] == "int8"
