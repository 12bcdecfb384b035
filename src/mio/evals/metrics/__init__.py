"""Numbers from answers and references. Pure: no files, no models, no torch."""

from mio.evals.metrics.statistics import Score, wilson
from mio.evals.metrics.text import Share, exact, normal

__all__ = ["Score", "Share", "exact", "normal", "wilson"]
