"""Captions against references, as the COCO evaluation scores them: BLEU, ROUGE-L, CIDEr-D."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np

from mio.evals.metrics.statistics import Floats, Score, from_sums, mean

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]

# Longest first: times and numbers, abbreviations, words with inner hyphens, clitics, any other sign.
_WORD = r"[^\W_]+(?:['_-][^\W_]+)*"
_TOKEN = re.compile(
    rf"\d+(?:[.,:]\d+)+|(?:[a-z]\.){{2,}}|(?:mr|mrs|ms|dr|st|jr|vs|ave)\.|{_WORD}|'(?:s|m|d|re|ve|ll)\b|&|[^\s\w]"
)
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))\b")
_DROPPED = set(".?!,:;-'`\"")


def ptb_tokens(text: str) -> list[str]:
    """Penn Treebank words in lower case without punctuation, as captions are scored (Stanford PTBTokenizer)."""
    spaced = _CLITIC.sub(r" \1", text.lower().replace("’", "'")).replace("cannot", "can not")
    words = [w for part in spaced.split() for w in ([part] if part == "n't" else _TOKEN.findall(part))]
    return [w for w in words if w not in _DROPPED]


def grams(words: Words, n: int) -> Grams:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]], order: int = 4) -> Score:
    """Corpus BLEU (Papineni et al., 2002) against the nearest reference length. Words in, 0 to 1 out."""
    pairs = zip(hypotheses, references, strict=True)
    return from_sums(np.array([_bleu_row(h, r, order) for h, r in pairs], np.float64), _bleu)


def _bleu_row(hypothesis: Words, references: Sequence[Words], order: int) -> list[int]:
    """Length, nearest reference length, then hits and n-grams of each order."""
    size = len(hypothesis)
    row = [size, min((abs(len(r) - size), len(r)) for r in references)[1]]
    for n in range(1, order + 1):
        most: Grams = Counter()
        for r in references:
            most |= grams(r, n)
        row += [sum((grams(hypothesis, n) & most).values()), max(0, size - n + 1)]
    return row


def _bleu(sums: Floats) -> Floats:
    """The reference's guards against zeros, 1e-15 and 1e-9, are kept: they decide the score of an empty match."""
    ratio = (sums[..., 0] + 1e-15) / (sums[..., 1] + 1e-9)
    logs = np.log((sums[..., 2::2] + 1e-15) / (sums[..., 3::2] + 1e-9))
    out: Floats = np.exp(logs.mean(-1) + np.minimum(0, 1 - 1 / ratio))
    return out


def rouge_l(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Score:
    """Mean ROUGE-L (Lin, 2004), beta 1.2, best precision and best recall over references."""
    return mean([_rouge(h, r) for h, r in zip(hypotheses, references, strict=True)])


def _rouge(hypothesis: Words, references: Sequence[Words], beta: float = 1.2) -> float:
    common = [common_length(hypothesis, r) for r in references]
    precision = max(common) / max(1, len(hypothesis))
    recall = max(c / max(1, len(r)) for c, r in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def common_length(a: Words, b: Words) -> int:
    """Length of the longest common subsequence, one bit per word of `a` (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = state = (1 << len(a)) - 1
    for word in b:
        hit = state & places.get(word, 0)
        state = (state + hit | state - hit) & full
    return len(a) - state.bit_count()


def cider_d(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Score:
    """CIDEr-D (Vedantam et al., 2015), without stemming, which the COCO evaluation reports as CIDEr; 10 at best."""
    return mean(cider_d_values(hypotheses, references))


def cider_d_values(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D of every item; how rare a word is depends on all references."""
    counts = [[_all_grams(r) for r in rs] for rs in references]
    found = Counter(g for item in counts for g in set().union(*item))
    rarity = {g: log(len(references)) - log(f) for g, f in found.items()}
    unseen = log(max(1, len(references)))
    values = []
    for hypothesis, item in zip(hypotheses, counts, strict=True):
        ours = Weighted(_all_grams(hypothesis), rarity, unseen)
        values.append(10 * sum(ours.near(Weighted(r, rarity, unseen)) for r in item) / len(item))
    return values


def _all_grams(words: Words) -> Grams:
    out: Grams = Counter()
    for n in range(1, 5):
        out.update(zip(*(words[i:] for i in range(n)), strict=False))
    return out


class Weighted:
    """tf-idf of a caption's n-grams with the norm of each order."""

    def __init__(self, counts: Grams, rarity: dict[tuple[str, ...], float], unseen: float) -> None:
        self.of = {g: c * rarity.get(g, unseen) for g, c in counts.items()}
        self.bigrams = sum(c for g, c in counts.items() if len(g) == 2)  # the reference's measure of length
        squares = [0.0] * 5
        for g, w in self.of.items():
            squares[len(g)] += w * w
        self.norms = [sqrt(s) for s in squares]

    def near(self, other: Weighted, sigma: float = 6.0) -> float:
        """Mean clipped cosine over orders 1 to 4, less the more the lengths differ."""
        dots = [0.0] * 5
        for g, w in self.of.items():
            theirs = other.of.get(g, 0.0)
            dots[len(g)] += min(w, theirs) * theirs
        scales = [a * b or 1.0 for a, b in zip(self.norms, other.norms, strict=True)]
        cosine = sum(d / s for d, s in zip(dots, scales, strict=True)) / 4
        return cosine * exp(-((self.bigrams - other.bigrams) ** 2) / (2 * sigma**2))
