"""AdamW against Muon: how fast the shipped backbone learns to name and draw pictograms.

python benchmarks/optimizers.py --data CORPUS --steps 250
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import mio
from mio.data.loader import Loader
from mio.data.prepare import encode_items
from mio.data.store import Record, Store, write_store
from mio.data.tasks import INSTRUCT, Shelf
from mio.layers import fast_bf16
from mio.models.backbone import Backbone
from mio.processor import Processor
from mio.recipe import Run
from mio.recipe.language import kinds_of
from mio.recipes.tiny import BACKBONE, tiny
from mio.train.objectives import next_token_loss
from mio.train.optim import Optim, optimizers, rate

TASKS = ("name picture", "draw picture")
CASES = (Optim(1.6e-3, floor=0.1), Optim(1.6e-3, floor=0.1, muon=True), Optim(4e-3, floor=0.1, muon=True))


def pictograms(corpus: Path, count: int, speaker: Processor, folder: Path) -> Store:
    """Both tasks over `count` pictograms of the training split, with the shipped model's codes."""
    items = [i for i in Run(tiny(), corpus, folder).items()[0] if i.source == "emoji"]
    chosen = np.random.default_rng(0).permutation(len(items))[:count]
    shelf = Shelf.of(encode_items([items[n] for n in chosen], speaker))
    samples = ((task, sample) for task in TASKS for sample in INSTRUCT[task](shelf))
    records = (Record(speaker.sequence(s.content), s.id, task, s.source, s.license) for task, s in samples)
    write_store(folder / "store", records, speaker.fingerprint)
    return Store.open(folder / "store", speaker.fingerprint)


def learn(store: Store, speaker: Processor, c: Optim, steps: int) -> tuple[dict[str, float], float]:
    """Mean losses of the last 50 steps, and seconds per step."""
    names, kinds = kinds_of(speaker.vocab)
    loader = Loader.plan(store, dict.fromkeys(TASKS, 1.0), kinds, 1536, steps, 0)
    torch.manual_seed(0)
    model = Backbone(replace(BACKBONE, vocabulary=len(speaker.vocab)))
    learning, seen, begun = optimizers(model, c), [], time.perf_counter()
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16(torch.device("cpu"))):
            losses = next_token_loss(model, loader.batch(step), names)
        (losses["loss"] / losses["weight"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        for optimizer in learning:
            for group in optimizer.param_groups:
                group["lr"] = rate(c, step, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        seen.append({k: float(losses[k].detach()) for k in ("text", "image")})
    seconds = (time.perf_counter() - begun) / steps
    return {k: float(np.mean([s[k] for s in seen[-50:]])) for k in ("text", "image")}, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--pictures", type=int, default=1200)
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("medium")
    speaker = mio.load().processor
    with TemporaryDirectory() as folder:
        store = pictograms(arguments.data, arguments.pictures, speaker, Path(folder))
        print("| optimizer | lr | text loss | image loss | ms a step |\n| --- | --- | --- | --- | --- |")
        for c in CASES:
            losses, seconds = learn(store, speaker, c, arguments.steps)
            name = "Muon" if c.muon else "AdamW"
            print(f"| {name} | {c.lr} | {losses['text']:.2f} | {losses['image']:.2f} | {seconds * 1000:.0f} |")


if __name__ == "__main__":
    main()
