"""The sample that ships: readable, enough for every task, small, and credited to the last file."""

from __future__ import annotations

import importlib.util
import re
import sys
import zipfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mio.checkpoint import read_json, verify
from mio.data.prepare import split
from mio.data.sources import Item, read_corpus
from mio.data.tasks import INSTRUCT, Shelf
from mio.processor import open_media
from mio.recipes.tiny import tiny
from mio.types import MediaFile

SAMPLE = Path(str(files("mio") / "assets" / "sample"))
OURS = {"README.md", "split.json", "credits.json", "manifest.json"}
CREDITS: dict[str, Any] = read_json(SAMPLE / "credits.json")


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return read_corpus(SAMPLE)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", Path(__file__).parents[1] / "scripts/make_sample.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def of(items: Sequence[Item], source: str, field: str) -> set[str]:
    return {str(i.meta[field]) for i in items if i.source == source}


def test_every_medium_opens(items: list[Item]) -> None:
    files = [p for i in items for p in i.parts if isinstance(p, MediaFile)]
    assert len(files) > 200
    for file in files:
        open_media(file)


def test_it_is_small_and_whole() -> None:
    verify(SAMPLE)
    assert sum(p.stat().st_size for p in SAMPLE.rglob("*") if p.is_file()) <= 900_000


@pytest.mark.parametrize("task", [name for name in INSTRUCT if name != "edit scene"])
def test_every_task_has_samples_that_no_training_has_seen(task: str, items: list[Item]) -> None:
    rule = read_json(SAMPLE / "split.json")
    _, val = split(items, rule["held_out"], rule["seed"])
    unseen = {i.id for i in val}
    samples = list(INSTRUCT[task](Shelf.of(items)))
    held = [s for s in samples if s.id.partition(":")[2].partition("#")[0] in unseen]
    never_held = not any(s.source in rule["held_out"] for s in samples)
    assert len(samples if never_held else held) >= 2


def test_its_split_is_the_one_of_the_recipe_that_ships() -> None:
    assert read_json(SAMPLE / "split.json") == {"held_out": tiny().data.held_out, "seed": tiny().data.split_seed}


def test_every_source_has_something_to_train_on(items: list[Item]) -> None:
    train, _ = split(items, tiny().data.held_out, tiny().data.split_seed)
    assert {i.source for i in train} == {i.source for i in items}


def test_digits_voices_and_motions_are_all_there(items: list[Item]) -> None:
    assert len(of(items, "digits", "name")) == len(of(items, "fsdd", "text")) == 10
    assert len(of(items, "fsdd", "speaker")) == 6
    assert len(of(items, "doodles", "name")) == 8
    assert len(of(items, "motion", "motion")) == 9


def test_emoji_come_in_three_styles_and_what_is_joined_finds_them(items: list[Item]) -> None:
    hexes = of(items, "emoji", "hex")
    assert sum(i.source == "emoji" for i in items) == 3 * len(hexes) == 72
    assert of(items, "names", "hex") | of(items, "definitions", "hex") <= hexes


def test_every_item_names_a_licence_whose_text_is_there(items: list[Item]) -> None:
    named = {i.license for i in items} | {name for part in CREDITS["parts"] for name in part["licenses"]}
    assert named == {p.stem for p in (SAMPLE / "LICENSES").iterdir()}


def test_every_source_credits_the_licences_of_its_items(items: list[Item]) -> None:
    for part in CREDITS["parts"]:
        assert {i.license for i in items if i.source == part["source"]} <= set(part["licenses"])
        assert part["items"] == sum(i.source == part["source"] for i in items)
        assert part["attribution"] and part["changed"] and part["origin"]


def test_no_file_lacks_an_attribution() -> None:
    credited = {file for part in CREDITS["parts"] for file in part["files"]}
    there = {p.relative_to(SAMPLE).as_posix() for p in SAMPLE.rglob("*") if p.is_file()}
    assert {file for file in there if not file.startswith("LICENSES/")} == credited | OURS


def test_every_story_names_its_people(items: list[Item]) -> None:
    stories = {i.id for i in items if i.source in ("storybook", "stories")}
    assert {w["item"] for w in CREDITS["works"]} == stories
    assert all(w["author"] and w["illustrator"] and w["license"] and w["title"] for w in CREDITS["works"])


def test_the_readme_says_what_the_credits_say() -> None:
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    for part in CREDITS["parts"]:
        assert part["attribution"] in readme
        assert all(file in readme for file in part["files"])
    assert all(w["author"] in readme and w["title"] in readme for w in CREDITS["works"])


def test_nobody_can_be_recognised(items: list[Item]) -> None:
    assert not {i.source for i in items} & {"narration", "recipes", "libri_speakers", "kerstin_de"}
    assert not list(SAMPLE.rglob("real*"))


def test_packs_hold_used_members_only_stored_and_undated(items: list[Item]) -> None:
    used = {(p.path, p.member) for i in items for p in i.parts if isinstance(p, MediaFile)}
    for pack in SAMPLE.rglob("*.zip"):
        with zipfile.ZipFile(pack) as archive:
            assert {(pack, name) for name in archive.namelist()} <= used
            assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
            assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_same_members_make_the_same_archive(script: ModuleType, tmp_path: Path) -> None:
    pack = SAMPLE / "images" / "digits.zip"
    with zipfile.ZipFile(pack) as archive:
        script.copy_members(pack, sorted(archive.namelist()), tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == pack.read_bytes()


def test_items_are_spread_over_a_field_and_ordered_by_hash(script: ModuleType, items: list[Item]) -> None:
    digits = [i for i in items if i.source == "digits"]
    ten = script.spread(digits, 10, ("name",), ())
    assert len(of(ten, "digits", "name")) == 10
    assert script.spread(digits[::-1], 10, ("name",), ()) == ten
    zeros = [i for i in digits if i.meta["name"] == "zero"]
    assert of(script.spread(digits, 9, ("name",), zeros[:1]), "digits", "name").isdisjoint({"zero"})


def test_tables_survive_a_bar_in_a_cell(script: ModuleType) -> None:
    lines = script.table(("a",), [("x|y",)]).splitlines()
    assert re.fullmatch(r"\| x\\\|y \|", lines[2])
