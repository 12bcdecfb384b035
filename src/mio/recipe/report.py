"""The last stage: judges trained on real media, and every direction measured on the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mio.checkpoint import commit, write_json
from mio.data.prepare import encode_items, load_clips, load_pictures
from mio.data.sources import Item
from mio.data.tasks import Shelf
from mio.evals.judges import Judge, as_clips, as_pictures, as_sounds, train_judge
from mio.evals.metrics import Share, exact
from mio.evals.tasks import Judges, Score, measure
from mio.media import resize
from mio.pipeline import load
from mio.processor import open_media
from mio.recipe.tree import Recipe, Run
from mio.tokenizers.video import uniform_frames
from mio.types import Image, Video


def judges_stage(run: Run) -> None:
    """The classifiers that measure, trained apart from everything else."""
    judges(run)
    write_json(run.out / "judges" / "config.json", dict(run.recipe.judges))


def judges(run: Run) -> Judges:
    """Classifiers trained on real media of the training split only; each resumes or loads what it has learned."""
    train = run.items()[0]
    pictures = load_pictures(
        [i for i in train if i.source in ("emoji", "digits")], run.recipe.image.network.image_size, 1
    )
    clips = load_clips([i for i in train if i.source == "fsdd"], 16000)
    speakers = [str(i.meta["speaker"]) for i in train if i.source == "fsdd"]
    films = [
        Film.of(i, run.recipe)
        for i in [
            *(i for i in train if i.source == "motion"),
            *run.scene_maker(train).clip_items(run.recipe.data.clips),
        ]
    ]

    def judge(name: str, inputs: Tensor, labels: list[str]) -> Judge:
        return train_judge(inputs, labels, run.recipe.judges[name], run.out / "judges" / name, name)

    emoji = [p for p in pictures if p.source == "emoji"]
    digits = [p for p in pictures if p.source == "digits"]
    sounds = as_sounds([c.samples for c in clips])
    return Judges(
        judge("picture", as_pictures([p.pixels for p in emoji]), [p.caption for p in emoji]),
        judge("digit", as_pictures([p.pixels for p in digits]), [p.caption for p in digits]),
        judge("word", sounds, [c.text for c in clips]),
        judge("speaker", sounds, speakers),
        judge("motion", as_clips([f.frames for f in films]), [f.motion for f in films]),
    )


@dataclass(frozen=True)
class Film:
    """The frames that the tokenizer would choose of a clip, and how it moves."""

    frames: NDArray[np.uint8]
    motion: str

    @staticmethod
    def of(item: Item, recipe: Recipe) -> Film:
        video = item.parts[0] if isinstance(item.parts[0], Video) else open_media(item.media("video")[0])
        assert isinstance(video, Video)
        chosen = uniform_frames(len(video.frames), recipe.frames)
        side = recipe.image.network.image_size
        return Film(np.stack([resize(Image(video.frames[i]), side).pixels for i in chosen]), str(item.meta["motion"]))


def measure_stage(run: Run) -> None:
    """Every direction on the validation split, and the judges on real validation media, into report.json."""
    judging = judges(run)
    model, (train, val) = load(run.out / "model"), run.items()
    seen = [i for i in train if i.source == "emoji"]
    made = list(run.scene_maker(train).fresh(run.recipe.seed + 1).edit_items(200))
    splits = {"validation": val, "train": seen, "made": made}
    shelves = {n: Shelf.of(encode_items(i, model.processor), run.recipe.seed) for n, i in splits.items()}
    rows = [score.row() for score in measure(model, shelves, judging)]
    rows += [score.row() for score in judged_real(judging, val, run.recipe)]

    def write(folder: Path) -> None:
        write_json(folder / "report.json", rows)
        write_json(folder / "config.json", {"model": model.config.fingerprint})

    commit(run.out / "measure", write)


def judged_real(judges: Judges, val: list[Item], recipe: Recipe) -> Iterator[Score]:
    """How far the judges themselves can be trusted: their share right on real media of the validation split."""
    pictures = load_pictures([i for i in val if i.source in ("emoji", "digits")], recipe.image.network.image_size, 1)
    emoji = [p for p in pictures if p.source == "emoji" and p.caption in judges.picture.names]
    among = judges.picture.among(as_pictures([p.pixels for p in emoji]), [p.caption for p in emoji], 99)
    yield Score(
        "judge",
        "picture, real ones in a style not trained on, right of 100",
        Share(sum(among), len(among)),
        "validation",
        0,
    )
    digits = [p for p in pictures if p.source == "digits"]
    said = judges.digit.says(as_pictures([p.pixels for p in digits]))
    yield Score("judge", "handwritten digit, real ones", exact(said, [p.caption for p in digits]), "validation", 0)
    spoken = [i for i in val if i.source == "fsdd"]
    clips = load_clips(spoken, 16000)
    sounds = as_sounds([c.samples for c in clips])
    yield Score(
        "judge", "spoken digit, real ones", exact(judges.word.says(sounds), [c.text for c in clips]), "validation", 0
    )
    speakers = [str(i.meta["speaker"]) for i in spoken]
    yield Score("judge", "speaker, real ones", exact(judges.speaker.says(sounds), speakers), "validation", 0)
    films = [Film.of(i, recipe) for i in val if i.source == "motion"]
    moves = judges.motion.says(as_clips([f.frames for f in films]))
    yield Score("judge", "motion, real clips", exact(moves, [f.motion for f in films]), "validation", 0)
