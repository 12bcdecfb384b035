"""Answers against items: a metric is a row that says what each answer scores and how much it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mio.evals.benchmarks.choices import LETTERS
from mio.evals.benchmarks.items import Item
from mio.evals.english import spelt
from mio.evals.metrics.captions import cider_d_values, ptb_tokens
from mio.evals.metrics.speech import edits, spoken_words
from mio.evals.metrics.statistics import Floats
from mio.evals.metrics.text import letter, normal, vqa_value
from mio.evals.witnesses import Witnesses
from mio.media import read_audio, read_image
from mio.types import Audio


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


@dataclass(frozen=True)
class Metric:
    """`points`: pairs -> (N, 2), what each scores and how much it counts; the score is 100 times the quotient of sums.

    `needs`: the witness that looks or listens, "" for none.
    """

    points: Callable[[Pairs, Witnesses], Floats]
    higher: bool = True
    needs: str = ""


def _alike(values: Sequence[float]) -> Floats:
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
    return _alike([_verdict(a.text) in item.truth for a, item in pairs])


def _verdict(text: str) -> str | None:
    return next((word for word in spoken_words(text) if word in ("yes", "no")), None)


def choice(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """The right letter: of the likeliest option, or named in words; the first of equally likely ones is chosen."""
    return _alike([chosen(a, item) in item.truth for a, item in pairs])


def chosen(answer: Answer, item: Item) -> str | None:
    if answer.scores:
        return LETTERS[max(range(len(answer.scores)), key=answer.scores.__getitem__)]
    return letter(answer.text, len(item.options))


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
    made = [read_image(a.files[0]) if a.files else None for a, _ in pairs]
    return _near(witnesses.sees(made), witnesses.sees([read_image(item.shown[0].path) for _, item in pairs]))


def speaker(pairs: Pairs, witnesses: Witnesses) -> Floats:
    """Cosine of the voice of made speech with that of the recording; silence scores 0."""
    return _near(
        witnesses.voices([_sound(a) for a, _ in pairs]),
        witnesses.voices([read_audio(item.shown[0].path, 16000) for _, item in pairs]),
    )


def _near(a: Floats, b: Floats) -> Floats:
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return _alike((a * b).sum(1) / np.where(scale, scale, 1))


def _sound(answer: Answer) -> Audio | None:
    return read_audio(answer.files[0], 16000) if answer.files else None


METRICS: Mapping[str, Metric] = {
    "CIDEr": Metric(cider),
    "VQA accuracy": Metric(vqa),
    "accuracy": Metric(top1),
    "choice accuracy": Metric(choice),
    "yes-or-no accuracy": Metric(yes_or_no),
    "WER": Metric(wer, higher=False),
    "heard WER": Metric(heard_wer, higher=False, needs="whisper"),
    "CLIP-I": Metric(clip_i, needs="clip"),
    "speaker similarity": Metric(speaker, needs="speaker"),
}
