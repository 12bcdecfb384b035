"""`mio data show` and `mio data stats`: what a token store holds, and what a stage makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mio.checkpoint import read_json
from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.datafiles import accounts_of
from mio.cli.inputs import open_speaker
from mio.cli.runs import find_recipe
from mio.config import from_dict, suggest
from mio.data.packing import turns
from mio.data.plan import Mix, Plan, Slot, write_plan
from mio.data.stats import Tally, realised, table, tally
from mio.data.store import Store
from mio.evals.dropped import sections
from mio.evals.packs import Look, Shown
from mio.processor import Processor
from mio.recipe import Recipe, Run
from mio.recipe.language import kinds_of, processor
from mio.types import Ids, MioError, Text


def show(args: Arguments, console: Console) -> int:
    speaker = speaker_of(args)
    store = Store.open(args.path, speaker.fingerprint)
    if args.lines or args.stage:
        return _write_page(args, console, store, speaker)
    for number in np.unique(np.linspace(0, len(store) - 1, args.count).round().astype(int)) if len(store) else ():
        ids, about = store[number].ids, store.about(number)
        text = "".join(readable(ids, speaker))
        console.data(about | {"tokens": len(ids), "text": text})
        console.text(f"--- {about['id']} | {about['task']} | {about['source']} | {len(ids)} ids\n{text}")
    return 0


def speaker_of(args: Arguments) -> Processor:
    """What made a store: the run that it lies in, unless a model is named."""
    recipe = _recipe_around(args.path)
    if args.model is not None or recipe is None:
        return open_speaker(args)
    return processor(Run(recipe, Path(), args.path.parent.parent))


def _recipe_around(store: Path) -> Recipe | None:
    path = store.parent.parent / "recipe.json"
    return from_dict(Recipe, read_json(path)) if path.is_file() else None


def readable(ids: Ids, speaker: Processor) -> Iterator[str]:
    """A sequence for people: its text, its control tokens by name, and of every span how many codes it has."""
    vocab = speaker.vocab
    cuts = np.flatnonzero(np.isin(ids, list(vocab.control_ids)))
    for piece in np.split(ids, np.unique([*cuts, *cuts + 1])):
        if len(piece) == 1 and int(piece[0]) in vocab.control_ids:
            yield vocab.tokens[int(piece[0])]
            continue
        parsed = speaker.parse(piece)
        for part in parsed.parts:
            yield part.text if isinstance(part, Text) else f"<{part.modality}…{part.codes.size} codes>"
        yield "".join(f"<fault: {fault}>" for fault in parsed.faults)


# ----------------------------------------------------------------------------------------------------- data stats


PACK = 2048  # tokens, where no stage says


def _write_page(args: Arguments, console: Console, store: Store, speaker: Processor) -> int:
    """Packs as a stage reads them; without a stage, of the whole store as it is."""
    kinds, of = kinds_of(speaker.vocab)
    if args.stage:
        mix, _ = _stage(args)
    else:
        shares = {task: float(store.lengths[n].sum()) for task, n in store.tasks().items() if "/" not in task}
        mix = Mix({"all": Slot(1, shares)}, PACK)
    order, path = turns(mix.turn), args.lines or Path("packs.html")
    with _planned(store, mix, of, args.count) as plan:
        titles = [f"Pack {n}" + (f", {order[n % len(order)]}" if len(order) > 1 else "") for n in range(len(plan))]
        packs = [_shown(title, store, plan, n, mix.tokens) for n, title in enumerate(titles)]
    facts = {"store": str(args.path), "stage": args.stage or "none", "samples": f"{len(store):,}"}
    html = Look(speaker, kinds, of).page(packs, facts, sections(accounts_of(args.path)))
    path.write_text(html, encoding="utf-8")
    console.data({"page": str(path)})
    console.text(str(path))
    return 0


@contextmanager
def _planned(store: Store, mix: Mix, of: NDArray[np.int64], packs: int) -> Iterator[Plan]:
    with TemporaryDirectory() as folder:
        write_plan(Path(folder) / "plan", store, mix, of, packs)
        yield Plan.open(Path(folder) / "plan")


def _shown(title: str, store: Store, plan: Plan, pack: int, room: int) -> Shown:
    starts, stops = plan.spans(plan[pack], store)
    about = [store.about(sample) for sample in plan.samples(plan[pack], store).tolist()]
    sequences = [store.spans(starts[n : n + 1], stops[n : n + 1]) for n in range(len(starts))]
    return Shown(title, list(zip(about, sequences, strict=True)), room)


Report = dict[str, Any]


def stats(args: Arguments, console: Console) -> int:
    """Of a whole store; with a stage, of the packs that it would read."""
    speaker = speaker_of(args)
    store, (kinds, of) = Store.open(args.path, speaker.fingerprint), kinds_of(speaker.vocab)
    if args.stage:
        report = _of_stage(store, kinds, of, args)
    else:
        report = _rows(tally(store, of, kinds)) | {"samples": len(store), "tokens": len(store.ids)}
    console.data(report)
    for rows in (report.pop("sources"), report.pop("modalities")):
        console.text("\n".join(table(rows)) + "\n")
    console.text("\n".join(f"{name}: {value}" for name, value in report.items()))
    return 0


def _of_stage(store: Store, kinds: tuple[str, ...], of: NDArray[np.int64], args: Arguments) -> Report:
    mix, packs = _stage(args)
    with _planned(store, mix, of, min(packs, args.count)) as plan:
        rows = _rows(tally(store, of, kinds, plan))
        return rows | asdict(realised(store, plan, mix)) | {"left out": plan.left_out, "split": plan.split}


def _rows(found: Tally) -> Report:
    return {"sources": found.by_source(), "modalities": found.by_kind()}


def _stage(args: Arguments) -> tuple[Mix, int]:
    """Mix and number of packs of the stage that is named, of the recipe that is named or that made the store."""
    recipe = find_recipe(args.recipe) if args.recipe else _recipe_around(args.path)
    if recipe is None:
        raise MioError("The store lies in no run.", fix="Name the stage's --recipe.")
    names = [stage.name for stage in recipe.stages]
    if args.stage not in names:
        raise MioError(f"No stage {args.stage!r}.", fix=suggest(args.stage, names))
    number = names.index(args.stage)
    stage = recipe.stages[number]
    return stage.mix(recipe.seed + number, recipe.backbone.positions), stage.fit.steps * stage.fit.parts
