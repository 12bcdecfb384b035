"""recipes/mio.py: the paper's slots come out as shares of tokens, packs are full, and its names resolve."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mio.cli.runs import find_recipe, recipes
from mio.data.plan import Plan, write_plan
from mio.data.stats import realised
from mio.data.store import Record, Store, write_store
from mio.recipes.mio import laptop, mio
from mio.sequence import TokenSequence
from mio.types import MioError

MADE = "0123456789abcdef"
PACKS = 10_000
SPEECH = {0: 0.125, 1: 0.375, 2: 0.75}  # of the stages' tokens (MIO, table 1)


def lengths(task: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of MIO's mixture: pairs of a picture and a caption, pages, documents and clips, speech of 1 to 15 s."""
    if task.startswith("speech"):
        return rng.integers(50, 751, count) + rng.integers(15, 60, count)
    if task == "text to speech":
        return rng.integers(200, 3001, count) + rng.integers(15, 60, count)
    if "image" in task:
        return rng.integers(50, 81, count)
    return rng.integers(*{"text": (200, 801), "interleaved": (300, 4000)}.get(task, (160, 400)), count)


TASKS = {
    **dict.fromkeys(("image to text", "text to image"), 4000),
    "text": 1000,
    **dict.fromkeys(("interleaved", "video to text", "text to video"), 400),
    **dict.fromkeys(("speech to text", "speech to text 3", "text to speech"), 1500),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng, records = np.random.default_rng(0), list[Record]()
    for task, count in TASKS.items():
        for number, length in enumerate(lengths(task, count, rng).tolist()):
            ids = np.zeros(length, np.int64)
            if task == "text to speech":  # one utterance, which cannot be cut
                ids[10:-10] = 1
            records.append(Record(TokenSequence(ids, ids == 0), f"{task}{number}", task))
    folder = tmp_path_factory.mktemp("mixture") / "store"
    write_store(folder, records, MADE)
    return Store.open(folder, MADE)


@pytest.mark.parametrize("number", SPEECH)
def test_stages_hold_the_papers_share_of_speech_in_full_packs(store: Store, tmp_path: Path, number: int) -> None:
    mix = mio().stages[number].mix(0, 4096)
    write_plan(tmp_path / "plan", store, mix, np.array([0, 1]), PACKS)
    plan = Plan.open(tmp_path / "plan")
    found = realised(store, plan, mix)
    assert found.packs == PACKS
    assert found.slots["speech"]["packs"] == SPEECH[number]
    assert found.slots["speech"]["tokens"] == pytest.approx(SPEECH[number], abs=0.01)
    assert found.fill >= 0.97
    long = np.flatnonzero(store.lengths > 2800)
    tasks = [store.about(int(n))["task"] for n in long]
    assert plan.left_out == {"text to speech/": tasks.count("text to speech")}
    assert plan.split == ({"interleaved/": tasks.count("interleaved")} if mix.turn.get("documents") else {})


def test_a_laptops_recipe_has_the_papers_ratios_and_a_hundredth_of_its_steps() -> None:
    for large, small in zip(mio().stages[:3], laptop().stages, strict=False):
        assert (large.slots, large.name) == (small.slots, small.name)
        assert small.fit.steps == large.fit.steps // 100
        assert large.fit.parts % sum(large.mix(0, 4096).turn.values()) == 0  # whole turns
        assert small.fit.parts == sum(small.mix(0, 4096).turn.values())
    assert [stage.fit.steps * stage.fit.parts * stage.tokens for stage in mio().stages[:3]] == pytest.approx(
        [142.2e9, 73.4e9, 11.5e9], rel=0.01
    )


def test_the_full_recipe_has_the_papers_shape() -> None:
    recipe = mio()
    rows = {row.name: row for row in recipe.rows}
    assert recipe.text.size + rows["image"].size + rows["speech"].size + 6 == recipe.backbone.vocabulary == 76294
    assert (rows["image"].size, rows["speech"].codebooks, rows["speech"].codebook_size) == (8192, 4, 1024)
    assert {stage.fit.optim.lr for stage in recipe.stages} == {3e-5}
    assert {stage.tokens for stage in recipe.stages} == {2800}
    pairs, documents = (recipe.stages[1].slots[name].shares for name in ("pairs", "documents"))
    assert pairs["image to text"] == pairs["text to image"]
    assert documents["text to video"] / documents["video to text"] == pytest.approx(60 / 40)


NAMES = ("mio:laptop", "mio.recipes.mio:laptop", "recipes/mio.py:laptop", "src/mio/recipes/mio.py:laptop")


def test_recipes_are_found_by_module_and_function() -> None:
    assert {find_recipe(name).name for name in NAMES} == {"mio-laptop"}
    assert {find_recipe(name).name for name in ("mio", "mio:mio", "recipes/mio.py")} == {"mio"}
    assert {"tiny", "mio", "mio:laptop"} <= set(recipes())


@pytest.mark.parametrize(
    "name", ["mio:slots", "mio:Fit", "os:getcwd", "../x.py:laptop", "mio.cli:main", "recipes/x.py"]
)
def test_nothing_but_recipes_is_called(name: str) -> None:
    with pytest.raises(MioError, match="No recipe"):
        find_recipe(name)
