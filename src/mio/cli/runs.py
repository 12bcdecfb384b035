"""Recipes and runs: `mio train`, `mio data prepare`, `mio data show`, `mio recipes` and `mio demo`."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np

import mio.recipes
from mio.checkpoint import read_json
from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.errors import Interruption
from mio.cli.inputs import fast_matmul, open_model
from mio.config import dump_yaml, from_dict, load_yaml, override, suggest, to_dict
from mio.data.store import Store
from mio.processor import Processor
from mio.recipe import STAGES, Recipe, Run, run, with_needs
from mio.recipe.language import processor
from mio.train.loop import Interrupted
from mio.types import Ids, MioError, MissingError, Text


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Functions of `mio.recipes` that bear their module's name."""
    names = [m.name for m in pkgutil.iter_modules(mio.recipes.__path__)]
    found = {name: vars(import_module(f"mio.recipes.{name}")).get(name) for name in names}
    return {name: maker for name, maker in found.items() if callable(maker)}


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a YAML file.

    Raises:
        MioError: an unknown name, or a file that makes no recipe. MissingError: no such file.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise MissingError("There is no such file.", at=name, fix="Make one: mio recipes cat tiny > mine.yaml")
        return load_yaml(Recipe, Path(name))
    known = recipes()
    if name not in known:
        raise MioError(f"No recipe {name!r}.", fix=suggest(name, known))
    return known[name]()


def list_recipes(args: Arguments, console: Console) -> int:
    known = [{"name": name, "about": _about(maker)} for name, maker in recipes().items()]
    console.data(known)
    for recipe in known:
        console.text(f"{recipe['name']:12}  {recipe['about']}")
    return 0


def _about(maker: Callable[[], Recipe]) -> str:
    """The first line of the function's words, or of its module's."""
    words = maker.__doc__ or import_module(maker.__module__).__doc__ or ""
    return words.strip().partition("\n")[0]


def print_recipe(args: Arguments, console: Console) -> int:
    recipe = find_recipe(args.recipe)
    console.data(to_dict(recipe))
    console.text(dump_yaml(recipe).rstrip("\n"))
    return 0


def train(args: Arguments, console: Console) -> int:
    return _run(args, console, tuple(s.strip() for s in args.only.split(",") if s.strip()))


def prepare(args: Arguments, console: Console) -> int:
    return _run(args, console, with_needs("prepare"))


def _run(args: Arguments, console: Console, only: tuple[str, ...]) -> int:
    changes = [*args.changes, f"init={args.init}"] if args.init else args.changes
    recipe = override(find_recipe(args.recipe), changes)
    out = args.run or Path("runs") / recipe.name
    corpus = _corpus(args.data)
    fast_matmul()
    console.note(f"{recipe.name}: {corpus} -> {out}")
    begun = time.perf_counter()
    try:
        run(recipe, corpus, out, only, max(1, args.workers))
    except Interrupted as stop:
        raise Interruption(str(stop), at=str(out), fix="Run the same command again.") from stop
    done = stages_done(out)
    console.data({"run": str(out), "stages": done, "seconds": round(time.perf_counter() - begun, 1)})
    console.text(str(out / "model" if "model" in done else out))
    return 0


def _corpus(given: Path | None) -> Path:
    folder = given or Path(str(files("mio"))) / "assets" / "sample"
    if not folder.is_dir():
        what = "There is no such folder." if given else "This installation has no sample corpus."
        raise MissingError(what, at=str(folder), fix="Pass --data DIR with a corpus folder.")
    return folder


def stages_done(out: Path) -> list[str]:
    return [name for name in STAGES if (out / name / "config.json").is_file()]


def demo(args: Arguments, console: Console) -> int:
    from mio.demo import run as run_demo

    fast_matmul()
    page = run_demo(args.folder, args.model, args.small)
    console.data({"page": str(page)})
    console.text(str(page))
    return 0


# ------------------------------------------------------------------------------------------------------ data show


def show(args: Arguments, console: Console) -> int:
    speaker = _speaker_of(args.path, args.model)
    store = Store.open(args.path, speaker.fingerprint)
    for number in np.unique(np.linspace(0, len(store) - 1, args.count).round().astype(int)) if len(store) else ():
        ids, about = store[number].ids, store.samples[number]
        text = "".join(readable(ids, speaker))
        console.data(about | {"tokens": len(ids), "text": text})
        console.text(f"--- {about['id']} | {about['task']} | {about['source']} | {len(ids)} ids\n{text}")
    return 0


def _speaker_of(store: Path, model: Path | None) -> Processor:
    """What made a store: the run that it lies in, unless a model is named."""
    out = store.parent.parent
    if model is not None or not (out / "recipe.json").is_file():
        return open_model(model).processor
    return processor(Run(from_dict(Recipe, read_json(out / "recipe.json")), Path(), out))


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
