"""A recipe is one frozen dataclass tree; `run` takes it from raw files to a model folder, stage by stage.

Every stage leaves a finished folder, and a stage whose folder is there is not run again: killing and repeating the
command resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mio.checkpoint import read_json, write_json
from mio.config import from_dict, suggest, to_dict
from mio.recipe.language import language_stages, prepare_stage
from mio.recipe.report import judges_stage, measure_stage
from mio.recipe.tokenizers import align_stage, image_stage, speech_stage, teacher_stage, text_stage
from mio.recipe.tree import DataConfig, ImageConfig, Recipe, Run, SpeechStageConfig, Stage, TextConfig
from mio.train.parallel import Crew, Task, barrier, rank, world
from mio.types import MioError

__all__ = [
    "STAGES",
    "DataConfig",
    "ImageConfig",
    "Recipe",
    "Run",
    "SpeechStageConfig",
    "Stage",
    "TextConfig",
    "run",
    "with_needs",
]


@dataclass(frozen=True)
class Work:
    """What a stage does and which stages it waits for. `whole`: it uses all the cores itself."""

    stage: Callable[[Run], None]
    needs: tuple[str, ...] = ()
    whole: bool = False
    ranks: bool = False  # those that torchrun has started do it together


STAGES: dict[str, Work] = {
    "text": Work(text_stage),
    "align": Work(align_stage, ("text",)),
    "image": Work(image_stage, ("align",)),
    "teacher": Work(teacher_stage),
    "speech": Work(speech_stage, ("teacher",)),
    "judges": Work(judges_stage),
    "prepare": Work(prepare_stage, ("image", "speech"), whole=True),
    "model": Work(language_stages, ("prepare",), whole=True, ranks=True),
    "measure": Work(measure_stage, ("model", "judges"), whole=True),
}


def with_needs(name: str) -> tuple[str, ...]:
    """A stage and all that it waits for, in order."""
    before = [n for need in STAGES[name].needs for n in with_needs(need)]
    return tuple(n for n in STAGES if n in {*before, name})


def run(job: Run, only: tuple[str, ...] = ()) -> None:
    """Run every stage that is not finished yet; `only` names some of them.

    With more `workers`, stages that do not need one another run side by side in processes of their own, and ranks of
    the language model share each of its steps. Under torchrun the first process does what ranks cannot share.

    Raises:
        MioError: an unknown stage, or `out` holds another recipe's run.
    """
    for name in only:
        if name not in STAGES:
            raise MioError(f"No stage {name!r}.", fix=suggest(name, STAGES))
    if rank() == 0:
        _claim(job)
    wanted = [name for name in STAGES if not only or name in only]
    if job.workers > 1 and world() == 1:
        _side_by_side(job, [name for name in wanted if not STAGES[name].whole and not job.done(name)])
    for name in wanted:
        if (rank() == 0 or STAGES[name].ranks) and not job.done(name):
            STAGES[name].stage(job)
        barrier()


def _side_by_side(job: Run, todo: list[str]) -> None:
    """At most `workers` stages at a time, each as soon as those that it needs are finished."""
    crew = Crew()
    names: dict[object, str] = {}
    with crew.forward_signals():
        while todo or crew.busy:
            ready = [n for n in todo if not {*STAGES[n].needs} & {*todo, *names.values()}]
            for name in [] if crew.stopping else ready[: job.workers - crew.busy]:
                todo.remove(name)
                names[crew.start(Task(STAGES[name].stage, (job,), job.threads))] = name
            names.pop(crew.finish_one())


def _claim(job: Run) -> None:
    """Write the recipe into a new run folder, or check that it is the one that is there.

    Raises:
        MioError: the folder belongs to another recipe.
    """
    path = job.out / "recipe.json"
    job.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, to_dict(job.recipe))
    elif from_dict(Recipe, read_json(path)) != job.recipe:
        fix = "Choose another --out, or repeat the command that made this run."
        raise MioError("This folder holds the run of another recipe.", at=str(path), fix=fix)
