"""Speech against speech and against words: error rates, spectral distances, likeness of speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mio.evals.metrics.statistics import Floats, Score, from_sums, mean


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions (Levenshtein, 1966)."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        corner, row[0] = row[0], i
        for j, got in enumerate(hypothesis, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (wanted != got))
    return row[-1]


def wer(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Word errors of the corpus per reference word; may exceed 1. Texts as they are: normalise them before."""
    return _error_rate([h.split() for h in hypotheses], [r.split() for r in references])


def cer(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Character errors of the corpus per reference character, spaces included."""
    return _error_rate(hypotheses, references)


def _error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Score:
    rows = [(edits(r, h), len(r)) for h, r in zip(hypotheses, references, strict=True)]
    if not sum(length for _, length in rows):
        raise ValueError("every reference is empty: an error rate has no meaning")
    return from_sums(np.array(rows, np.float64), lambda sums: sums[..., 0] / np.maximum(sums[..., 1], 1))


def log_spectral_distance(a: Floats, b: Floats, floor: float = 1e-10) -> float:
    """Power spectra (T, F) -> decibels: mean over time of the root mean square over frequency."""
    gap = 10 * np.log10(np.maximum(a, floor) / np.maximum(b, floor))
    return float(np.sqrt((gap**2).mean(-1)).mean())


def mel_cepstral_distance(a: Floats, b: Floats) -> float:
    """Aligned mel cepstra (T, K), c0 left out -> decibels (Kubichek, 1993)."""
    gap = a[:, 1:] - b[:, 1:]
    return float(10 / np.log(10) * np.sqrt(2 * (gap**2).sum(-1)).mean())


def speaker_similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> Score:
    """Mean cosine of speaker embeddings (N, D) in the same order."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return mean((a * b).sum(-1) / norms)
