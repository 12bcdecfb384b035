"""Pictures against pictures: PSNR, SSIM, and the Fréchet distance of given features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mio.evals.metrics.statistics import Floats

Pixels = NDArray[np.uint8]


def psnr(a: Pixels, b: Pixels) -> float:
    """Decibels between pictures of one shape; infinite for equal ones."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(a: Pixels, b: Pixels, sigma: float = 1.5) -> float:
    """(H, W, ...) pictures -> mean SSIM with an 11 x 11 Gaussian window (Wang et al., 2004), borders left out."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = _blur(x, sigma), _blur(y, sigma)
    vx, vy, both = _blur(x * x, sigma) - mx**2, _blur(y * y, sigma) - my**2, _blur(x * y, sigma) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mx * my + c1) * (2 * both + c2)
    return float((top / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def _blur(x: Floats, sigma: float, radius: int = 5) -> Floats:
    """(H, W, ...) -> (H - 10, W - 10, ...), only where the window is whole."""
    window = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    window /= window.sum()
    for axis in (0, 1):
        x = np.lib.stride_tricks.sliding_window_view(x, len(window), axis) @ window
    return x


def frechet_distance(a: Floats, b: Floats) -> float:
    """Features (N, D) and (M, D) -> squared Fréchet distance of their Gaussians (Heusel et al., 2017)."""
    shift = a.mean(0) - b.mean(0)
    p, q = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    root = _root(p)
    cross = np.linalg.eigvalsh(root @ q @ root)  # same eigenvalues as p q, but symmetric
    return float(shift @ shift + np.trace(p) + np.trace(q) - 2 * np.sqrt(np.maximum(cross, 0)).sum())


def _root(p: Floats) -> Floats:
    values, vectors = np.linalg.eigh(p)
    out: Floats = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return out
