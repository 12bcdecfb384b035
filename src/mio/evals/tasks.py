"""Every direction of the model on the validation split, scored: exact answers for text, judges for media."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mio.data.scenes import BACKGROUNDS
from mio.data.tasks import INSTRUCT, Shelf
from mio.evals.judges import Judge, as_clips, as_pictures, as_sounds
from mio.evals.metrics import Share, exact
from mio.pipeline import Job, Model, Reply
from mio.types import Audio, Image, Sample, Text, Turns, Video


@dataclass(frozen=True)
class Judges:
    picture: Judge  # names of emoji
    digit: Judge  # names of handwritten digits
    word: Judge  # spoken digits
    speaker: Judge  # who speaks
    motion: Judge  # how a clip moves


@dataclass(frozen=True)
class Score:
    """One line of the table. `seconds`: mean time of an answer inside its batch."""

    direction: str
    what: str
    share: Share
    split: str
    seconds: float

    def row(self) -> dict[str, object]:
        low, high = self.share.interval
        return {
            "direction": self.direction,
            "what": self.what,
            "value": round(self.share.value, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "right": self.share.right,
            "count": self.share.count,
            "split": self.split,
            "seconds": round(self.seconds, 3),
        }


Check = Callable[[Sequence[Reply], Sequence[Sample], Judges], Share]


@dataclass(frozen=True)
class Measure:
    """A task's samples, where they come from, what comes out and how that is judged."""

    direction: str
    what: str
    task: str
    out: str
    check: Check
    sources: tuple[str, ...] = ()  # keep samples of these sources only
    split: str = "validation"
    most: int = 300


def reference(sample: Sample) -> str:
    assert isinstance(sample.content, Turns)
    return "".join(p.text for p in sample.content.messages[-1].parts if isinstance(p, Text))


