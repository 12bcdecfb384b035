"""Counters, gauges and histograms in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)  # seconds
Labels = tuple[tuple[str, str], ...]


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum: float = 0.0


class Metrics:
    """Any thread may write; labels come from a closed set, never from what a client wrote."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, Labels]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self.gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, labels: Mapping[str, str] | None = None, by: int = 1) -> None:
        with self._lock:
            self._counts[name, tuple((labels or {}).items())] += by

    def observe(self, name: str, seconds: float) -> None:
        with self._lock:
            histogram = self._seconds.setdefault(name, _Histogram())
            histogram.counts[bisect_left(BUCKETS, seconds)] += 1
            histogram.sum += seconds

    def total(self, name: str) -> int:
        """Of a counter, over all labels."""
        with self._lock:
            return sum(n for (key, _), n in self._counts.items() if key == name)

    def text(self) -> str:
        with self._lock:
            lines = [*self._counters(), *self._histograms()]
        for name, value in sorted(self.gauges.items()):
            lines += [f"# TYPE {name} gauge", f"{name} {value():g}"]
        return "\n".join(lines) + "\n"

    def _counters(self) -> Iterator[str]:
        for name in sorted({name for name, _ in self._counts}):
            yield f"# TYPE {name} counter"
            for (key, labels), number in sorted(self._counts.items()):
                if key == name:
                    told = ",".join(f'{k}="{v}"' for k, v in labels)
                    yield f"{name}{{{told}}} {number}" if told else f"{name} {number}"

    def _histograms(self) -> Iterator[str]:
        for name, histogram in sorted(self._seconds.items()):
            yield f"# TYPE {name} histogram"
            below = 0
            for bound, number in zip((*BUCKETS, float("inf")), histogram.counts, strict=True):
                below += number
                yield f'{name}_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}} {below}'
            yield f"{name}_sum {histogram.sum:g}"
            yield f"{name}_count {below}"
