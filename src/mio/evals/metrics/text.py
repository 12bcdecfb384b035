"""Short answers against references: exact match, VQA accuracy, multiple choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mio.evals.metrics.statistics import Score, mean, wilson


@dataclass(frozen=True)
class Share:
    """`right` of `count`, with the 95 % interval of Wilson's score."""

    right: int
    count: int

    @property
    def value(self) -> float:
        return self.right / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.count)


def normal(text: str) -> str:
    """Lower case, single spaces, no final full stop: what two exact answers may differ in."""
    return " ".join(text.lower().split()).rstrip(".")


def exact(answers: Sequence[str], references: Sequence[str]) -> Share:
    """Answers equal to their reference after `normal`.

    Raises:
        ValueError: the numbers of answers and references differ.
    """
    pairs = list(zip(answers, references, strict=True))
    return Share(sum(normal(a) == normal(r) for a, r in pairs), len(pairs))


_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS = {
    w: str(n)
    for n, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}
_CONTRACTED = re.findall(
    r"\S+",
    """'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've
    must've mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't
    what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've""",
)
_MENDED = {w[:n] + w[n + 1 :]: w for w in _CONTRACTED for n, sign in enumerate(w) if sign == "'"}
_MENDED["somebody'd"] = "somebodyd"  # so in the official code


def vqa_normal(answer: str) -> str:
    """An answer as the VQA evaluation compares it: no punctuation or articles, digits for number words.

    The official code leaves answers as they are where all people say the same; here, as on its server, they are not.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    number = re.search(r"\d,\d", text) is not None
    out = text
    for sign in _SIGNS:
        glued = number or f"{sign} " in text or f" {sign}" in text
        out = out.replace(sign, "" if glued else " ")
    words = re.sub(r"\.(?!\d)", "", out).lower().split()
    words = [{**_DIGITS, "none": "0"}.get(w, w) for w in words]
    return " ".join(_MENDED.get(w, w) for w in words if w not in ("a", "an", "the"))


def vqa_accuracy(answers: Sequence[str], people: Sequence[Sequence[str]]) -> Score:
    """Mean over items of min(1, agreeing others / 3), each person left out in turn (Antol et al., 2015)."""
    return mean([vqa_value(a, p) for a, p in zip(answers, people, strict=True)])


def vqa_value(answer: str, people: Sequence[str]) -> float:
    """One item of `vqa_accuracy`, 0 to 1."""
    agree = [vqa_normal(answer) == vqa_normal(p) for p in people]
    return sum(min(1.0, (sum(agree) - a) / 3) for a in agree) / len(agree)


def letter(answer: str, options: int) -> str | None:
    """The option that a written answer names: `(B)`, `B.`, `The answer is B` -> "B"; None where it names none."""
    last = chr(ord("A") + options - 1)
    forms = (
        rf"(?i:answer|option|choice)(?i:\s+is|\s*:)?\s*:?\s*\(?([A-{last}])\b",
        rf"^\s*\(?([A-{last}])(?:[).:,]|\s*$)",
        rf"\(([A-{last}])\)",
    )
    found = (re.search(form, answer) for form in forms)
    return next((m.group(1) for m in found if m), None)


def says(answer: str, truth: str) -> bool:
    """Whether an answer is the truth after `normal`; of a number, whether its last number is, rounded alike."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    try:
        wanted = float(truth)
    except ValueError:
        return normal(answer) == normal(truth)
    return bool(numbers) and round(float(numbers[-1]), len(truth.partition(".")[2])) == wanted
