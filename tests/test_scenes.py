"""data/scenes.py, prepare.py: pictures show what their captions say, and nothing made is held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mio.data.prepare import SceneMaker
from mio.data.scenes import (
    BACKGROUNDS,
    MOTIONS,
    OPPOSITE,
    RELATIONS,
    Scene,
    a,
    draw_clip,
    draw_scene,
    paste,
    random_scenes,
)
from mio.data.sources import CORPUS, Item, held_out
from mio.media import write_image
from mio.types import Image, MediaFile, Text

NAMES = ("fox", "owl", "umbrella", "cat")


def square(colour: tuple[int, int, int]) -> np.ndarray:
    """A filled square with a white margin."""
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[8:56, 8:56] = colour
    return picture


RED, BLUE = square((200, 0, 0)), square((0, 0, 200))
HALF = np.where(np.arange(64)[:, None, None] < 32, RED, 255).astype(np.uint8)


def centre(pixels: np.ndarray, channel: int) -> tuple[float, float]:
    """Mean x and y of the pixels where one channel stands out."""
    others = np.delete(pixels.astype(int), channel, axis=-1).max(-1)
    y, x = np.nonzero(pixels[..., channel].astype(int) - others > 100)
    return float(x.mean()), float(y.mean())


def relation(subject: str, relation: str, object: str, background: str = "blue") -> Scene:
    return Scene(subject, background, "noto", relation, object)


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (relation("fox", "left of", "owl"), "a fox to the left of an owl on a blue background"),
        (relation("owl", "right of", "fox", "grey"), "an owl to the right of a fox on a grey background"),
        (relation("Umbrella", "above", "cat"), "an Umbrella above a cat on a blue background"),
        (relation("cat", "below", "light bulb"), "a cat below a light bulb on a blue background"),
        (Scene("fox", "blue", "noto", count=4), "four fox symbols on a blue background"),
        (Scene("owl", "pink", "noto", count=1), "one owl on a pink background"),
    ],
)
def test_captions_are_worded_as_the_corpus_words_them(scene: Scene, caption: str) -> None:
    assert scene.caption == caption


def test_questions_are_worded_as_the_corpus_words_them() -> None:
    assert relation("fox", "left of", "owl").questions() == [
        ("what is to the left of the owl?", "fox"),
        ("where is the owl?", "to the right of the fox"),
        ("what colour is the background?", "blue"),
    ]
    assert relation("fox", "above", "owl").questions()[1] == ("where is the owl?", "below the fox")
    assert Scene("fox", "white", "noto", count=3).questions() == [
        ("how many fox symbols are there?", "three"),
        ("what is shown?", "fox"),
        ("what colour is the background?", "white"),
    ]


def test_a_scenes_group_is_the_one_the_corpus_gives_it(tmp_path: Path) -> None:
    scenes = [relation("fox", "left of", "owl"), Scene("fox", "pink", "noto", count=3)]
    source = next(s for s in CORPUS if s.name == "scenes")
    (tmp_path / "images").mkdir()
    fields = ({"subject": "fox", "relation": "left of", "object": "owl"}, {"subject": "fox", "count": 3})
    lines = [json.dumps({"image": f"{n}.webp", "caption": "x", **f}) for n, f in enumerate(fields)]
    (tmp_path / "images" / "scenes.jsonl").write_text("\n".join(lines))
    assert [i.group for i in source.items(tmp_path)] == [s.group for s in scenes]


def test_random_scenes_are_the_same_for_a_seed_and_well_formed() -> None:
    scenes = list(random_scenes(NAMES, ("noto", "twemoji"), 600, seed=1))
    assert scenes == list(random_scenes(NAMES, ("noto", "twemoji"), 600, seed=1))
    assert scenes != list(random_scenes(NAMES, ("noto", "twemoji"), 600, seed=2))
    counts = [s for s in scenes if s.count]
    assert len(counts) / 600 == pytest.approx(1 / 3, abs=0.06)
    assert {s.count for s in counts} == {1, 2, 3, 4}
    assert all(s.relation in RELATIONS and s.object not in ("", s.subject) for s in scenes if not s.count)
    assert {s.background for s in scenes} == set(BACKGROUNDS)


@pytest.mark.parametrize(
    ("name", "axis", "sign"), [("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1)]
)
def test_the_subject_stands_where_the_relation_says(name: str, axis: int, sign: int) -> None:
    image = draw_scene(relation("fox", name, "owl", "white"), RED, BLUE, seed=0).pixels
    apart = np.subtract(centre(image, 0), centre(image, 2))
    assert apart[axis] * sign > 40
    assert abs(apart[1 - axis]) < 1


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_background_has_its_colour_also_around_the_things(background: str) -> None:
    image = draw_scene(relation("fox", "above", "owl", background), RED, BLUE, seed=0).pixels
    assert image.shape == (96, 96, 3)
    for x, y in ((0, 0), (95, 95), (26, 2)):  # the last lies in a picture's white margin
        assert_array_equal(image[y, x], BACKGROUNDS[background])


@given(st.integers(1, 4), st.integers(0, 99))
def test_as_many_things_are_drawn_as_are_counted(count: int, seed: int) -> None:
    image = draw_scene(Scene("fox", "blue", "noto", count=count), RED, None, seed).pixels
    corners = [image[y : y + 48, x : x + 48] for y in (0, 48) for x in (0, 48)]
    assert sum(bool((c[..., 0].astype(int) - c[..., 2] > 100).any()) for c in corners) == count


@given(st.floats(-60, 110), st.floats(-60, 110), st.integers(1, 60))
def test_paste_clips_at_every_border(x: float, y: float, size: int) -> None:
    canvas = np.zeros((64, 64, 3), np.uint8)
    paste(canvas, np.full((8, 8, 3), 9, np.uint8), (x, y), size)
    expected = np.zeros((64, 64, 3), np.uint8)
    left, top = round(x), round(y)
    expected[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 9
    assert_array_equal(canvas, expected)


# ------------------------------------------------------------------------------------------------ clips


def frames(motion: str) -> np.ndarray:
    clip = draw_clip(RED, motion, "white")
    assert clip.fps == 8.0
    assert clip.frames.shape == (8, 64, 64, 3)
    return clip.frames


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("left to right", 0, 1), ("right to left", 0, -1), ("top to bottom", 1, 1), ("bottom to top", 1, -1)],
)
def test_a_moving_thing_moves_where_the_motion_says(motion: str, axis: int, sign: int) -> None:
    path = np.array([centre(f, 0) for f in frames(f"moves from {motion}")])
    assert (np.diff(path[:, axis]) * sign > 0).all()
    assert np.ptp(path[:, 1 - axis]) == 0


@pytest.mark.parametrize(("motion", "sign"), [("gets bigger", 1), ("gets smaller", -1)])
def test_a_growing_thing_grows(motion: str, sign: int) -> None:
    area = (frames(motion)[..., 1] < 100).sum((1, 2))
    assert (np.diff(area) * sign > 0).all()


def test_a_blinking_thing_is_there_every_other_frame() -> None:
    assert ((frames("blinks")[..., 1] < 100).any((1, 2)) == [True, False] * 4).all()


def test_a_jumping_thing_goes_up_and_comes_down() -> None:
    heights = [-centre(f, 0)[1] for f in frames("jumps up and down")]
    assert heights[2] == max(heights)
    assert heights[0] == min(heights) == heights[4]


def test_a_spinning_thing_shows_its_four_sides() -> None:
    clip = draw_clip(HALF, "spins around", "white").frames
    assert len({f.tobytes() for f in clip[:4]}) == 4
    assert_array_equal(clip[:4], clip[4:])


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_is_the_same_for_a_seed(motion: str) -> None:
    first, second = (draw_clip(HALF, motion, "grey", seed=3).frames for _ in range(2))
    assert_array_equal(first, second)
    assert len({f.tobytes() for f in first}) > 1


# ------------------------------------------------------------------------------------------------ what is made


@pytest.fixture
def maker(tmp_path: Path) -> SceneMaker:
    """All names in one style and two in another; half of all combinations held out."""
    pictures = {}
    for style, names in (("noto", NAMES), ("twemoji", NAMES[:2])):
        for name in names:
            path = tmp_path / f"{style}-{name}.png"
            write_image(Image(RED), path)
            pictures[name, style] = MediaFile(path, "image")
    return SceneMaker(pictures, shares={"scenes": 0.5, "motion": 0.5}, seed=4)


def test_no_scene_is_a_held_out_combination(maker: SceneMaker) -> None:
    scenes = maker.scenes(400)
    assert 100 < len(scenes) < 300
    assert not any(held_out(s.group, 0.5, 4) for s in scenes)
    assert any(held_out(s.group, 0.5, 4) for s in random_scenes(NAMES, ("noto",), 400, 0))


def test_every_thing_of_a_scene_has_a_picture_in_its_style(maker: SceneMaker) -> None:
    for scene in maker.scenes(300):
        assert (scene.subject, scene.style) in maker.pictures
        assert not scene.object or (scene.object, scene.style) in maker.pictures


def test_neither_items_nor_edits_nor_clips_are_held_out(maker: SceneMaker) -> None:
    made = [*maker.scene_items(60), *maker.edit_items(60), *maker.clip_items(60)]
    assert {i.source for i in made} == {"scenes", "edits", "motion"}
    assert not any(held_out(i.group, 0.5, 4) for i in made)
    assert len({i.id for i in made}) == len(made)


def test_scene_items_carry_what_the_corpus_carries(maker: SceneMaker) -> None:
    for item, scene in zip(maker.scene_items(30), maker.scenes(30), strict=True):
        picture, caption = item.parts
        assert isinstance(picture, Image)
        assert caption == Text(scene.caption)
        assert (item.group, item.meta["qa"]) == (scene.group, scene.questions())


def test_an_edit_says_what_changes_and_changes_it(maker: SceneMaker) -> None:
    edits = list(maker.edit_items(200))
    assert len(edits) > 20
    for edit in edits:
        before, after = edit.parts
        words = edit.meta["instruction"].removesuffix(".").split()
        if words[:3] == ["Make", "the", "background"]:
            assert f"on a {words[3]} background" in edit.meta["caption"]
            assert (before.pixels != after.pixels).any()
        else:
            new = words[-1]
            assert edit.meta["instruction"].endswith(f" with {a(new)}.")
            assert edit.meta["caption"].split(" on a ")[0].split()[1] == new


def test_another_seed_of_draws_makes_other_scenes_of_the_same_split(maker: SceneMaker) -> None:
    other = maker.fresh(9)
    assert other.scenes(50) != maker.scenes(50)
    assert not any(held_out(s.group, 0.5, 4) for s in other.scenes(200))


def test_a_maker_takes_things_and_styles_of_the_corpus_scenes_and_training_pictures_only() -> None:
    def emoji(name: str, style: str) -> Item:
        return Item(name, "emoji", (MediaFile(Path(name), "image"),), name, meta={"name": name, "style": style})

    scene = Item("s", "scenes", (), "s", meta={"subject": "fox", "style": "noto"})
    train = [emoji("fox", "noto"), emoji("fox", "twemoji"), emoji("owl", "noto"), scene]
    assert list(SceneMaker.of(train, {"scenes": 0.1}, 0).pictures) == [("fox", "noto")]
    assert SceneMaker.of([scene], {"scenes": 0.1}, 0).scenes(20) == []


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(RELATIONS))
def test_a_scene_and_its_mirror_twin_are_one_combination(first: str, second: str, relation: str) -> None:
    scene = Scene(first, "blue", "noto", relation, second)
    twin = Scene(second, "pink", "twemoji", OPPOSITE[relation], first)
    assert scene.group == twin.group
