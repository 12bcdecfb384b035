"""Every direction of input and output, measured on held-out items, without any judge from outside.

Text is right or wrong. A made medium is right where it lies nearer to its own reference than to nine references of
other things. Directions that no task teaches have no reference: they count what is well made only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mio.checkpoint import read_json
from mio.data.prepare import SceneMaker, split
from mio.data.sources import Item, read_corpus
from mio.data.tasks import INSTRUCT, Shelf, Task, ask, medium
from mio.evals.judges import as_sounds
from mio.evals.metrics import normal
from mio.evals.tasks import TOKENS, reference, request, takes_turns
from mio.media import resize
from mio.pipeline import Job, Model, Reply, write_media
from mio.processor import open_media
from mio.types import Audio, DataError, Image, Media, MediaFile, Message, Sample, Turns, Video

SAMPLE = Path(str(files("mio"))) / "assets" / "sample"
RIVALS = 9  # references of other things that a made medium is compared with
POOL = 60  # items that are not asked, but may be rivals
Asked = tuple[Reply, Sample]


# ------------------------------------------------------------------------------------------------------- likeness


def picture_features(picture: Image) -> NDArray[np.float64]:
    """Colours of 16 x 16 places."""
    return resize(picture, 16).pixels.reshape(-1) / 255.0


def sound_features(sound: Audio) -> NDArray[np.float64]:
    """Log mel of the first second, the level evened out."""
    out: NDArray[np.float64] = as_sounds([sound.samples], rate=sound.rate)[0, 0].numpy().astype(np.float64).reshape(-1)
    return out


def clip_features(clip: Video) -> NDArray[np.float64]:
    """Colours of 16 x 16 places in the first, a middle and the last frame."""
    chosen = np.linspace(0, len(clip.frames) - 1, 3).round().astype(int)
    return np.concatenate([picture_features(Image(clip.frames[n])) for n in chosen])


FEATURES: Mapping[type, Callable[..., NDArray[np.float64]]] = {
    Image: picture_features,
    Audio: sound_features,
    Video: clip_features,
}


def rivals_of(number: int, wanted: Sequence[str]) -> NDArray[np.int64]:
    """At most `RIVALS` places where another thing is wanted than at `number`, drawn with a fixed seed."""
    others = np.flatnonzero([w != wanted[number] for w in wanted])
    return np.random.default_rng(number).permutation(others)[:RIVALS]


def nearest_own(made: Sequence[Media | None], references: Sequence[Media], wanted: Sequence[str]) -> list[bool]:
    """Whether each made medium is nearer to the reference at its place than to those of its rivals.

    What was not made is not nearest, and without any rival nothing is. There may be more references than made media.
    """
    theirs = np.stack([FEATURES[type(r)](r) for r in references])
    out = []
    for number, one in enumerate(made):
        rivals = rivals_of(number, wanted)
        if one is None or not len(rivals):
            out.append(False)
            continue
        far = ((FEATURES[type(one)](one) - theirs[[number, *rivals]]) ** 2).sum(1)
        out.append(bool(far[0] < far[1:].min()))
    return out


# ------------------------------------------------------------------------------------------------------- checks


def right_text(asked: Sequence[Asked], pool: Sequence[Sample]) -> list[bool]:
    return [normal(reply.text) == normal(reference(sample)) for reply, sample in asked]


def near(asked: Sequence[Asked], pool: Sequence[Sample]) -> list[bool]:
    """The first medium of each answer beside that of its reference; rivals come from all of `pool`."""
    samples = [*(sample for _, sample in asked), *pool]
    truths = [_media_of(opened(sample).messages[-1].parts)[0] for sample in samples]
    made = [next(iter(_media_of(reply.parts)), None) for reply, _ in asked]
    return nearest_own(made, truths, [wanted(sample) for sample in samples])


def wanted(sample: Sample) -> str:
    """What is to be made, in words: two samples that want the same are no rivals."""
    named = (sample.meta.get(key) for key in ("name", "text", "caption"))
    return next((str(word) for word in named if word), request(sample))


def well_made(asked: Sequence[Asked], pool: Sequence[Sample]) -> list[bool]:
    return [not reply.faults and bool(_media_of(reply.parts)) for reply, _ in asked]


def in_turns(asked: Sequence[Asked], pool: Sequence[Sample]) -> list[bool]:
    return [takes_turns(reply) for reply, _ in asked]


def _media_of(parts: Sequence[object]) -> list[Media]:
    return [p for p in parts if isinstance(p, Image | Audio | Video)]


@dataclass(frozen=True)
class Check:
    """What counts as right, in words. `untaught`: no reference says so. `rivals`: others have the same chance."""

    right: Callable[[Sequence[Asked], Sequence[Sample]], list[bool]]
    words: str
    untaught: bool = False
    rivals: bool = False


EXACT = Check(right_text, "answered exactly")
SEEN = Check(right_text, "answered exactly; definitions that training has seen")
NEAREST = Check(near, "nearest to its own reference", rivals=True)
MADE = Check(well_made, "well made; no task teaches it", untaught=True)
TURNS = Check(in_turns, "texts and pictures take turns, and all of them decode")


# ------------------------------------------------------------------------------------------------------- cells


@dataclass(frozen=True)
class Cell:
    """One direction: what goes in and out, how it is asked, and what is right."""

    into: str
    out: str
    asks: Task
    check: Check
    sources: tuple[str, ...] = ()


def untaught(source: str, modality: str, order: str) -> Task:
    """Requests that no task teaches, about the media of one source."""

    def samples(shelf: Shelf) -> Iterator[Sample]:
        for item in shelf.of_source(source):
            yield ask(order, item, [medium(item, modality), order], [""])

    return samples


CELLS: tuple[Cell, ...] = (
    Cell("text", "text", INSTRUCT["define"], SEEN),
    Cell("text", "image", INSTRUCT["draw picture"], NEAREST, ("emoji", "digits")),
    Cell("text", "speech", INSTRUCT["say"], NEAREST, ("fsdd", "names")),
    Cell("text", "video", INSTRUCT["film"], NEAREST),
    Cell("text", "text,image", INSTRUCT["story"], TURNS),
    Cell("image", "text", INSTRUCT["name picture"], EXACT, ("emoji", "digits", "doodles")),
    Cell("image", "image", INSTRUCT["edit scene"], NEAREST),
    Cell("image", "speech", INSTRUCT["speak picture"], NEAREST),
    Cell("image", "video", untaught("digits", "image", "Film this."), MADE),
    Cell("speech", "text", INSTRUCT["transcribe"], EXACT, ("fsdd", "names", "keywords")),
    Cell("speech", "image", INSTRUCT["draw speech"], NEAREST),
    Cell("speech", "speech", INSTRUCT["repeat"], NEAREST),
    Cell("speech", "video", untaught("names", "speech", "Film this."), MADE),
    Cell("video", "text", INSTRUCT["motion"], EXACT),
    Cell("video", "image", untaught("motion", "video", "Draw this."), MADE),
    Cell("video", "speech", untaught("motion", "video", "Say what this is."), MADE),
    Cell("video", "video", untaught("motion", "video", "Film this."), MADE),
)


@dataclass(frozen=True)
class Measured:
    """A cell with its answers, and which of them are right; none where the data have no item of it."""

    cell: Cell
    asked: tuple[Asked, ...] = ()
    right: tuple[bool, ...] = ()
    chance: float = 0.0  # of a guess, 0 where guessing is no way


def measured(model: Model, shelf: Shelf, cell: Cell, limit: int, batch: int) -> Measured:
    """At most `limit` items of a direction, drawn with a fixed seed; none where the model does not speak it."""
    samples = [s for s in cell.asks(shelf) if not cell.sources or s.source in cell.sources]
    order = np.random.default_rng(0).permutation(len(samples))[: limit + POOL]
    spoken = set(f"{cell.into},{cell.out}".split(",")) <= set(model.modalities)
    if not (len(order) and spoken):
        return Measured(cell)
    asked = tuple(_answered(model, cell, [samples[n] for n in order[:limit]], batch))
    pool = [samples[n] for n in order[limit:]]
    return Measured(cell, asked, tuple(cell.check.right(asked, pool)), _chance(cell, asked, pool))


def _chance(cell: Cell, asked: Sequence[Asked], pool: Sequence[Sample]) -> float:
    if not cell.check.rivals:
        return 0.0
    names = [wanted(sample) for sample in (*(s for _, s in asked), *pool)]
    return float(np.mean([1 / (1 + len(rivals_of(n, names))) for n in range(len(asked))]))


def _answered(model: Model, cell: Cell, samples: Sequence[Sample], batch: int) -> Iterator[Asked]:
    for start in range(0, len(samples), batch):
        group = samples[start : start + batch]
        jobs = [Job(_prompt(s), cell.out, TOKENS[cell.out], seed=start + n) for n, s in enumerate(group)]
        yield from zip(model.run(jobs), group, strict=True)


def _prompt(sample: Sample) -> Turns:
    assert isinstance(sample.content, Turns)
    return Turns(sample.content.messages[:-1])


def opened(sample: Sample) -> Turns:
    """The conversation with its files read."""
    assert isinstance(sample.content, Turns)

    def read(message: Message) -> Message:
        return Message(message.role, tuple(open_media(p) if isinstance(p, MediaFile) else p for p in message.parts))

    return Turns(tuple(read(m) for m in sample.content.messages))


# ------------------------------------------------------------------------------------------------------- data


def unseen(corpus: Path, folder: Path) -> Shelf:
    """The validation split of a corpus by the shipped rule, with edits of scenes drawn into `folder`.

    Raises:
        DataError: the corpus has no item that is held out.
    """
    rule = read_json((corpus if (corpus / "split.json").is_file() else SAMPLE) / "split.json")
    train, val = split(read_corpus(corpus), rule["held_out"], rule["seed"])
    if not val:
        raise DataError("No item of this corpus is held out.", at=str(corpus), fix="Give a whole corpus.")
    edits = SceneMaker.of(train, rule["held_out"], rule["seed"]).fresh(1).edit_items(60)
    definitions = [item for item in train if item.source == "definitions"]  # held out in no recipe
    return Shelf.of([*val, *(_stored(item, folder) for item in edits), *definitions])


def _stored(item: Item, folder: Path) -> Item:
    """The item with its pictures in files, which is how tasks want them."""
    stem = folder / item.id.replace("/", "-")
    pictures = [p for p in item.parts if isinstance(p, Image)]
    paths = [write_media(p, stem.with_name(f"{stem.name}-{n}")) for n, p in enumerate(pictures)]
    return replace(item, parts=tuple(MediaFile(path, "image") for path in paths))
