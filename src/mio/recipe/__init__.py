"""A recipe is one frozen dataclass tree; `run` takes it from raw files to a model folder, stage by stage.

Every stage leaves a finished folder, and a stage whose folder is there is not run again: killing and repeating the
command resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mio.checkpoint import read_json, write_json
from mio.config import suggest, to_dict
from mio.recipe.language import language_stages, prepare_stage
from mio.recipe.report import measure_stage
from mio.recipe.tokenizers import align_stage, image_stage, speech_stage, teacher_stage, text_stage
from mio.recipe.tree import DataConfig, ImageConfig, Recipe, Run, SpeechStageConfig, Stage, TextConfig
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
]

STAGES: dict[str, Callable[[Run], None]] = {
    "text": text_stage,
    "align": align_stage,
    "image": image_stage,
    "teacher": teacher_stage,
    "speech": speech_stage,
    "prepare": prepare_stage,
    "model": language_stages,
    "measure": measure_stage,
}


def run(recipe: Recipe, corpus: Path, out: Path, only: tuple[str, ...] = ()) -> None:
    """Run every stage that is not finished yet, in order; `only` names some of them.

    Raises:
        MioError: an unknown stage, or `out` holds another recipe's run.
    """
    for name in only:
        if name not in STAGES:
            raise MioError(f"No stage {name!r}.", fix=suggest(name, STAGES))
    job = Run(recipe, corpus, out)
    _claim(job)
    for name, stage in STAGES.items():
        if (not only or name in only) and not job.done(name):
            stage(job)


def _claim(job: Run) -> None:
    """Write the recipe into a new run folder, or check that it is the one that is there.

    Raises:
        MioError: the folder belongs to another recipe.
    """
    path = job.out / "recipe.json"
    job.out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, to_dict(job.recipe))
    elif read_json(path) != to_dict(job.recipe):
        fix = "Choose another --out, or repeat the command that made this run."
        raise MioError("This folder holds the run of another recipe.", at=str(path), fix=fix)
