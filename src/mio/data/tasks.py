"""Items -> conversations of every direction, for fine-tuning and for measuring.

Each task is a function from items to samples; its name is what mixtures, logs and evaluations call it. Wording is
drawn from a seed per item, so that a task is the same list every time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mio.data.sources import Item
from mio.types import Encoded, MediaFile, Message, Role, Sample, Text, Turns

Part = Text | Encoded | MediaFile
Turn = tuple[Role, Sequence[Part | str]]
Task = Callable[["Shelf"], Iterator[Sample]]

STYLES = {"mulberry": "mulberry", "digits": "handwritten", "doodles": "doodle"}  # emoji name their own
NAMED_PICTURES = ("emoji", "mulberry", "digits", "doodles")


@dataclass(frozen=True)
class Shelf:
    """Items by source; `seed` varies the wording and the chance pairings."""

    items: Mapping[str, Sequence[Item]]
    seed: int = 0

    @staticmethod
    def of(items: Sequence[Item], seed: int = 0) -> Shelf:
        by_source: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            by_source[item.source].append(item)
        return Shelf(by_source, seed)

    def of_source(self, *names: str) -> Iterator[Item]:
        for name in names:
            yield from self.items.get(name, ())

    def rng(self, *key: object) -> np.random.Generator:
        digest = hashlib.sha256("|".join(map(str, (self.seed, *key))).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def medium(item: Item, modality: str) -> Encoded | MediaFile:
    """The item's first part of a modality, as codes or as a file still to be encoded."""
    return next(p for p in item.parts if isinstance(p, Encoded | MediaFile) and p.modality == modality)


def words(item: Item) -> str:
    return " ".join(p.text for p in item.parts if isinstance(p, Text))


def ask(id: str, item: Item, question: Sequence[Part | str], answer: Sequence[Part | str], **meta: object) -> Sample:
    """One user turn and one assistant turn."""
    return _talk(id, [item], [("user", question), ("assistant", answer)], **meta)


def _talk(id: str, items: Sequence[Item], turns: Sequence[Turn], **meta: object) -> Sample:
    """A conversation about some items of one source."""
    messages = [Message(r, tuple(Text(p) if isinstance(p, str) else p for p in parts)) for r, parts in turns]
    licenses = ", ".join(sorted({item.license for item in items}))
    return Sample(f"{id}:{items[0].id}", Turns(tuple(messages)), items[0].source, licenses, dict(meta))


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


WHAT = ("What is this?", "Name this picture.", "What do you see?")
HEAR = ("What is said?", "Transcribe this speech.")


def style_of(item: Item) -> str:
    return str(item.meta.get("style") or STYLES[item.source])


# ------------------------------------------------------------------------------------- pictures and their names


