"""Recipes and runs: `mio train`, `train-tokenizer`, `data prepare`, `recipes` and `demo`."""

from __future__ import annotations

import pkgutil
import re
import time
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from inspect import isfunction, signature
from pathlib import Path
from types import FunctionType

import mio.recipes
from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.errors import Interruption
from mio.cli.inputs import fast_matmul
from mio.config import dump_yaml, load_yaml, override, suggest, to_dict
from mio.pretrained.hub import locate
from mio.recipe import STAGES, Recipe, Run, run, with_needs
from mio.train.loop import Interrupted
from mio.train.parallel import torchrun
from mio.types import MioError, MissingError


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Functions of `mio.recipes` that make a recipe: MODULE the one that bears its module's name, MODULE:FUNCTION
    another."""
    found: dict[str, Callable[[], Recipe]] = {}
    for name in (m.name for m in pkgutil.iter_modules(mio.recipes.__path__)):
        module = import_module(f"mio.recipes.{name}")
        for word, maker in vars(module).items():
            if isfunction(maker) and maker.__module__ == module.__name__ and _makes_recipe(maker):
                found[name if word == name else f"{name}:{word}"] = maker
    return found


def _makes_recipe(maker: FunctionType) -> bool:
    known = signature(maker)
    return known.return_annotation == "Recipe" and not known.parameters


def find_recipe(name: str) -> Recipe:
    """A recipe by its name, also as recipes/MODULE.py:FUNCTION or mio.recipes.MODULE:FUNCTION; or from a YAML file.
    Only recipes that ship are called: no other code runs.

    Raises:
        MioError: an unknown name, or a file that makes no recipe. MissingError: no such file.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise MissingError("There is no such file.", at=name, fix="Make one: mio recipes cat tiny > mine.yaml")
        return load_yaml(Recipe, Path(name))
    known, (module, _, function) = recipes(), name.partition(":")
    module = re.sub(r"^(?:.*/)?recipes/(\w+)\.py$|^mio\.recipes\.(\w+)$", r"\1\2", module)
    short = f"{module}:{function}" if function not in ("", module) else module
    if short not in known:
        raise MioError(f"No recipe {name!r}.", fix=suggest(short, known))
    return known[short]()


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


def train_tokenizer(args: Arguments, console: Console) -> int:
    """The stages that lead to one tokenizer; a later `mio train` with the same RUN takes it as it is."""
    return _run(args, console, with_needs(args.kind))


def _run(args: Arguments, console: Console, only: tuple[str, ...]) -> int:
    changes = [*args.changes, f"init={args.init}"] if args.init else args.changes
    recipe = override(find_recipe(args.recipe), changes)
    out = args.run or Path("runs") / recipe.name
    data = corpus(args.data)
    fast_matmul()
    console.note(f"{recipe.name}: {data} -> {out}")
    begun = time.perf_counter()
    try:
        with torchrun():
            run(Run(recipe, data, out, max(1, args.workers), args.sharded), only)
    except Interrupted as stop:
        raise Interruption(str(stop), at=str(out), fix="Run the same command again.") from stop
    done = stages_done(out)
    console.data({"run": str(out), "stages": done, "seconds": round(time.perf_counter() - begun, 1)})
    console.text(str(out / "model" if "model" in done else out))
    return 0


def corpus(given: Path | None) -> Path:
    """A corpus folder, or the sample that ships.

    Raises:
        MissingError: it is not there.
    """
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
    model = args.model and locate(args.model, revision=args.revision, offline=args.offline)
    page = run_demo(args.folder, model, args.small)
    console.data({"page": str(page)})
    console.text(str(page))
    return 0
