"""A medium and its text -> a document in the paper's words for a task. Knows no file and no model."""

from __future__ import annotations

from collections.abc import Mapping

from mio.sequence import PRETRAIN, fill
from mio.types import DataError, Document, Encoded, MediaBytes, MediaFile, Text

Medium = Encoded | MediaFile | MediaBytes

TEMPLATES: Mapping[str, str] = {  # task -> template
    "image to text": "image->text",
    "text to image": "text->image",
    "video to text": "video->text",
    "text to video": "text->video",
    "speech to text": "speech->text",
    "speech to text 3": "speech->text/3",
    "text to speech": "text->speech",
}


def worded(task: str, medium: Medium, text: Text) -> Document:
    """The medium is input where it stands first, target otherwise."""
    template = TEMPLATES[task]
    as_input = template.startswith(medium.modality)
    parts = fill(PRETRAIN[template], *((medium, text) if as_input else (text, medium)))
    return Document(parts, frozenset(i for i, p in enumerate(parts) if p is medium) if as_input else frozenset())


def pair_of(task: str, content: object) -> tuple[Medium, Text]:
    """The one medium and the one text of a document.

    Raises:
        DataError: it is no such pair, or one of another modality than the task's.
    """
    parts = content.parts if isinstance(content, Document) else ()
    media = [p for p in parts if isinstance(p, Medium)]
    texts = [p for p in parts if isinstance(p, Text) and p.text]
    if len(media) != 1 or len(texts) != 1:
        raise DataError(f"{len(media)} media and {len(texts)} texts are no pair for {task!r}.")
    if media[0].modality not in TEMPLATES[task]:
        raise DataError(f"A pair of {media[0].modality} and text is none for {task!r}.")
    return media[0], texts[0]
