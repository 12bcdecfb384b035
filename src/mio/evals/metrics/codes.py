"""What codes say of the medium that they stand for: likeness, linear probes and neighbours, purity, idempotence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mio.evals.metrics.statistics import Floats, Score, from_sums

Codes = NDArray[np.int64]  # (spans, codebooks, steps) of one medium
PARTS = 3  # into which media of free length are cut, so that order counts


def likeness(codes: Sequence[Codes]) -> Floats:
    """How alike N media are, from 0 to 1, by their codes alone: (N, N).

    The mean of two cosines: that of the histograms of every codebook, and that of the histograms at every place of it.
    A place is a step where all media have equally many, and else a third of the medium.
    """
    steps = {c.shape[0] * c.shape[2] for c in codes}
    places = steps.pop() if len(steps) == 1 else PARTS
    rows = [c.transpose(1, 0, 2).reshape(c.shape[1], -1) for c in codes]  # (codebooks, spans * steps)
    return (_cosines(rows, 1) + _cosines(rows, places)) / 2


def _cosines(rows: Sequence[Codes], places: int) -> Floats:
    total = np.zeros((len(rows), len(rows)))
    for level in range(len(rows[0])):
        for pieces in zip(*(np.array_split(row[level], places) for row in rows), strict=True):
            counts = histograms(pieces)
            total += counts @ counts.T
    return unit(total)


def histograms(codes: Sequence[Codes]) -> Floats:
    """Flat codes of N media -> (N, how many different ones there are)."""
    owner = np.repeat(np.arange(len(codes)), [len(c) for c in codes])
    different, column = np.unique(np.concatenate(codes), return_inverse=True)
    out = np.zeros((len(codes), max(1, len(different))))
    np.add.at(out, (owner, column), 1)
    return out


def features_likeness(features: Floats, known: int) -> Floats:
    """(N, D) -> (N, N): cosines after standardising by the first `known`."""
    spread = features[:known].std(0)
    standard = (features - features[:known].mean(0)) / np.where(spread > 1e-6, spread, 1)
    return unit(standard @ standard.T)


def unit(gram: Floats) -> Floats:
    """Inner products -> cosines; those of a zero vector are 0."""
    length = np.sqrt(np.maximum(np.diag(gram), 1e-12))
    out: Floats = gram / length / length[:, None]
    return out


def linear_probe(likeness: Floats, labels: Sequence[str]) -> list[str]:
    """The first media have labels: those of the others, by ridge regression from the features behind `likeness`.

    Of 13 strengths that one is taken which errs least on the labelled media, each left out in turn (Allen, 1974).
    """
    known = len(labels)
    names, index = np.unique(np.array(labels), return_inverse=True)
    wanted = np.eye(len(names))[index]
    values, vectors = np.linalg.eigh(likeness[:known, :known])
    values, inner = np.maximum(values, 0), vectors.T @ (wanted - wanted.mean(0))

    def weights(strength: float) -> Floats:
        out: Floats = vectors @ (inner / (values + strength)[:, None])
        return out

    def left_out(strength: float) -> float:
        own = (vectors**2 / (values + strength)).sum(1)
        return float(((weights(strength) / own[:, None]) ** 2).mean())

    best = min(np.logspace(-4, 2, 13) * values.mean(), key=left_out)
    scores = likeness[known:, :known] @ weights(best) + wanted.mean(0)
    return [str(n) for n in names[scores.argmax(1)]]


def nearest_label(likeness: Floats, labels: Sequence[str]) -> list[str]:
    """The first media have labels: of the others, the label of the one most alike."""
    known = len(labels)
    return [labels[int(i)] for i in likeness[known:, :known].argmax(1)]


def purity(codes: Sequence[Codes], labels: Sequence[str], known: int) -> Score:
    """Share of flat codes that stand in media with the label that the code meets most often in the first `known`.

    Phone purity (Hsu et al., 2021) with labels of whole media, and on others than those that the codes were named by:
    a code of its own for everything would be pure otherwise. The interval resamples media.
    """
    met: dict[int, Counter[str]] = {}
    for row, label in zip(codes[:known], labels[:known], strict=True):
        for code in row.tolist():
            met.setdefault(code, Counter())[label] += 1
    said = {code: counts.most_common(1)[0][0] for code, counts in met.items()}
    rest = zip(codes[known:], labels[known:], strict=True)
    rows = [(sum(said.get(c) == label for c in row.tolist()), len(row)) for row, label in rest]
    return from_sums(np.array(rows, np.float64), lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1))