def name_picture(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source(*NAMED_PICTURES):
        question = pick(shelf.rng("name", item.id), WHAT)
        yield ask("name", item, [medium(item, "image"), question], [words(item)])


def draw_picture(shelf: Shelf) -> Iterator[Sample]:
    """Mostly with the style named, so that one request has one picture."""
    for item in shelf.of_source(*NAMED_PICTURES):
        style = "" if shelf.rng("draw", item.id).random() < 0.15 else f" in {style_of(item)} style"
        yield ask("draw", item, [f"Draw {words(item)}{style}."], [medium(item, "image")], name=words(item))


def name_pictures(shelf: Shelf) -> Iterator[Sample]:
    for number, items in _rounds(shelf, "name"):
        turns: list[Turn] = []
        for item in items:
            question = pick(shelf.rng("name", number, item.id), WHAT)
            turns += [("user", [medium(item, "image"), question]), ("assistant", [words(item)])]
        yield _talk(f"names{number}", items, turns)


def draw_pictures(shelf: Shelf) -> Iterator[Sample]:
    for number, items in _rounds(shelf, "draw"):
        turns: list[Turn] = []
        for item in items:
            turns += [
                ("user", [f"Draw {words(item)} in {style_of(item)} style."]),
                ("assistant", [medium(item, "image")]),
            ]
        yield _talk(f"draws{number}", items, turns)


def _rounds(shelf: Shelf, key: str, rounds: int = 4, together: int = 6) -> Iterator[tuple[int, list[Item]]]:
    """Pictures of a source in groups by chance, each picture once a round; a conversation about several costs a sixth
    less than one about each, and always other company keeps a picture from being known by its neighbours."""
    for source in NAMED_PICTURES:
        items = list(shelf.of_source(source))
        for number in range(rounds):
            order = shelf.rng(key, source, number).permutation(len(items))
            for start in range(0, len(items), together):
                yield number, [items[i] for i in order[start : start + together]]


def restyle(shelf: Shelf) -> Iterator[Sample]:
    """Editing by instruction: the same thing in another drawing style."""
    by_name: dict[str, list[Item]] = defaultdict(list)
    for item in shelf.of_source("emoji"):
        by_name[words(item)].append(item)
    for name, items in by_name.items():
        if len(items) > 1:
            first, second = shelf.rng("restyle", name).permutation(len(items))[:2]
            request = f"Redraw it in {style_of(items[second])} style."
            yield ask(
                "restyle",
                items[first],
                [medium(items[first], "image"), request],
                [medium(items[second], "image")],
                name=name,
            )


# ----------------------------------------------------------------------------------------------------- scenes


def describe_scene(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("scenes"):
        yield ask("describe", item, [medium(item, "image"), "Describe this picture."], [words(item)])


def question_scene(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("scenes"):
        for number, (question, answer) in enumerate(item.meta["qa"]):
            yield ask(f"question{number}", item, [medium(item, "image"), question.capitalize()], [answer])


def questions_scene(shelf: Shelf) -> Iterator[Sample]:
    """All questions about a picture in one conversation, in chance order; the picture is shown once."""
    for item in shelf.of_source("scenes"):
        asked = list(item.meta["qa"])
        turns: list[Message] = []
        for number in shelf.rng("questions", item.id).permutation(len(asked)):
            question, answer = (Text(t) for t in asked[number])
            shown = (medium(item, "image"),) if not turns else ()
            turns.append(Message("user", (*shown, Text(question.text.capitalize()))))
            turns.append(Message("assistant", (answer,)))
        yield Sample(f"questions:{item.id}", Turns(tuple(turns)), item.source, item.license)


def draw_scene(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("scenes"):
        yield ask("scene", item, [f"Draw {words(item)}."], [medium(item, "image")], caption=words(item))


def edit_scene(shelf: Shelf) -> Iterator[Sample]:
    """Pairs from the generator: the picture, an instruction, and the picture that it asks for."""
    for item in shelf.of_source("edits"):
        before, after = (p for p in item.parts if isinstance(p, Encoded | MediaFile))
        yield ask("edit", item, [before, str(item.meta["instruction"])], [after], caption=item.meta["caption"])


# ----------------------------------------------------------------------------------------------------- speech

SPOKEN = ("fsdd", "names", "keywords")


def transcribe(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source(*SPOKEN):
        question = pick(shelf.rng("asr", item.id), HEAR)
        yield ask("transcribe", item, [medium(item, "speech"), question], [words(item)])


def order(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("orders"):
        yield ask("order", item, [medium(item, "speech"), "What is ordered?"], [words(item)])


def voice(item: Item) -> str:
    speaker = item.meta.get("speaker")
    return f" in the voice of {speaker}" if speaker else ""


def say(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("fsdd", "names"):
        rng = shelf.rng("say", item.id)
        spoken = voice(item) if rng.random() < 0.85 else ""
        yield ask("say", item, [f"Say {words(item)}{spoken}."], [medium(item, "speech")], text=words(item))


def repeat(shelf: Shelf) -> Iterator[Sample]:
    """Speech to speech: the same word in another voice."""
    by_word = _by(shelf.of_source("fsdd"), words)
    for item in shelf.of_source("fsdd"):
        other = _one(by_word[words(item)], shelf.rng("repeat", item.id))
        request = f"Repeat it{voice(other)}."
        yield ask("repeat", item, [medium(item, "speech"), request], [medium(other, "speech")], text=words(item))


def speak_picture(shelf: Shelf) -> Iterator[Sample]:
    """Image to speech: handwritten digits with human voices, pictures with their spoken names."""
    digits = _by(shelf.of_source("fsdd"), words)
    for item in shelf.of_source("digits"):
        if words(item) in digits:
            other = _one(digits[words(item)], shelf.rng("speak", item.id))
            request = f"Say what you see{voice(other)}."
            yield ask("speak", item, [medium(item, "image"), request], [medium(other, "speech")], text=words(item))
    spoken = _by(shelf.of_source("names"), lambda i: str(i.meta["hex"]))
    for item in shelf.of_source("emoji"):
        for other in spoken.get(str(item.meta["hex"]), ())[:1]:
            request = f"Say what you see{voice(other)}."
            yield ask("speak", item, [medium(item, "image"), request], [medium(other, "speech")], text=words(item))


def draw_speech(shelf: Shelf) -> Iterator[Sample]:
    """Speech to image."""
    digits = _by(shelf.of_source("digits"), words)
    for item in shelf.of_source("fsdd"):
        if words(item) in digits:
            other = _one(digits[words(item)], shelf.rng("hear", item.id))
            yield ask(
                "hear",
                item,
                [medium(item, "speech"), "Draw what you hear."],
                [medium(other, "image")],
                name=words(item),
            )
    pictures = _by(shelf.of_source("emoji"), lambda i: str(i.meta["hex"]))
    for item in shelf.of_source("names"):
        here = pictures.get(str(item.meta["hex"]))
        if here:
            other = _one(here, shelf.rng("hear", item.id))
            request = f"Draw what you hear in {style_of(other)} style."
            yield ask("hear", item, [medium(item, "speech"), request], [medium(other, "image")], name=words(item))


# ----------------------------------------------------------------------------------------------------- clips


def describe_clip(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("motion"):
        yield ask("clip", item, [medium(item, "video"), "Describe the clip."], [words(item)])


def motion(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("motion"):
        yield ask("motion", item, [medium(item, "video"), "How does it move?"], [str(item.meta["motion"])])


def film(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("motion"):
        yield ask("film", item, [f"Film {words(item)}."], [medium(item, "video")], caption=words(item))


# ------------------------------------------------------------------------------------- interleaved, context, text


def story(shelf: Shelf, pages: int = 4) -> Iterator[Sample]:
    """Illustrated stories: runs of `pages` pages, asked for by title; later runs continue the story."""
    for item in shelf.of_source("storybook"):
        parts = [p for p in item.parts if isinstance(p, Text) or p.modality == "image"]  # type: ignore[union-attr]
        for number, start in enumerate(range(0, len(parts) - 1, 2 * pages)):
            title = str(item.meta["title"])
            request = f"Tell an illustrated story: {title}" if not start else f"Go on with the story: {title}"
            yield ask(f"story{number}", item, [request], [shortened(p) for p in parts[start : start + 2 * pages]])


def shortened(part: object, limit: int = 240) -> Part:
    """Pages of text are cut at a word, so that a run of pages fits the model's window."""
    if isinstance(part, Text) and len(part.text) > limit:
        return Text(part.text[:limit].rsplit(" ", 1)[0])
    return part  # type: ignore[return-value]


NONSENSE = ("dax", "wug", "blick", "zorp", "fep", "toma")


def in_context(shelf: Shelf) -> Iterator[Sample]:
    """Two kinds of drawing named by made-up words, then a third drawing: only the context tells its name."""
    kinds = _by(shelf.of_source("digits", "doodles"), lambda i: f"{i.source}{words(i)}")
    for number in range(sum(map(len, kinds.values())) // 4 if len(kinds) > 1 else 0):
        rng = shelf.rng("context", number)
        first, second = rng.choice(sorted(kinds), 2, replace=False)
        names = [NONSENSE[i] for i in rng.choice(len(NONSENSE), 2, replace=False)]
        target = int(rng.integers(2))
        shown = [_one(kinds[k], rng) for k in (first, second)]
        kind = kinds[(first, second)[target]]
        last = _one([i for i in kind if i is not shown[target]] or kind, rng)  # not the same drawing again
        question: list[Part | str] = []
        for item, name in zip(shown, names, strict=True):
            question += [medium(item, "image"), f" is {name}. "]
        sample = ask("context", last, [*question, medium(last, "image"), " is?"], [names[target]])
        yield Sample(f"{sample.id}#{number}", sample.content, sample.source, sample.license, sample.meta)


def define(shelf: Shelf) -> Iterator[Sample]:
    for item in shelf.of_source("definitions"):
        yield ask("define", item, [f"What is {item.meta['name']}?"], [words(item)])


def _by(items: Iterator[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    out: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        out[key(item)].append(item)
    return out


def _one(items: Sequence[Item], rng: np.random.Generator) -> Item:
    return items[int(rng.integers(len(items)))]


INSTRUCT: Mapping[str, Task] = {
    "name picture": name_picture,
    "draw picture": draw_picture,
    "name pictures": name_pictures,
    "draw pictures": draw_pictures,
    "restyle": restyle,
    "describe scene": describe_scene,
    "question scene": question_scene,
    "questions scene": questions_scene,
    "draw scene": draw_scene,
    "edit scene": edit_scene,
    "transcribe": transcribe,
    "order": order,
    "say": say,
    "repeat": repeat,
    "speak picture": speak_picture,
    "draw speech": draw_speech,
    "describe clip": describe_clip,
    "motion": motion,
    "film": film,
    "story": story,
    "in context": in_context,
    "define": define,
}
