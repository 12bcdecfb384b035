"""Items -> documents of pre-training, in the paper's words for each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mio.data.tasks import SPOKEN, Shelf, Task, medium, shortened, words
from mio.data.wording import TEMPLATES, worded
from mio.types import Document, Sample, Text


def pair(task: str, modality: str, *sources: str) -> Task:
    """The paper's words for a task over the named sources."""

    def samples(shelf: Shelf) -> Iterator[Sample]:
        for item in shelf.of_source(*sources):
            if words(item):
                document = worded(task, medium(item, modality), Text(words(item)))
                yield Sample(f"{TEMPLATES[task]}:{item.id}", document, item.source, item.license)

    return samples


def plain_text(shelf: Shelf, piece: int = 1500) -> Iterator[Sample]:
    """Texts in pieces of about `piece` characters, cut at blank lines."""
    for item in shelf.of_source("stories", "definitions"):
        for number, text in enumerate(_pieces(words(item), piece)):
            yield Sample(f"text{number}:{item.id}", Document((Text(text),)), item.source, item.license)


def _pieces(text: str, size: int) -> Iterator[str]:
    held = ""
    for paragraph in text.split("\n\n"):
        if held and len(held) + len(paragraph) > size:
            yield held
            held = ""
        held += ("\n\n" if held else "") + paragraph[:size]
    if held:
        yield held


def interleaved(shelf: Shelf, run: int = 10) -> Iterator[Sample]:
    """Documents of pictures and text in their own order, in runs of `run` parts."""
    for item in shelf.of_source("storybook", "recipes"):
        parts = [shortened(p) for p in item.parts if isinstance(p, Text) or p.modality == "image"]  # type: ignore[union-attr]
        for number, start in enumerate(range(0, len(parts), run)):
            document = Document(tuple(parts[start : start + run]))
            yield Sample(f"interleaved{number}:{item.id}", document, item.source, item.license)


PICTURES = ("emoji", "mulberry", "digits", "doodles", "scenes")
PRETRAINING: Mapping[str, Task] = {
    "image to text": pair("image to text", "image", *PICTURES),
    "text to image": pair("text to image", "image", *PICTURES),
    "video to text": pair("video to text", "video", "motion"),
    "text to video": pair("text to video", "video", "motion"),
    "speech to text": pair("speech to text", "speech", *SPOKEN),
    "speech to text 3": pair("speech to text 3", "speech", *SPOKEN),
    "text to speech": pair("text to speech", "speech", *SPOKEN),
    "interleaved": interleaved,
    "text": plain_text,
}
