"""Answers against items: a metric is a row that says what each answer scores and how much it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mio.evals.benchmarks.choices import LETTERS
from mio.evals.benchmarks.items import Item
from mio.evals.critic import Marking
from mio.evals.english import spelt
from mio.evals.metrics.captions import cider_d_values, ptb_tokens
from mio.evals.metrics.speech import edits, spoken_words
from mio.evals.metrics.statistics import Floats
from mio.evals.metrics.text import letter, normal, says, vqa_value
from mio.evals.witnesses import RATE, Witnesses
from mio.media import read_audio, read_image
from mio.processor import open_media
from mio.tokenizers.speech import resample
from mio.types import Audio, Image, Text


@dataclass(frozen=True)
class Answer:
    """What came for one item: words and files, or what went wrong. `scores`: log-likelihood of each option."""

    id: str
    text: str = ""
    files: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    faults: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        return not (self.text.strip() or self.files)


Pairs = Sequence[tuple[Answer, Item]]
Points = Callable[[Pairs, Witnesses], Floats]


@dataclass(frozen=True)
class Metric:
    """`points`: pairs -> (N, 2), what each scores and how much it counts; the score is 100 times the quotient of sums.

    A row of two zeros counts nothing: its item is counted with another one. `needs`: the witnesses that look, listen or
    judge.
    """

    points: Points
    higher: bool = True
    needs: tuple[str, ...] = ()


def _alike(values: Sequence[float] | Floats) -> Floats:
    """Items that all count as one."""
    return np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)


def cider(pairs: Pairs, witnesses: Witnesses) -> Floats:
    words = [[ptb_tokens(t) for t in item.truth] for _, item in pairs]
    return _alike(cider_d_values([ptb_tokens(a.text) for a, _ in pairs], words))


def vqa(pairs: Pairs, witnesses: Witnesses) -> Floats:
    return _alike([vqa_value(a.text, item.truth) for a, item in pairs])


def top1(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """The whole answer is the right one, but for case, spaces and a full stop."""
    return _alike([normal(a.text) in map(normal, item.truth) for a, item in pairs])


def yes_or_no(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """The first yes or no of the answer is the right one."""
    return _alike([_verdict(a.text) in [t.lower() for t in item.truth] for a, item in pairs])


def _verdict(text: str) -> str | None:
    return next((word for word in spoken_words(text) if word in ("yes", "no")), None)


def choice(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """The right letter: of the likeliest option, or named in words; the first of equally likely ones is chosen."""
    return _alike([chosen(a, item) in item.truth for a, item in pairs])


def chosen(answer: Answer, item: Item) -> str | None:
    if answer.scores:
        return LETTERS[max(range(len(answer.scores)), key=answer.scores.__getitem__)]
    return letter(answer.text, len(item.options))


def short(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """The right letter where there are options; else the right word or number."""
    return _alike([_right(a, item) for a, item in pairs])


def _right(answer: Answer, item: Item) -> bool:
    if item.options:
        return chosen(answer, item) in item.truth
    return any(says(answer.text, truth) for truth in item.truth)


def together(points: Points, way: int = 0) -> Points:
    """All or nothing: items of one group count as one, at the first of them, and score only if all are right."""

    def grouped(pairs: Pairs, witnesses: Witnesses) -> Floats:
        first: dict[str, int] = {}
        out = np.zeros((len(pairs), 2))
        for n, ((_, item), scored) in enumerate(zip(pairs, points(pairs, witnesses)[:, 0], strict=True)):
            head = first.setdefault(item.groups[way], n)
            out[head] = [scored if head == n else min(out[head, 0], scored), 1]
        return out

    return grouped


def wer(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """Word errors of a transcript per word said, both as Whisper normalises them."""
    return _rows([a.text for a, _ in pairs], pairs)


def heard_wer(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """Word errors of what a listener hears in made speech; silence loses all words."""
    return _rows(witnesses.hears([_sound(a) for a, _ in pairs]), pairs)


def _rows(texts: Sequence[str], pairs: Pairs) -> Floats:
    truths = spelt([item.truth[0] for _, item in pairs])
    words = [(text.split(), truth.split()) for text, truth in zip(spelt(texts), truths, strict=True)]
    return np.array([(edits(right, said), len(right)) for said, right in words], np.float64)


def clip_i(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """Cosine of a made picture with the true one, as a CLIP sees them; no picture scores 0."""
    truths = [open_media(item.shown[0]) for _, item in pairs]
    return _near(witnesses.sees(_pictures(pairs)), witnesses.sees([t for t in truths if isinstance(t, Image)]))


def clip_t(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """Cosine of a made picture with what was asked for, as a CLIP sees and reads them; no picture scores 0."""
    return _near(witnesses.sees(_pictures(pairs)), witnesses.reads([item.truth[0] for _, item in pairs]))


def aesthetic(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """How beautiful a linear head on CLIP's embeddings finds a made picture, of ten; no picture scores 0."""
    return _alike([float(value) / 10 for value in witnesses.finds_beautiful(_pictures(pairs))])


