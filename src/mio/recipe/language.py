"""Stages of the language model: encode and render all samples, then pre-train and fine-tune."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mio.checkpoint import WEIGHTS, commit, load_state, load_tensors, save_module, write_json
from mio.config import to_dict
from mio.data.loader import Loader
from mio.data.plan import Mix, Plan, Slot, write_plan
from mio.data.prepare import encode_items
from mio.data.pretraining import PRETRAINING
from mio.data.store import Record, Store, write_store
from mio.data.tasks import INSTRUCT, Shelf, Task
from mio.layers import Batch
from mio.models.backbone import Backbone
from mio.pipeline import ModelConfig, load_processor, save
from mio.pretrained.hub import locate
from mio.pretrained.llama import extend_vocabulary, read_backbone
from mio.pretrained.release import read_processor
from mio.processor import Processor
from mio.recipe.tree import Run, Stage
from mio.train.gauge import TEXT, Gauge
from mio.train.loop import fit
from mio.train.objectives import next_token_loss
from mio.train.parallel import barrier, rank, run_ranks, world
from mio.train.sharding import shard, whole_state
from mio.train.state import fill
from mio.types import MioError, Sample
from mio.vocab import Vocabulary

HELD = "held out"  # the store of validation samples


def processor(run: Run) -> Processor:
    r = run.recipe
    if r.released:
        return read_processor(locate(r.released), torch.float32)
    return load_processor(run.out, r.rows, r.systems, r.frames)


def prepare_stage(run: Run) -> None:
    """Encode every medium once and render all samples of both kinds; and held-out ones, where a stage watches them."""
    speaker, (train, validation) = processor(run), run.items()
    data, maker = run.recipe.data, run.scene_maker(train)
    made = [*maker.scene_items(data.scenes), *maker.edit_items(data.edits), *maker.clip_items(data.clips)]
    shelf = Shelf.of(encode_items([*train, *made], speaker), run.recipe.seed)
    _write(run, "pretrain", PRETRAINING, shelf, speaker)
    _write(run, "instruct", INSTRUCT, shelf, speaker)
    if any(stage.gauge.every for stage in run.recipe.stages):
        _write(run, HELD, PRETRAINING, Shelf.of(encode_items(validation, speaker), run.recipe.seed), speaker)
    write_json(run.out / "prepare" / "config.json", {"fingerprint": speaker.fingerprint})


def _write(run: Run, name: str, tasks: Mapping[str, Task], shelf: Shelf, speaker: Processor) -> None:
    records = (record for task in tasks for record in _records(task, tasks[task](shelf), speaker))
    write_store(run.out / "prepare" / name, records, speaker.fingerprint)


def _records(task: str, samples: Iterator[Sample], speaker: Processor) -> Iterator[Record]:
    """Rendered samples of any length: what becomes of long ones, a stage decides."""
    for sample in samples:
        yield Record(speaker.sequence(sample.content), sample.id, task, sample.source, sample.license)


@dataclass
class LanguageObjective:
    """A stage's targets of all kinds, each with its weight; text's may be lifted on the way."""

    module: Backbone
    loader: Loader
    kinds: tuple[str, ...]
    stage: Stage
    held_out: Mapping[str, Sequence[Batch]]
    lift: float = 1.0

    @property
    def gauge(self) -> Gauge:
        return self.stage.gauge

    @property
    def names(self) -> tuple[str, ...]:
        return (TEXT, *self.kinds)

    def batch(self, step: int) -> Batch:
        return self.loader.batch(step)

    def halves(self, batch: Batch) -> tuple[Batch, ...]:
        return batch.halves()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """With the realised share of every kind among the targets, for the log."""
        shares = torch.bincount(batch.kinds, minlength=len(self.kinds)) / max(len(batch.kinds), 1)
        realised = {f"share of {kind}": share for kind, share in zip(self.kinds, shares, strict=True)}
        weights = self.stage.weights | {"text": self.stage.weights.get("text", 1.0) * self.lift}
        return next_token_loss(self.module, batch, self.kinds, weights) | realised

    def lift_text(self, factor: float) -> None:
        self.lift = factor

    def sums(self, group: str, batch: Batch) -> dict[str, tuple[float, float]]:
        found = next_token_loss(self.module, batch, self.kinds)
        if group == TEXT:
            return {TEXT: (float(found["loss"]), float(found["weight"]))}
        counts = torch.bincount(batch.kinds, minlength=len(self.kinds)).tolist()
        each = zip(self.kinds, counts, strict=True)
        return {kind: (float(found[kind]) * count, float(count)) for kind, count in each if count}


def language_stages(run: Run) -> None:
    """The stages of the language model, each starting from the weights of the one before; ranks share every step."""
    run_ranks(_train_language, (run,), _ranks(run), run.threads)


def _ranks(run: Run) -> int:
    """As many as the workers and the stages' packs allow.

    Raises:
        MioError: torchrun has started another number.
    """
    parts = gcd(*(stage.fit.parts for stage in run.recipe.stages))
    if world() > 1 and parts % world():
        fix = f"Start as many as divide {parts}, the packs of a step that all stages have in common."
        raise MioError(f"{world()} ranks cannot share every step alike.", at="stages", fix=fix)
    return world() if world() > 1 else gcd(run.workers, parts)


def _train_language(run: Run) -> None:
    r, speaker = run.recipe, processor(run)
    torch.manual_seed(r.seed)
    model = untrained(run, len(speaker.vocab))
    shape = model.config
    if run.sharded:
        shard(model)
    for number, stage in enumerate(r.stages):
        folder = run.out / "stages" / stage.name
        if not (folder / "config.json").is_file():
            _train_stage(run, number, model, speaker)
        fill(model, load_tensors(folder / WEIGHTS), str(folder))
    state = whole_state(model)
    if rank() == 0:
        plain = Backbone(shape)
        load_state(plain, state)
        made = (r.decoding, r.frames, speaker.fingerprint)
        config = ModelConfig(r.name, shape, speaker.vocab.rows, r.systems, *made, released=r.released)
        save(run.out / "model", config, plain, run.out, {})


def _train_stage(run: Run, number: int, model: Backbone, speaker: Processor) -> None:
    """Leave the weights of its last step, or of its best look, in the stage's folder."""
    stage, (names, _) = run.recipe.stages[number], kinds_of(speaker.vocab)
    work = run.out / "work" / stage.name
    loader, held = planned(run, number, speaker), held_out(run, stage, speaker)
    fit(LanguageObjective(model, loader, names, stage, held), stage.fit, work, stage.name, run.metrics)
    if stage.gauge.best and stage.gauge.every:
        barrier()
        fill(model, load_tensors(work / "best" / WEIGHTS), str(work / "best"))
    state = whole_state(model)
    if rank() == 0:
        commit(run.out / "stages" / stage.name, partial(save_module, config=to_dict(stage), state=state))
    barrier()


def held_out(run: Run, stage: Stage, speaker: Processor) -> dict[str, list[Batch]]:
    """What a stage's gauge looks at, the same for all stages: packs of plain text, and of every task as often as each
    other."""
    if not stage.gauge.every:
        return {}
    store, (_, kinds) = Store.open(run.out / "prepare" / HELD, speaker.fingerprint), kinds_of(speaker.vocab)
    tasks = sorted(store.index.names)
    groups = {TEXT: {"text": 1.0}, "mixture": {task: 1.0 for task, _ in tasks}}
    found = {}
    for name, shares in groups.items():
        mix = Mix({"all": Slot(1, shares, "split")}, stage.tokens, run.recipe.seed, run.backbone.positions)
        folder = run.out / "plans" / f"{HELD} {name} {stage.tokens} {stage.gauge.packs}"
        if rank() == 0:
            write_plan(folder, store, mix, kinds, stage.gauge.packs)
        barrier()
        loader = Loader(store, Plan.open(folder), kinds)
        found[name] = [loader.batch(pack) for pack in range(stage.gauge.packs)]
    return found


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
