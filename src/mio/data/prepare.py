"""Items -> arrays for the tokenizers' training. Media that cannot be read are named and skipped, never silent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mio.data.scenes import BACKGROUNDS, MOTIONS, Scene, a, draw_clip, draw_scene, random_scenes
from mio.data.scenes import pick as _pick
from mio.data.sources import Item, held_out
from mio.media import resize
from mio.processor import Processor, open_media
from mio.tokenizers.speech import resample
from mio.types import Audio, DataError, Image, MediaFile, Text, Video


def split(items: Sequence[Item], share: Mapping[str, float], seed: int) -> tuple[list[Item], list[Item]]:
    """Training and validation items; `share` of each source's groups is held out (a source not named: none)."""
    val = [held_out(i.group, share.get(i.source, 0.0), seed) for i in items]
    return [i for i, v in zip(items, val, strict=True) if not v], [i for i, v in zip(items, val, strict=True) if v]


def text_of(item: Item) -> str:
    return " ".join(p.text for p in item.parts if isinstance(p, Text))


@dataclass(frozen=True)
class Picture:
    """One training picture at the tokenizer's size, with its caption ("" if none) and source."""

    pixels: NDArray[np.uint8]
    caption: str
    source: str


def load_pictures(items: Iterable[Item], side: int, frames: int) -> list[Picture]:
    """Every image of the items, and `frames` frames of every clip; a picture met twice counts once."""
    out, met = [], set()
    for item in items:
        for file in [*item.media("image"), *item.media("video")]:
            if file in met:
                continue
            met.add(file)
            caption = text_of(item) if item.source in CAPTIONED else ""
            out += [Picture(p, caption, item.source) for p in _still(file, side, frames)]
    return out


CAPTIONED = {"emoji", "mulberry", "digits", "doodles", "scenes"}  # whose text is the picture's own name or caption


def _still(file: MediaFile, side: int, frames: int) -> list[NDArray[np.uint8]]:
    try:
        media = open_media(file)
    except DataError as error:
        print(f"skipped {error.at}: {error}", file=sys.stderr)
        return []
    if isinstance(media, Video):
        chosen = np.linspace(0, len(media.frames) - 1, frames).round().astype(int)
        return [resize(Image(media.frames[i]), side).pixels for i in chosen]
    assert isinstance(media, Image)
    return [resize(media, side).pixels]


@dataclass(frozen=True)
class Clip:
    samples: NDArray[np.float32]
    text: str
    source: str


def load_clips(items: Iterable[Item], rate: int) -> list[Clip]:
    """Every speech clip of the items at `rate`, with its transcript where the item has a single one."""
    out = []
    for item in items:
        files = item.media("speech")
        for file in files:
            try:
                media = open_media(file)
            except DataError as error:
                print(f"skipped {error.at}: {error}", file=sys.stderr)
                continue
            assert isinstance(media, Audio)
            text = text_of(item) if item.source in TRANSCRIBED else ""
            out.append(Clip(resample(media, rate).samples, text, item.source))
    return out


TRANSCRIBED = {"fsdd", "names", "keywords", "kerstin_de", "ljspeech"}  # orders hold slots, not words


MADE = "CC-BY-SA-4.0"  # the strictest of the pictures that scenes and clips are made from


