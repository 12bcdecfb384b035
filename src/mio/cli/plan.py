"""`mio plan`: what a recipe's language stages will take on given devices."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.doctor import free_memory
from mio.cli.inputs import fast_matmul
from mio.cli.runs import find_recipe
from mio.config import override
from mio.data.loader import Loader
from mio.recipe import Recipe, Run
from mio.recipe.language import planned, processor
from mio.recipe.plan import Devices, Packs, Plan, StagePlan, plan, product_rate

GB = 1e9


def show(args: Arguments, console: Console) -> int:
    recipe = override(find_recipe(args.recipe), args.changes)
    fast_matmul()
    memory = args.memory * GB if args.memory else free_memory() / args.devices
    devices = Devices(args.devices, int(memory), args.rate * 1e9 or product_rate() / args.devices)
    made = plan(recipe, devices, _packs(recipe, args.run))
    console.data(_described(made))
    console.text(f"{made.parameters:,} parameters, {made.hours:.1f} hours on {devices.count} x {memory / GB:.1f} GB")
    for stage in made.stages:
        console.text(_line(stage))
    return 0


def _packs(recipe: Recipe, out: Path | None) -> dict[str, Packs]:
    """What the stages will read, as `mio train` plans it, once `mio data prepare` has filled a run's folder."""
    if out is None or not (out / "prepare" / "config.json").is_file():
        return {}
    run = Run(recipe, Path(), out)
    speaker = processor(run)
    return {stage.name: lengths_of(planned(run, number, speaker)) for number, stage in enumerate(recipe.stages)}


def lengths_of(loader: Loader) -> Packs:
    """Of the samples of every pack."""
    spans = (loader.plan.spans(loader.plan[pack], loader.store) for pack in range(len(loader.plan)))
    return [(stops - starts).tolist() for starts, stops in spans]


def _described(made: Plan) -> dict[str, object]:
    return {"parameters": made.parameters, "hours": made.hours, "stages": [asdict(stage) for stage in made.stages]}


def _line(stage: StagePlan) -> str:
    """Of one stage; numbers that are upper bounds say so."""
    most = "at most " if stage.fill is None else ""
    fill = "" if stage.fill is None else f" (packs {stage.fill:.0%} full)"
    fits = f"  does not fit: {stage.advice}" if stage.advice else ""
    takes = f"{stage.memory / GB:.2f} GB a rank, {most}{stage.hours:.2f} hours"
    return f"{stage.name:18}  {stage.steps} steps, {most}{stage.tokens:,} tokens{fill}, {takes}{fits}"
