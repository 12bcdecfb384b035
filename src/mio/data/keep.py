"""What stays of a data set, by declaration. Every rule counts what it drops, and keeps a few examples to look at.

Rules about texts judge samples as they are read, in order; rules about media judge them when they are decoded.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mio.config import to_dict
from mio.data import filters
from mio.data.filters import Filter
from mio.media import encode_audio, encode_image
from mio.types import Audio, DataError, Document, Image, Media, MissingError, Part, Sample, Text, Turns

Scorer = Callable[[Image, str], float]  # how well a text fits a picture
Account = dict[str, dict[str, Any]]  # rule -> seen, dropped, examples
EXAMPLES = 5  # of a rule


@dataclass(frozen=True)
class Keep:
    """What a sample must be like to stay. 0, "" and () ask nothing."""

    words: tuple[int, ...] = ()  # of a text, from and to
    word_length: tuple[float, ...] = ()  # characters of a text's mean word, from and to
    letters: float = 0.0  # share of words with a letter, at least
    repetition: float = 0.0  # share of runs of three words that stood there before, at most
    language: str = ""
    near_duplicates: float = 0.0  # similarity to an earlier text, at most
    aspect: float = 0.0  # of a picture, at most this to one
    side: int = 0  # pixels of a picture's shorter side, at least
    seconds: float = 0.0  # of a sound, at most
    clip: float = 0.0  # score of a picture with the text beside it, at least


@dataclass(frozen=True)
class Thing:
    """What is judged: a sample's text; or one of its media, with the text that stands by it."""

    sample: Sample
    line: int
    text: str
    medium: Media | None = None


Reason = Callable[[Thing], str]


def _of_text(make: Callable[..., Callable[[str], str]]) -> Callable[[Any], Reason]:
    def reason(value: Any) -> Reason:
        judge = make(*value) if isinstance(value, list) else make(value)
        return lambda thing: judge(thing.text)

    return reason


def _of_medium(make: Callable[[Any], Callable[[Any], str]]) -> Callable[[Any], Reason]:
    def reason(value: Any) -> Reason:
        judge = make(value)
        return lambda thing: judge(thing.medium)

    return reason


RULES: Mapping[type, Mapping[str, Callable[[Any], Reason]]] = {  # by what they judge; of each, the cheapest first
    type(None): {
        "words": _of_text(filters.length),
        "word_length": _of_text(filters.word_length),
        "letters": _of_text(filters.letters),
        "repetition": _of_text(filters.repetition),
        "language": _of_text(filters.language),
        "near_duplicates": _of_text(filters.near_duplicate),
    },
    Image: {"aspect": _of_medium(filters.aspect), "side": _of_medium(filters.side)},
    Audio: {"seconds": _of_medium(filters.seconds)},
}


class Sieve:
    """The rules of one data set, with their accounts. A thing meets those of its kind until one drops it."""

    def __init__(self, keep: Keep, scorer: Scorer | None = None) -> None:
        asked = to_dict(keep)
        self.rules: dict[type, list[Filter[Thing]]] = {
            kind: [Filter(name, make(asked[name]), EXAMPLES) for name, make in rules.items() if asked[name]]
            for kind, rules in RULES.items()
        }
        if keep.clip:
            self.rules[Image].append(Filter("clip", _fits(scorer, keep.clip), EXAMPLES))

    def keeps(self, thing: Thing) -> bool:
        return all(rule.keeps(thing) for rule in self.rules.get(type(thing.medium), ()))

    def keeps_text(self, sample: Sample, line: int) -> bool:
        """By its words; a sample without any stays."""
        text = "\n\n".join(part.text for part in sample.content.parts if isinstance(part, Text))
        return not text or self.keeps(Thing(sample, line, text))

    def without(self, sample: Sample, line: int) -> Sample | None:
        """A sample of decoded media without those that go. A conversation goes with the first of them, a document when
        none of its media is left."""
        parts = sample.content.parts
        media = {n: part for n, part in enumerate(parts) if isinstance(part, Media)}
        gone = {n for n, one in media.items() if not self.keeps(Thing(sample, line, beside(parts, n), one))}
        if not gone:
            return sample
        if isinstance(sample.content, Turns) or len(gone) == len(media):
            return None
        left = [n for n in range(len(parts)) if n not in gone]
        inputs = frozenset(place for place, n in enumerate(left) if n in sample.content.inputs)
        return replace(sample, content=Document(tuple(parts[n] for n in left), inputs))

    def account(self) -> Account:
        """Counts and examples of every rule, as JSON."""
        return {
            rule.name: {
                "seen": rule.seen,
                "dropped": rule.dropped,
                "examples": [_example(thing, why) for thing, why in rule.examples],
            }
            for rules in self.rules.values()
            for rule in rules
        }


def _fits(scorer: Scorer | None, least: float) -> Reason:
    """A picture without any text by it stays.

    Raises:
        MissingError: nobody is there to score.
    """
    if scorer is None:
        raise MissingError(
            "A rule asks for CLIP's score, and there is no CLIP.", fix="Give --witnesses, or drop the rule."
        )

    def value(thing: Thing) -> float:
        assert isinstance(thing.medium, Image)
        return scorer(thing.medium, thing.text)

    judge = filters.score(value, least)
    return lambda thing: judge(thing) if thing.text else ""


def beside(parts: tuple[Part, ...], place: int) -> str:
    """The text that follows a medium, or else the one before it."""
    texts = [part.text for part in (*parts[place + 1 :], *parts[:place][::-1]) if isinstance(part, Text)]
    return next((text for text in texts if text.strip()), "")


def joined(accounts: Iterable[Account]) -> Account:
    """Of several passes of the same rules: their sums, and the first few examples."""
    out: Account = {}
    for account in accounts:
        for name, one in account.items():
            whole = out.setdefault(name, {"seen": 0, "dropped": 0, "examples": []})
            whole["seen"] += one["seen"]
            whole["dropped"] += one["dropped"]
            whole["examples"] = (whole["examples"] + one["examples"])[:EXAMPLES]
    return out


# Medium -> the bytes of a small file of it.
PREVIEWS: Mapping[type, Callable[[Any], bytes]] = {
    Image: lambda image: encode_image(_small(image)),
    Audio: lambda sound: encode_audio(Audio(sound.samples[: 3 * sound.rate], sound.rate), "ogg"),
}


def _small(image: Image, side: int = 160) -> Image:
    """At its own proportions."""
    step = -(-max(image.pixels.shape) // side)
    return Image(image.pixels[::step, ::step])


def _example(thing: Thing, why: str) -> dict[str, Any]:
    facts = {"id": thing.sample.id, "line": thing.line, "why": why, "text": thing.text[:300]}
    if type(thing.medium) not in PREVIEWS:
        return facts
    try:
        small = PREVIEWS[type(thing.medium)](thing.medium)
    except DataError:  # such as a rate that the format does not have
        return facts
    return facts | {"preview": base64.b64encode(small).decode()}