def _pictures(pairs: Pairs) -> list[Image | None]:
    return [read_image(a.files[0]) if a.files else None for a, _ in pairs]


def judged(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """How much of the truth an answer says, as a language model marks it."""
    return _judged(pairs, [a.text for a, _ in pairs], witnesses)


def heard_judged(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """The same of what a listener hears in a spoken answer; silence says nothing."""
    return _judged(pairs, witnesses.hears([_sound(a) for a, _ in pairs]), witnesses)


def _judged(pairs: Pairs, said: Sequence[str], witnesses: Witnesses) -> Floats:
    """No words need no judge."""
    marked = [(n, text) for n, text in enumerate(said) if text.strip()]
    values = np.zeros(len(pairs))
    for (n, _), mark in zip(marked, witnesses.marks([_marking(pairs[n][1], text) for n, text in marked]), strict=True):
        values[n] = mark
    return _alike(values)


def _marking(item: Item, answer: str) -> Marking:
    question = " ".join(p.text for p in item.parts if isinstance(p, Text))
    return Marking(question, item.truth[0], answer)


def speaker(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """Cosine of the voice of made speech with that of the recording; silence scores 0."""
    return _near(
        witnesses.voices([_sound(a) for a, _ in pairs]),
        witnesses.voices([_recorded(item) for _, item in pairs]),
    )


def _near(a: Floats, b: Floats) -> Floats:
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return _alike((a * b).sum(1) / np.where(scale, scale, 1))


def _recorded(item: Item) -> Audio:
    sound = open_media(item.shown[0])
    assert isinstance(sound, Audio)
    return resample(sound, RATE)


def _sound(answer: Answer) -> Audio | None:
    return read_audio(answer.files[0], RATE) if answer.files else None


METRICS: Mapping[str, Metric] = {
    "CIDEr": Metric(cider),
    "VQA accuracy": Metric(vqa),
    "accuracy": Metric(top1),
    "choice accuracy": Metric(choice),
    "yes-or-no accuracy": Metric(yes_or_no),
    "WER": Metric(wer, higher=False),
    "answer accuracy": Metric(short),
    "yes-or-no accuracy of groups": Metric(together(yes_or_no)),
    "yes-or-no accuracy of figures": Metric(together(yes_or_no, 1)),
    "choice accuracy of groups": Metric(together(choice)),
    "heard WER": Metric(heard_wer, higher=False, needs=("whisper",)),
    "CLIP-I": Metric(clip_i, needs=("clip",)),
    "CLIP-T": Metric(clip_t, needs=("clip",)),
    "aesthetic": Metric(aesthetic, needs=("clip", "aesthetic")),
    "speaker similarity": Metric(speaker, needs=("speaker",)),
    "judged content": Metric(judged, needs=("judge",)),
    "heard content": Metric(heard_judged, needs=("whisper", "judge")),
}
