"""Recipes are data, and a whole run of one, every stage, goes through on the package's own sample."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from fabricate_llama import SMALL as BASE
from fabricate_llama import VARIANTS, folder_of

import mio.recipe
from mio.checkpoint import load_tensors, read_json, sha256, write_json
from mio.cli import main
from mio.cli.report_card import candidates
from mio.config import dump_yaml, from_dict, override
from mio.decoding.sampling import GREEDY
from mio.models.backbone import BackboneConfig
from mio.pipeline import load
from mio.pretrained.export import export
from mio.pretrained.llama import read_backbone, read_config
from mio.pretrained.proof import TALKS, TEXTS
from mio.pretrained.stock import Outgoing
from mio.recipe import Recipe, Run, Work, run, with_needs
from mio.recipe.card import card, stage_times
from mio.recipe.language import processor, untrained
from mio.recipe.tokenizers import shares
from mio.recipes.tiny import tiny
from mio.tokenizers.text import TextTokenizer
from mio.types import MioError

SAMPLE = Path(str(files("mio") / "assets" / "sample"))
SMALL = [
    "text.size=400",
    *(f"{part}.steps=2" for part in ("image.align", "image.quantize", "speech.teacher", "speech.codec")),
    *(f"data.{part}=12" for part in ("scenes", "edits", "clips")),
    *(f"judges.{name}=1" for name in ("picture", "digit", "word", "speaker", "motion")),
    *(f"stages.{n}.fit.steps=2" for n in range(len(tiny().stages))),
    *(f"stages.{n}.tokens=1100" for n in range(len(tiny().stages))),
    "image.batch=8",
    "image.scenes=12",
    "speech.batch=4",
    "image.network.codebook_size=64",
    "rows.0.codebook_size=64",
]


LEARNING = with_needs("model")


def small() -> Recipe:
    return override(tiny(), SMALL)


def test_a_recipe_survives_yaml() -> None:
    assert from_dict(Recipe, yaml.safe_load(dump_yaml(tiny()))) == tiny()


def test_a_recipe_has_at_most_150_kinds_of_fields() -> None:
    seen: set[type] = set()

    def count(value: object) -> int:
        if isinstance(value, tuple):
            return sum(map(count, value))
        if not is_dataclass(value) or type(value) in seen:
            return 0
        seen.add(type(value))  # type: ignore[arg-type]
        return sum(1 + count(getattr(value, f.name)) for f in fields(value))

    assert count(tiny()) <= 150


def test_shares_of_sources_are_what_was_asked() -> None:
    chance = shares(["a", "a", "a", "b"], {"a": 3.0})
    assert chance.tolist() == pytest.approx([0.25, 0.25, 0.25, 0.25])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run(Run(small(), SAMPLE, folder, 2), LEARNING)
    return folder


def test_every_stage_leaves_a_finished_folder(out: Path) -> None:
    stages = {path.parent.name for path in out.glob("*/config.json")}
    assert set(LEARNING) <= stages


def test_tokenizers_in_training_show_how_their_codes_are_used_and_what_they_can(out: Path) -> None:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for stage, codebooks, kind in (("image", 1, "png"), ("speech", 4, "wav")):
        last = [line for line in lines if line["stage"] == stage][-1]
        assert all(0 < last[f"usage{k}"] <= 1 <= last[f"perplexity{k}"] for k in range(codebooks))
        assert f"usage{codebooks}" not in last
        assert [p.name for p in (out / "work" / stage / "samples").iterdir()] == [f"00000002.{kind}"]


def test_a_run_has_candidates_for_the_report_card_before_it_has_a_model(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "image", tmp_path / "image")
    shutil.copy(out / "recipe.json", tmp_path)
    found = {c.tokenizer.modality.name: c.book.name for c in candidates(tmp_path, "mine")}
    assert found == {"image": "image", "video": "image"}
    assert {c.tokenizer.modality.name for c in candidates(out / "model", "whole")} == {"image", "speech", "video"}


def test_a_finished_run_is_not_run_again(out: Path) -> None:
    before = sha256(out / "model" / "model.safetensors"), (out / "metrics.jsonl").stat().st_size
    run(Run(small(), SAMPLE, out), LEARNING)
    assert before == (sha256(out / "model" / "model.safetensors"), (out / "metrics.jsonl").stat().st_size)


def test_another_recipe_is_refused_in_the_same_folder(out: Path) -> None:
    with pytest.raises(MioError, match="another recipe"):
        run(Run(override(small(), ["seed=7"]), SAMPLE, out))


def test_the_trained_model_speaks(out: Path) -> None:
    assert load(out / "model").chat("Draw a fox.", out="image", tokens=40).faults == ()


@pytest.mark.slow
def test_the_last_stage_measures_every_direction_that_has_samples(out: Path) -> None:
    run(Run(small(), SAMPLE, out))
    rows = read_json(out / "measure" / "report.json")
    assert len(rows) > 15 and all(row["count"] > 0 for row in rows)


def test_the_card_names_data_numbers_and_times(out: Path) -> None:
    rows = [{"direction": "a -> b", "what": "it", "value": 0.5, "low": 0.4, "high": 0.6, "count": 9, "split": "train"}]
    text = card(small(), {"language model": 1234567}, rows, out / "metrics.jsonl")
    assert "1,234,567" in text and "CC BY-SA 4.0" in text and str(rows[0]["what"]) in text
    assert {name: steps for name, steps, _ in stage_times(out / "metrics.jsonl")}["sft"] == "2"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a byte-level tokenizer, an end token of its own, and a row that no token has."""
    text = TextTokenizer.train(["a fox and a cat", "seven foxes"], 270)
    added = {"id": text.size, "content": "<|endoftext|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    folder = folder_of(tmp_path_factory.mktemp("base"), replace(BASE, vocabulary=text.size + 2, positions=512))
    write_json(folder / "tokenizer.json", json.loads(text.to_json()) | {"added_tokens": [added | flags]})
    return folder


@pytest.fixture(scope="module")
def grown(base: Path, out: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The language stages from a base model, beside media tokenizers that are there already."""
    folder = tmp_path_factory.mktemp("grown")
    for part in ("image", "speech"):
        shutil.copytree(out / part, folder / part)
    gauge = (f"stages.0.gauge.{word}" for word in ("every=1", "packs=4", "best=true"))
    recipe = override(small(), gauge)
    train(recipe, base, folder, "text,prepare,model")
    return Run(override(recipe, [f"init={base}"]), SAMPLE, folder)


def train(recipe: Recipe, base: Path, out: Path, only: str) -> None:
    """`mio train`, as it is typed."""
    path = out.with_suffix(".yaml")
    path.write_text(dump_yaml(recipe), encoding="utf-8")
    words = ["train", path, "--init", base, "--data", SAMPLE, "--out", out, "--only", only, "--workers", 1, "-q"]
    assert main([str(w) for w in words]) == 0


def test_a_recipe_starts_from_a_base_model_whose_rows_keep_every_bit(base: Path, grown: Run, tmp_path: Path) -> None:
    vocab, old = processor(grown).vocab, read_backbone(base, torch.float32)
    model, rows = untrained(replace(grown, out=tmp_path), len(vocab)), old.config.vocabulary
    assert model.config == replace(old.config, vocabulary=len(vocab)) and grown.backbone == old.config
    assert vocab.id("<|endoftext|>") == rows - 2 and vocab.tokens[rows - 1] == f"<unused {rows - 1}>"
    assert min(vocab.id("<|im_end|>"), *vocab.level_ids("image").ravel()) >= rows
    started = model.state_dict()
    for name, tensor in old.state_dict().items():
        assert torch.equal(started[name][: len(tensor)], tensor)
    torch.testing.assert_close(started["lm_head.weight"][rows:].mean(0), old.lm_head.weight.mean(0), atol=0.01, rtol=0)


def test_a_model_grown_from_a_base_is_trained_loaded_and_speaks(base: Path, grown: Run) -> None:
    model = load(grown.out / "model")
    assert model.config.backbone == replace(grown.backbone, vocabulary=len(model.processor.vocab))
    learnt = model.backbone.model.layers[0].mlp.up_proj.weight
    start = read_backbone(base, torch.bfloat16).model.layers[0].mlp.up_proj.weight.float()
    assert 0 < (learnt - start).abs().max() < 0.2
    assert model.chat("Draw a fox.", out="image", tokens=40).faults == ()
    text = TextTokenizer.load(base / "tokenizer.json")
    assert model.processor.text.encode("a fox") == text.encode("a fox")


def test_a_stage_with_a_gauge_looks_at_held_out_samples_and_leaves_its_best_weights(grown: Run) -> None:
    lines = [json.loads(line) for line in grown.metrics.read_text().splitlines()]
    looks = [line for line in lines if "text perplexity" in line]
    assert [(line["stage"], line["step"]) for line in looks] == [("stage1-align", step) for step in range(3)]
    assert all({"held-out text", "held-out image", "held-out speech"} <= line.keys() for line in looks)
    assert looks[-1]["text perplexity"] < looks[0]["text perplexity"]
    best = load_tensors(grown.out / "work" / "stage1-align" / "best" / "model.safetensors")
    left = load_tensors(grown.out / "stages" / "stage1-align" / "model.safetensors")
    torch.testing.assert_close(left, best, atol=0, rtol=0)


def test_a_model_grown_from_a_base_leaves_as_a_stock_folder(grown: Run, tmp_path: Path) -> None:
    model = load(grown.out / "model")
    held = model.processor
    parts = (held.vocab, held.text, held.template)
    proof = export(Outgoing("grown", model.backbone, *parts, GREEDY, grown.out / "model"), tmp_path / "hf")
    assert proof.lossless and proof.texts == len(TEXTS) + 2 * len(TALKS)


@pytest.mark.parametrize("shape", VARIANTS[1:], ids=["tied", "biases", "norms of queries and keys, tied"])
def test_every_family_of_base_models_is_trained_by_the_command(
    shape: BackboneConfig, base: Path, grown: Run, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, replace(shape, vocabulary=read_config(base).vocabulary, positions=512))
    shutil.copy(base / "tokenizer.json", folder)
    for part in ("text", "image", "speech", "prepare"):
        shutil.copytree(grown.out / part, tmp_path / "run" / part)
    train(replace(small(), stages=small().stages[:1]), folder, tmp_path / "run", "model")

    model, start = load(tmp_path / "run" / "model"), read_backbone(folder, torch.float32)
    assert model.config.backbone == replace(start.config, vocabulary=len(model.processor.vocab))
    assert (model.backbone.lm_head.weight is model.backbone.model.embed_tokens.weight) == shape.tied
    learnt = model.backbone.state_dict()
    assert learnt.keys() == start.state_dict().keys()
    rounded = {name: tensor.bfloat16().float() for name, tensor in start.state_dict().items()}  # as models are saved
    changes = {name: (learnt[name][: len(tensor)] - tensor).abs().max() for name, tensor in rounded.items()}
    assert max(changes.values()) < 0.2  # biases and norms are random in the base, so none was lost
    assert changes["model.layers.1.self_attn.q_proj.weight"] > 0


def broken(run: Run) -> None:
    raise MioError("broken")


def leave_a_mark(run: Run) -> None:
    (run.out / "mark").touch()


def take_long(run: Run) -> None:
    time.sleep(30)


def test_nothing_starts_after_a_stage_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"first": Work(broken), "second": Work(leave_a_mark, ("first",)), "other": Work(take_long)}
    monkeypatch.setattr(mio.recipe, "STAGES", stages)
    with pytest.raises(MioError, match="broken"):
        run(Run(small(), SAMPLE, tmp_path, 2))
    assert not (tmp_path / "mark").exists()


def test_weights_are_of_kinds_of_ids_that_there_are() -> None:
    whole = tiny()
    first = replace(whole.stages[0], weights={"imge": 2.0})
    with pytest.raises(MioError, match="imge") as error:
        replace(whole, stages=(first,))
    assert "image" in error.value.fix
