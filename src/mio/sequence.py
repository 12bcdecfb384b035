"""Messages and documents -> ids with a loss mask, and ids -> parts. Media are codes here, never arrays or files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mio.types import Codes, DataError, Document, Encoded, Ids, Layout, MioError, Modality, Part, Text, Turns
from mio.vocab import Vocabulary

# ---------------------------------------------------------------------------------------------- code layouts


def order(layout: Layout, codebooks: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Level and time of every code in the order a layout lays them out.

    sequential: all of level 0, then all of level 1, ... (MIO); alternating: all levels of a step, step by step;
    delay: as alternating, level k shifted by k steps (MusicGen); content: level 0 only.
    """
    level, time = np.divmod(np.arange(codebooks * steps), max(steps, 1))
    if layout == "content":
        level, time = level[:steps], time[:steps]
    elif layout == "alternating":
        time, level = np.divmod(np.arange(codebooks * steps), codebooks)
    elif layout == "delay":
        rank = np.lexsort((level, time + level))
        level, time = level[rank], time[rank]
    return level, time


def flatten(codes: NDArray[np.int64], layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K, T) codes -> the level of each and the codes, laid out flat."""
    level, time = order(layout, *codes.shape)
    return level, codes[level, time]


def unflatten(level: NDArray[np.int64], flat: NDArray[np.int64], row: Modality) -> NDArray[np.int64]:
    """The inverse of `flatten` for a span of `row`, in its output layout, its input layout or content only.

    Raises:
        DataError: the levels follow none of these, or a span of fixed length has another one; says which and how many.
    """
    for layout in dict.fromkeys((row.output_layout, row.input_layout, "content")):
        books = 1 if layout == "content" else row.codebooks
        if len(flat) == 0 or len(flat) % books or (row.steps and len(flat) != row.steps * books):
            continue
        expected, time = order(layout, books, len(flat) // books)
        if np.array_equal(level, expected):
            codes = np.empty((books, len(flat) // books), np.int64)
            codes[level, time] = flat
            return codes
    if row.steps and len(flat) != row.steps * row.codebooks:
        raise DataError(f"A span of {row.name} has {len(flat)} codes instead of {row.steps * row.codebooks}.")
    runs = np.bincount(level, minlength=row.codebooks).tolist() if len(level) else [0] * row.codebooks
    raise DataError(f"A span of {row.name} follows no layout: {runs} codes per level in {row.output_layout} order.")


# ---------------------------------------------------------------------------------------------------- templates


MIO_SYSTEMS = {
    "std": "You are MIO, an AI assistant capable of understanding and generating images, text, videos, and speech, "
    "selecting the appropriate modality according to the context.",
    "voice": "You are MIO, an AI assistant capable of understanding images, text, videos, and speech, and generating "
    "speech. Please respond to the user with speech only, starting with <spch> and ending with </spch>.",
}


@dataclass(frozen=True)
class ChatTemplate:
    """ChatML, as Yi-Chat and MIO write it. `systems` holds system prompts by mode.

    `tokens`: a begin or end token's name in one of `systems` is that token, as in the release, which was trained so.
    """

    systems: Mapping[str, str] = field(default_factory=lambda: dict(MIO_SYSTEMS))
    bos: bool = True
    tokens: bool = False

    def system(self, turns: Turns, mode: str) -> str:
        """The text of the system turn, always written; a system message takes its place."""
        if turns.messages and turns.messages[0].role == "system":
            return "".join(p.text for p in turns.messages[0].parts if isinstance(p, Text))
        if mode not in self.systems:
            raise MioError(
                f"No system prompt {mode!r}.", fix=f"Use one of {', '.join(self.systems)}, or write your own."
            )
        return self.systems[mode]


PRETRAIN = {  # MIO, appendix A: templates for paired data; {0} is the source and {1} the target
    "image->text": "{0} The caption of this image is: {1}",
    "text->image": 'Please generate an image of "{0}": {1}',
    "video->text": "Please describe the following video: {0} {1}",
    "text->video": 'Please generate a video for "{0}": {1}',
    "speech->text": "{0} Transcribe this speech: {1}",
    "speech->text/3": "{0} The transcription of this speech is: {1}",
    "text->speech": 'Please generate a speech of "{0}": {1}',
}

BASE_PROMPTS = {  # prompts of the released base model's script, with its quotes and without its colons
    "caption": "{0} The caption of this image is",
    "image": "Please generate an image of ``{0}''",
    "asr": "{0} The transcription of this speech is",
    "tts": "Please generate a speech of ``{0}'': ",
    "video caption": "Please describe the following video: {0}",
    "video": "Please generate a video for ``{0}'': ",
    "video story": "Please generate a how-to video frame by frame, and provide a description for each frame. "
    'The video is titled "{0}" Description: "{1}"',
    "video subtitles": "Please generate a video frame by frame, and provide a subtitle for each frame. {0}",
    "text": "Question: {0} Answer:",
}
BASE_PREFILL = {"tts": "speech", "video": "image"}  # begin tokens that the released script puts after the prompt

INSTRUCT_PROMPTS = {  # prompts of the released instruct model's script
    "caption": "Please provide an accurate and detailed description of this image.\n{0}",
    "vqa": "{1}\n{0}",
    "image": "Please generate an image according to the caption.\n{0}",
    "asr": "Please transcribe this speech.\n{0}",
    "speech understanding": "{0}\nPlease continue the story.",
    "tts": "The transcription is ``{0}''. Please generate a speech according to the given transcription. "
    "Start with <spch>.",
    "video qa": "{0}\n{1}",
    "video": "Please generate a video for ``{0}''",
    "story": "Generate a visual story about {0}",
    "guide": "How to {0}? Please provide a step-by-step guide in the form of a visual story.",
}


def fill(template: str, *slots: Part | tuple[Part, ...]) -> tuple[Part, ...]:
    """Put parts, or runs of them, into the {0}, {1} of a template. Slots are never searched for braces, so any text is
    safe in them."""
    pieces: list[Part] = []
    rest = template
    while (at := rest.find("{")) >= 0:
        pieces += [Text(rest[:at])] if at else []
        slot = slots[int(rest[at + 1])]
        pieces += slot if isinstance(slot, tuple) else (slot,)
        rest = rest[at + 3 :]
    return (*pieces, Text(rest)) if rest else tuple(pieces)


# ------------------------------------------------------------------------------------------------------- render


@dataclass(frozen=True)
class TokenSequence:
    """ids (n,) int64; loss (n,) bool: whether predicting this id is trained."""

    ids: Ids
    loss: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


Piece = tuple[str | Ids, bool]  # text still to be encoded, or ids; and whether it carries loss
Encode = Callable[[str], Sequence[int]]


def render(
    content: Turns | Document,
    vocab: Vocabulary,
    encode: Encode,
    template: ChatTemplate,
    *,
    mode: str = "std",
    open_turn: bool = False,
) -> TokenSequence:
    """A conversation or document -> one sequence. `open_turn` adds the assistant's header, for generation.

    Only the template inserts control ids; text passes through `encode`, which cannot produce any.
    """
    if isinstance(content, Document):
        pieces = _document(content, vocab)
    else:
        pieces = _turns(content, vocab, template, mode, open_turn)
    return _join(pieces, encode)


def _join(pieces: Iterable[Piece], encode: Encode) -> TokenSequence:
    """Encode runs of text as one string each, as a tokenizer would that saw the whole."""
    ids: list[Ids] = []
    loss: list[NDArray[np.bool_]] = []
    held: list[str] = []
    held_loss = False

    def put(new: Ids, trained: bool) -> None:
        ids.append(new)
        loss.append(np.full(len(new), trained))

    def flush() -> None:
        if held:
            put(np.array(encode("".join(held)), np.int64), held_loss)
            held.clear()

    for piece, trained in pieces:
        if isinstance(piece, str) and (not held or trained == held_loss):
            held.append(piece)
            held_loss = trained
            continue
        flush()
        if isinstance(piece, str):
            held.append(piece)
            held_loss = trained
        else:
            put(piece, trained)
    flush()
    return TokenSequence(np.concatenate(ids), np.concatenate(loss))


def _special(vocab: Vocabulary, token: str) -> Ids:
    return np.array([vocab.id(token)], np.int64)


def _document(document: Document, vocab: Vocabulary) -> Iterator[Piece]:
    s = vocab.specials
    yield _special(vocab, s.bos), False
    for number, part in enumerate(document.parts):
        yield _part(part, vocab, number in document.inputs), True
    yield _special(vocab, s.eos), True


def _turns(turns: Turns, vocab: Vocabulary, template: ChatTemplate, mode: str, open_turn: bool) -> Iterator[Piece]:
    start, end = _special(vocab, vocab.specials.im_start), _special(vocab, vocab.specials.im_end)
    if template.bos:
        yield _special(vocab, vocab.specials.bos), False
    yield start, False
    yield from ((piece, False) for piece in _system(turns, vocab, template, mode))
    yield end, False
    for message in turns.messages:
        if message.role == "system":
            continue
        answer = message.role == "assistant"
        yield "\n", False
        yield start, False
        yield f"{message.role}\n", False
        for part in message.parts:
            yield _part(part, vocab, not answer), answer
        yield end, answer
    if open_turn:
        yield "\n", False
        yield start, False
        yield "assistant\n", False


def _system(turns: Turns, vocab: Vocabulary, template: ChatTemplate, mode: str) -> Iterator[str | Ids]:
    """The system turn, in which only the template's own words may name tokens."""
    text = f"system\n{template.system(turns, mode)}"
    written = bool(turns.messages) and turns.messages[0].role == "system"
    spans = () if written or not template.tokens else (row for row in vocab.rows if row.size)
    names = [name for row in spans for name in (row.begin, row.end)]
    pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    yield from (_special(vocab, piece) if piece in names else piece for piece in pieces)


