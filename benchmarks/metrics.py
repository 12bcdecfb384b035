"""Processor time of BLEU, ROUGE-L and CIDEr-D of 5,000 captions against 5 references each, on one core.

OMP_NUM_THREADS=1 python benchmarks/metrics.py
"""

from __future__ import annotations

import time

import numpy as np

from mio.evals.metrics.captions import bleu, cider_d, ptb_tokens, rouge_l

WORDS = np.array([f"word{n}" for n in range(8000)])


def captions(count: int, rng: np.random.Generator) -> list[str]:
    """Sentences of 8 to 14 words whose ranks fall off as in speech (Zipf)."""
    return [" ".join(WORDS[(rng.zipf(1.3, rng.integers(8, 15)) - 1) % len(WORDS)]) + "." for _ in range(count)]


def main() -> None:
    rng = np.random.default_rng(0)
    texts = [captions(5000, rng) for _ in range(6)]
    start = time.process_time()
    hypotheses, *others = [[ptb_tokens(t) for t in column] for column in texts]
    references = [list(row) for row in zip(*others, strict=True)]
    print(f"tokens     {time.process_time() - start:6.2f} s")
    for name, metric in (("BLEU-4", bleu), ("ROUGE-L", rouge_l), ("CIDEr-D", cider_d)):
        begin = time.process_time()
        score = metric(hypotheses, references)
        print(f"{name:10} {time.process_time() - begin:6.2f} s   {score.value:.4f}")
    print(f"in all     {time.process_time() - start:6.2f} s")


if __name__ == "__main__":
    main()
