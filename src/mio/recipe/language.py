"""Stages of the language model: encode and render all samples, then pre-train and fine-tune."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mio.checkpoint import commit, load_state, load_tensors, save_module, write_json
from mio.config import to_dict
from mio.data.loader import Loader
from mio.data.plan import Plan, write_plan
from mio.data.prepare import encode_items
from mio.data.store import Record, Store, write_store
from mio.data.tasks import INSTRUCT, PRETRAINING, Shelf
from mio.layers import Batch
from mio.models.backbone import Backbone
from mio.pipeline import ModelConfig, load_processor, save
from mio.pretrained.hub import locate
from mio.pretrained.llama import extend_vocabulary, read_backbone
from mio.pretrained.release import read_processor
from mio.processor import Processor
from mio.recipe.tree import Run
from mio.train.loop import fit
from mio.train.objectives import next_token_loss
from mio.train.parallel import barrier, rank, run_ranks, world
from mio.types import Sample
from mio.vocab import Vocabulary


def processor(run: Run) -> Processor:
    r = run.recipe
    if r.released:
        return read_processor(locate(r.released), torch.float32)
    return load_processor(run.out, r.rows, r.systems, r.frames)


def prepare_stage(run: Run) -> None:
    """Encode every medium once and render all samples of both kinds."""
    speaker, train = processor(run), run.items()[0]
    data, maker = run.recipe.data, run.scene_maker(train)
    made = [*maker.scene_items(data.scenes), *maker.edit_items(data.edits), *maker.clip_items(data.clips)]
    shelf = Shelf.of(encode_items([*train, *made], speaker), run.recipe.seed)
    for name, tasks in (("pretrain", PRETRAINING), ("instruct", INSTRUCT)):
        records = (record for task in tasks for record in _records(task, tasks[task](shelf), speaker))
        write_store(run.out / "prepare" / name, records, speaker.fingerprint)
    write_json(run.out / "prepare" / "config.json", {"fingerprint": speaker.fingerprint})


def _records(task: str, samples: Iterator[Sample], speaker: Processor) -> Iterator[Record]:
    """Rendered samples of any length: what becomes of long ones, a stage decides."""
    for sample in samples:
        yield Record(speaker.sequence(sample.content), sample.id, task, sample.source, sample.license)


@dataclass
class _LanguageObjective:
    module: Backbone
    loader: Loader
    kinds: tuple[str, ...]
    weights: Mapping[str, float]

    def batch(self, step: int) -> Batch:
        return self.loader.batch(step).to(self.module.lm_head.weight.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With the realised share of every kind among the targets, for the log."""
        shares = torch.bincount(batch.kinds, minlength=len(self.kinds)) / max(len(batch.kinds), 1)
        realised = {f"share of {kind}": share for kind, share in zip(self.kinds, shares, strict=True)}
        return next_token_loss(self.module, batch, self.kinds, self.weights) | realised


def language_stages(run: Run) -> None:
    """The stages of the language model, each starting from the weights of the one before; ranks share every step."""
    ranks = gcd(run.workers, *(stage.fit.parts for stage in run.recipe.stages))
    run_ranks(_train_language, (run,), ranks, run.threads)


def _train_language(run: Run) -> None:
    r, speaker = run.recipe, processor(run)
    names, _ = kinds_of(speaker.vocab)
    torch.manual_seed(r.seed)
    model = untrained(run, len(speaker.vocab)).to(accelerator())
    for number, stage in enumerate(r.stages):
        folder = run.out / "stages" / stage.name
        if not (folder / "config.json").is_file():
            loader = planned(run, number, speaker)
            fit(
                _LanguageObjective(model, loader, names, stage.weights),
                stage.fit,
                run.out / "work" / stage.name,
                stage.name,
                run.metrics,
            )
            if rank() == 0:
                state = {k: v.clone() for k, v in model.state_dict().items()}
                commit(folder, partial(save_module, config=to_dict(stage), state=state))
            barrier()
        load_state(model, load_tensors(folder / "model.safetensors"), str(folder))
    made = (r.decoding, r.frames, speaker.fingerprint)
    config = ModelConfig(r.name, model.config, speaker.vocab.rows, r.systems, *made, released=r.released)
    if rank() == 0:
        save(run.out / "model", config, model, run.out, {})


def accelerator() -> torch.device:
    """The GPU, where there is one and one process has it to itself."""
    return torch.device("cuda" if torch.cuda.is_available() and world() == 1 else "cpu")


def planned(run: Run, number: int, speaker: Processor) -> Loader:
    """What the stage of that number reads, planned at the first call; later ones and other ranks find it."""
    stage, (_, kinds) = run.recipe.stages[number], kinds_of(speaker.vocab)
    store, folder = Store.open(run.out / "prepare" / stage.store, speaker.fingerprint), run.out / "plans" / stage.name
    if rank() == 0:
        mix = stage.mix(run.recipe.seed + number, run.backbone.positions)
        write_plan(folder, store, mix, kinds, stage.fit.steps * stage.fit.parts)
        _tell(stage.name, Plan.open(folder), mix.most)
    barrier()
    return Loader(store, Plan.open(folder), kinds)


def _tell(stage: str, plan: Plan, most: int) -> None:
    """What became of samples that are too long, on stderr."""
    for word, counts in (("left out", plan.left_out), ("split", plan.split)):
        if counts:
            which = ", ".join(f"{count} of {name}" for name, count in counts.items())
            print(f"{stage}: {word} samples longer than {most} ids: {which}", file=sys.stderr)


def untrained(run: Run, ids: int) -> Backbone:
    """The model before its first stage: a base model with rows for the new ids, or random weights."""
    if run.base is None or run.done(f"stages/{run.recipe.stages[0].name}"):
        return Backbone(replace(run.backbone, vocabulary=ids))
    return extend_vocabulary(read_backbone(run.base, torch.float32), ids, run.recipe.new_rows, run.recipe.seed)


def kinds_of(vocab: Vocabulary) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of kinds of ids ("text", then the rows that own ids) and the kind of every id."""
    rows = [row.name for row in vocab.rows if row.size]
    kinds = np.zeros(len(vocab), np.int64)
    for number, name in enumerate(rows, 1):
        kinds[vocab.level_ids(name)] = number
    return ("text", *rows), kinds