@dataclass(frozen=True)
class SceneMaker:
    """Draws scenes of things from their pictures in the training split; never a held-out combination."""

    pictures: Mapping[tuple[str, str], MediaFile]  # (name, style) -> picture
    shares: Mapping[str, float]  # held out, of "scenes" and "motion"
    seed: int  # of the split
    draws: int = 0  # of what is drawn

    @staticmethod
    def of(train: Sequence[Item], shares: Mapping[str, float], seed: int) -> SceneMaker:
        """Things and styles are those of the corpus's own scenes."""
        subjects = {str(i.meta["subject"]) for i in train if i.source == "scenes"}
        styles = {str(i.meta["style"]) for i in train if i.source == "scenes"}
        wanted = (i for i in train if i.source == "emoji" and i.meta["name"] in subjects and i.meta["style"] in styles)
        return SceneMaker({(i.meta["name"], i.meta["style"]): i.media("image")[0] for i in wanted}, shares, seed)

    def fresh(self, seed: int) -> SceneMaker:
        """Another maker of the same things, for scenes that no training has seen."""
        return replace(self, draws=seed)

    def scenes(self, count: int) -> list[Scene]:
        """About `count` scenes: those that are held out, or lack a picture, are left out."""
        names = sorted({name for name, _ in self.pictures})
        styles = sorted({style for _, style in self.pictures})
        return [s for s in random_scenes(names, styles, count, self.draws) if self._allowed(s)] if names else []

    def _allowed(self, scene: Scene) -> bool:
        things = [scene.subject] + ([scene.object] if scene.object else [])
        known = all((thing, scene.style) in self.pictures for thing in things)
        return known and not held_out(scene.group, self.shares.get("scenes", 0.0), self.seed)

    def scene_items(self, count: int) -> Iterator[Item]:
        """Scenes as items of source "scenes", with caption and questions as the corpus has them."""
        for number, scene in enumerate(self.scenes(count)):
            parts = (self.draw(scene, number), Text(scene.caption))
            yield Item(f"made/scene{number}", "scenes", parts, scene.group, MADE, {"qa": scene.questions()})

    def edit_items(self, count: int, kinds: int = 2) -> Iterator[Item]:
        """Before and after of one instruction: another background, or another thing in the first one's place."""
        rng = np.random.default_rng([self.draws, 1])
        names = sorted({name for name, _ in self.pictures})
        for number, scene in enumerate(self.scenes(count)):
            colour, name = _pick(rng, tuple(BACKGROUNDS)), _pick(rng, names)
            if number % kinds:
                after, order = replace(scene, background=colour), f"Make the background {colour}."
            else:
                after, order = replace(scene, subject=name), f"Replace the {scene.subject} with {a(name)}."
            if after != scene and self._allowed(after):
                meta = {"instruction": order, "caption": after.caption}
                pictures = (self.draw(scene, number), self.draw(after, number))
                yield Item(f"made/edit{number}", "edits", pictures, after.group, MADE, meta)

    def clip_items(self, count: int) -> Iterator[Item]:
        """Clips of the same things; combinations that the corpus holds out are left out."""
        rng = np.random.default_rng([self.draws, 2])
        things = sorted(self.pictures)
        for number in range(count if things else 0):
            name, style = things[int(rng.integers(len(things)))]
            motion, colour = _pick(rng, MOTIONS), _pick(rng, tuple(BACKGROUNDS))
            group = f"motion:{name}|{motion}"
            if not held_out(group, self.shares.get("motion", 0.0), self.seed):
                clip = draw_clip(_pixels(self.pictures[name, style]), motion, colour, seed=number)
                caption = f"{a(name)} {motion} on a {colour} background"
                yield Item(f"made/clip{number}", "motion", (clip, Text(caption)), group, MADE, {"motion": motion})

    def draw(self, scene: Scene, seed: int) -> Image:
        first = _pixels(self.pictures[scene.subject, scene.style])
        second = _pixels(self.pictures[scene.object, scene.style]) if scene.object else None
        return draw_scene(scene, first, second, seed)


@lru_cache(maxsize=1024)
def _pixels(file: MediaFile) -> NDArray[np.uint8]:
    media = open_media(file)
    assert isinstance(media, Image)
    return media.pixels


def encode_items(items: Sequence[Item], processor: Processor, batch: int = 256) -> list[Item]:
    """The items with every medium as codes. An item whose media cannot be read is named on stderr and left out."""
    out: list[Item] = []
    for start in tqdm(range(0, len(items), batch), desc="encode", unit="batch"):
        opened = [item for item in map(_opened, items[start : start + batch]) if item]
        parts = iter(processor.encode([p for item in opened for p in item.parts]))
        out += [replace(item, parts=tuple(next(parts) for _ in item.parts)) for item in opened]
    return out


def _opened(item: Item) -> Item | None:
    try:
        return replace(item, parts=tuple(open_media(p) if isinstance(p, MediaFile) else p for p in item.parts))
    except DataError as error:
        print(f"skipped {error.at}: {error}", file=sys.stderr)
        return None