def answers(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    return exact([r.text for r in replies], [reference(s) for s in samples])


def _pixels(replies: Sequence[Reply]) -> list[NDArray[np.uint8]]:
    return [r.media(Image)[0].pixels for r in replies]


def picture_among_100(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    """Things that the judge has seen in training; others it cannot name."""
    names = [str(s.meta["name"]) for s in samples]
    known = [n for n, name in enumerate(names) if name in judges.picture.names]
    right = judges.picture.among(as_pictures(_pixels([replies[n] for n in known])), [names[n] for n in known], 99)
    return Share(sum(right), len(right))


def drawn_digit(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    said = judges.digit.says(as_pictures(_pixels(replies)))
    return exact(said, [str(s.meta["name"]) for s in samples])


def spoken_word(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    said = judges.word.says(as_sounds([r.media(Audio)[0].samples for r in replies]))
    return exact(said, [str(s.meta["text"]) for s in samples])


def asked_voice(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    said = judges.speaker.says(as_sounds([r.media(Audio)[0].samples for r in replies]))
    return exact(said, [request(s).split("the voice of ")[-1].rstrip(".") for s in samples])


def request(sample: Sample) -> str:
    assert isinstance(sample.content, Turns)
    return "".join(p.text for p in sample.content.messages[-2].parts if isinstance(p, Text))


def background(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    """The colour around the edge is nearest to the one that the caption names."""
    said = [nearest_background(p) for p in _pixels(replies)]
    return exact(said, [str(s.meta["caption"]).split(" on a ")[-1].removesuffix(" background") for s in samples])


def nearest_background(pixels: NDArray[np.uint8]) -> str:
    """Name of the background colour nearest to the median of the outermost pixels."""
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(edge, axis=0)
    return min(BACKGROUNDS, key=lambda n: float(np.abs(colour - np.array(BACKGROUNDS[n])).sum()))


def filmed_motion(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    said = judges.motion.says(as_clips([r.media(Video)[0].frames for r in replies]))
    return Share(sum(motion in str(s.meta["caption"]) for motion, s in zip(said, samples, strict=True)), len(samples))


def structure(replies: Sequence[Reply], samples: Sequence[Sample], judges: Judges) -> Share:
    """Pictures and texts take turns, at least two of each, and nothing was broken."""
    return Share(sum(map(takes_turns, replies)), len(replies))


def takes_turns(reply: Reply) -> bool:
    kinds = [type(p) for p in reply.parts if not (isinstance(p, Text) and not p.text.strip())]
    return not reply.faults and len(kinds) >= 4 and all(a != b for a, b in pairwise(kinds))


FSDD = ("fsdd",)
TOKENS = {"text": 60, "image": 40, "speech": 500, "video": 160, "text,image": 500}  # most ids of an answer
MEASURES: tuple[Measure, ...] = (
    Measure("speech -> text", "spoken digit, exact word", "transcribe", "text", answers, FSDD),
    Measure("speech -> text", "spoken name of a picture, exact", "transcribe", "text", answers, ("names",)),
    Measure("speech -> text", "spoken keyword, exact", "transcribe", "text", answers, ("keywords",)),
    Measure("image -> text", "handwritten digit, exact name", "name picture", "text", answers, ("digits",)),
    Measure("image -> text", "doodle, exact word", "name picture", "text", answers, ("doodles",)),
    Measure(
        "image -> text", "picture seen in training, exact name", "name picture", "text", answers, ("emoji",), "train"
    ),
    Measure(
        "image -> text", "known thing in a style never seen, exact name", "name picture", "text", answers, ("emoji",)
    ),
    Measure("image + question -> text", "scene question, exact answer", "question scene", "text", answers, most=405),
    Measure("image -> text", "scene caption, exact", "describe scene", "text", answers),
    Measure("frames -> text", "motion of a clip, exact", "motion", "text", answers),
    Measure("frames -> text", "caption of a clip, exact (thing, motion, background)", "describe clip", "text", answers),
    Measure("in-context examples", "made-up name, exact (chance 50 %)", "in context", "text", answers),
    Measure(
        "text -> image",
        "picture seen in training, right of 100",
        "draw picture",
        "image",
        picture_among_100,
        ("emoji",),
        "train",
    ),
    Measure(
        "text -> image",
        "known thing in a style never seen, right of 100",
        "draw picture",
        "image",
        picture_among_100,
        ("emoji",),
    ),
    Measure("text -> image", "handwritten digit, judged", "draw picture", "image", drawn_digit, ("digits",), most=100),
    Measure("text -> image", "scene, background colour", "draw scene", "image", background),
    Measure(
        "image editing", "redrawn in another style, right of 100", "restyle", "image", picture_among_100, split="train"
    ),
    Measure(
        "image editing",
        "scene with another background or thing: background colour",
        "edit scene",
        "image",
        background,
        split="made",
    ),
    Measure("text -> speech", "spoken digit, judged", "say", "speech", spoken_word, FSDD),
    Measure("text -> speech", "voice asked for, judged (of 6)", "say", "speech", asked_voice, FSDD),
    Measure(
        "speech -> speech", "digit repeated in another voice, judged word", "repeat", "speech", spoken_word, most=120
    ),
    Measure(
        "speech -> speech", "digit repeated in another voice, judged voice", "repeat", "speech", asked_voice, most=120
    ),
    Measure(
        "image -> speech",
        "handwritten digit spoken, judged",
        "speak picture",
        "speech",
        spoken_word,
        ("digits",),
        most=120,
    ),
    Measure("speech -> image", "spoken digit drawn, judged", "draw speech", "image", drawn_digit, FSDD, most=150),
    Measure(
        "speech -> image", "spoken name drawn, right of 100", "draw speech", "image", picture_among_100, ("names",)
    ),
    Measure("text -> frames", "motion asked for, judged (of 9)", "film", "video", filmed_motion),
    Measure(
        "interleaved story", "pictures and texts take turns, all decodable", "story", "text,image", structure, most=30
    ),
)


def measure(model: Model, shelves: Mapping[str, Shelf], judges: Judges, batch: int = 32) -> Iterator[Score]:
    """Run every measure that has samples. `shelves`: encoded items of each split by name."""
    for m in tqdm(MEASURES, desc="measure"):
        samples = _chosen(m, shelves)
        if not samples:
            continue
        start = time.perf_counter()
        jobs = [Job(_prompt(s), m.out, TOKENS[m.out], seed=n) for n, s in enumerate(samples)]
        replies = [r.checked() for i in range(0, len(jobs), batch) for r in model.run(jobs[i : i + batch])]
        seconds = (time.perf_counter() - start) / len(jobs)
        yield Score(m.direction, m.what, m.check(replies, samples, judges), m.split, seconds)


def _chosen(m: Measure, shelves: Mapping[str, Shelf]) -> list[Sample]:
    """At most `most` samples of a measure, drawn with a fixed seed; for a voice, those that name one."""
    if m.split not in shelves:
        return []
    samples = [s for s in INSTRUCT[m.task](shelves[m.split]) if not m.sources or s.source in m.sources]
    if m.check is asked_voice:
        samples = [s for s in samples if "the voice of" in request(s)]
    order = np.random.default_rng(0).permutation(len(samples))[: m.most]
    return [samples[i] for i in order]


def _prompt(sample: Sample) -> Turns:
    assert isinstance(sample.content, Turns)
    return Turns(sample.content.messages[:-1])
