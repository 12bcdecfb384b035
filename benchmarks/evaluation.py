"""Which share of an evaluation's time passes in the model: the packaged model names pictures, in batches.

OMP_NUM_THREADS=1 python benchmarks/evaluation.py
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from mio.data.sources import read_corpus
from mio.data.tasks import words
from mio.evals.answering import answer
from mio.evals.benchmarks.items import Item
from mio.evals.matrix import SAMPLE
from mio.evals.planning import Settings, Task
from mio.evals.results import score
from mio.pipeline import load
from mio.types import Text

COUNT = 96


def items() -> list[Item]:
    """Pictures of the sample, over and over."""
    found = [item for item in read_corpus(SAMPLE) if item.source == "emoji"]
    chosen = (found[n % len(found)] for n in range(COUNT))
    return [Item(str(n), (i.media("image")[0], Text("What is this?")), (words(i),)) for n, i in enumerate(chosen)]


def main() -> None:
    model, asked = load(), items()
    task = Task("names", "", "", lambda folder: asked, "{0}{1}", "", ("accuracy",), tokens=40)
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        answer(task, model, asked, Path(folder), Settings(batch=16))
        document = score(task, asked, Path(folder))
        whole = time.perf_counter() - begun
    print(f"{COUNT} answers in {whole:.2f} s, {document['seconds'] / whole:.1%} of it in the model")


if __name__ == "__main__":
    main()