def _part(part: object, vocab: Vocabulary, as_input: bool) -> str | Ids:
    if isinstance(part, Text):
        return part.text
    if not isinstance(part, Encoded):
        raise MioError(f"A {type(part).__name__} cannot stand in a sequence: encode it first.")
    return span_ids(part, vocab, as_input)


def span_ids(part: Encoded, vocab: Vocabulary, as_input: bool) -> Ids:
    """Codes -> ids with begin and end token, in the row's input or output layout; N spans follow one another."""
    row = vocab.base(part.modality)
    begin, end = vocab.bounds(part.modality)
    layout: Layout = row.input_layout if as_input else row.output_layout
    if len(part.codes[0]) == 1 and row.codebooks > 1:
        layout = "content"
    spans = [vocab.ids(row.name, *flatten(codes, layout)) for codes in part.codes]
    return np.concatenate([np.concatenate([[begin], ids, [end]]) for ids in spans])


# -------------------------------------------------------------------------------------------------------- parse


@dataclass(frozen=True)
class Parsed:
    """Parts in order, and one sentence for every span that could not be used."""

    parts: tuple[Text | Encoded, ...]
    faults: tuple[str, ...] = ()


def parse(ids: Ids, vocab: Vocabulary, decode: Callable[[Sequence[int]], str], gather: str = "") -> Parsed:
    """Ids -> text and codes, in order; control ids are dropped, broken spans reported and left out.

    `gather`: a row made of spans (video); runs of its spans become one part of it.
    """
    opens = {vocab.bounds(r.name)[0]: r for r in vocab.rows if r.size}
    parts: list[Text | Encoded] = []
    faults: list[str] = []
    text: list[int] = []
    at = 0
    while at < len(ids):
        row = opens.get(int(ids[at]))
        if row is None:
            if ids[at] < vocab.text_size and ids[at] not in vocab.control_ids:
                text.append(int(ids[at]))
            at += 1
            continue
        if text:
            parts.append(Text(decode(text)))
            text = []
        codes, at, fault = _span(ids, at + 1, row, vocab)
        parts += [] if codes is None else [Encoded(row.name, codes[None])]
        faults += [fault] if fault else []
    if text:
        parts.append(Text(decode(text)))
    return Parsed(tuple(_gathered(parts, vocab.row(gather)) if gather else parts), tuple(faults))


def _span(ids: Ids, at: int, row: Modality, vocab: Vocabulary) -> tuple[Codes | None, int, str]:
    """Codes of the span that starts at `at`, where it ends, and what is wrong with it."""
    levels, codes = vocab.codes(row.name, ids[at:])
    foreign = np.flatnonzero(levels < 0)
    length = int(foreign[0]) if len(foreign) else len(levels)
    closed = at + length < len(ids) and int(ids[at + length]) == vocab.bounds(row.name)[1]
    stop = at + length + closed
    try:
        return (
            unflatten(levels[:length], codes[:length], row),
            stop,
            "" if closed else f"A {row.name} span has no end token.",
        )
    except DataError as error:
        return None, stop, str(error)


def _gathered(parts: Sequence[Text | Encoded], row: Modality) -> Iterator[Text | Encoded]:
    run: list[Codes] = []
    for part in parts:
        if isinstance(part, Encoded) and part.modality == row.spans_of:
            run.append(part.codes)
            continue
        if run:
            yield Encoded(row.name, np.concatenate(run))
            run = []
        yield part
    if run:
        yield Encoded(row.name, np.concatenate(run))
