"""A model's answers to a task, kept one by one as they come, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from mio.checkpoint import read_json, write_json
from mio.config import from_dict
from mio.evals.benchmarks.choices import LETTERS
from mio.evals.benchmarks.items import Item, some
from mio.evals.likelihood import likelihoods
from mio.evals.planning import Plan, Settings, Task, content, continues, plan
from mio.evals.scoring import Answer
from mio.pipeline import Job, Model
from mio.types import DataError, MioError, ResourceError

PLAN, ANSWERS = "plan.json", "answers.jsonl"


def answer(task: Task, model: Model, items: Sequence[Item], folder: Path, settings: Settings) -> Plan:
    """Ask what has no answer yet. Killed, the same call goes on; items that failed are asked again.

    Raises:
        MioError: the folder holds answers of another plan, or the prompt does not suit the model.
    """
    ours = plan(task, model, items, settings)
    begin(folder, ours)
    chosen = items[: ours.asked]
    kept = [a for a in read_answers(folder, chosen) if not a.error]
    write_lines(folder / ANSWERS, [line_of(a) for a in kept])
    done = {a.id for a in kept}
    left = [(n, item) for n, item in enumerate(chosen) if item.id not in done]
    with (folder / ANSWERS).open("a", encoding="utf-8") as file, tqdm(total=len(left), desc=task.name) as bar:
        for start in range(0, len(left), settings.batch):
            group = left[start : start + settings.batch]
            for one in _answered(task, model, group, folder, settings):
                print(line_of(one), file=file, flush=True)
            bar.update(len(group))
    return ours


def begin(folder: Path, ours: Plan) -> None:
    """Write the plan, or check that it is the one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PLAN).is_file():
        write_json(folder / PLAN, asdict(ours))
    theirs = asdict(read_plan(folder))
    changed = [name for name, value in asdict(ours).items() if theirs[name] != value]
    if changed:
        what = f"This folder holds answers of another run: {', '.join(changed)} differ."
        raise MioError(what, at=str(folder), fix="Give another folder, or the same settings.")


def read_plan(folder: Path) -> Plan:
    """Raises: MissingError where there is no run."""
    return from_dict(Plan, read_json(folder / PLAN))


Numbered = Sequence[tuple[int, Item]]


def _answered(task: Task, model: Model, group: Numbered, folder: Path, settings: Settings) -> list[Answer]:
    """All as one batch; if that fails, one by one, so that a bad item costs its own answer only."""
    begun = time.perf_counter()
    try:
        found = _scored(task, model, group) if task.likelihood else _written(task, model, group, folder, settings)
    except ResourceError:
        raise
    except MioError as error:
        if len(group) > 1:
            return [a for one in group for a in _answered(task, model, [one], folder, settings)]
        return [Answer(group[0][1].id, error=f"{error} {error.at}".strip())]
    seconds = round((time.perf_counter() - begun) / len(group), 4)
    return [replace(a, seconds=seconds) for a in found]


def _scored(task: Task, model: Model, group: Numbered) -> list[Answer]:
    """In a document, a letter stands after a blank, as after "Answer:"; a turn begins with it."""
    blank = " " if continues(task, model) else ""
    asked = [(item, content(task, model, item), [blank + x for x in LETTERS[: len(item.options)]]) for _, item in group]
    return [Answer(item.id, scores=tuple(likelihoods(model, prompt, texts))) for item, prompt, texts in asked]


def _written(task: Task, model: Model, group: Numbered, folder: Path, settings: Settings) -> list[Answer]:
    jobs = [
        Job(content(task, model, item), task.out, task.tokens, 0, settings.seed + n, task.mode, {}, settings.profile)
        for n, item in group
    ]
    out = []
    replies = [reply.checked() for reply in model.run(jobs)]
    for (n, item), reply in zip(group, replies, strict=True):
        files = reply.save(folder / "media", f"{n:06d}")
        names = tuple(str(f.relative_to(folder)) for f in files)
        out.append(Answer(item.id, reply.text, names, faults=reply.faults))
    return out


def line_of(answer: Answer) -> str:
    return json.dumps({k: v for k, v in asdict(answer).items() if v not in ("", ())}, ensure_ascii=False)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    new = path.with_suffix(".tmp")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    os.replace(new, path)


def read_answers(folder: Path, items: Sequence[Item]) -> list[Answer]:
    """The answers that are there, in their order; a last line that a kill cut short is none.

    Raises:
        DataError: a line is no answer, an item has two, or an answer has no item.
    """
    path = folder / ANSWERS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = enumerate(text.split("\n")[:-1], 1)
    found = [_parsed(line, f"{path}:{number}") for number, line in lines if line.strip()]
    twice = [id for id, times in Counter(a.id for a in found).items() if times > 1]
    asked = {i.id for i in items}
    strange = [a.id for a in found if a.id not in asked]
    if twice:
        raise DataError(f"{len(twice)} items have two answers: {some(twice)}.", at=str(path), fix="Keep one of each.")
    if strange:
        raise DataError(f"{len(strange)} answers are to no item: {some(strange)}.", at=str(path))
    return found


def _parsed(line: str, at: str) -> Answer:
    try:
        return from_dict(Answer, json.loads(line))
    except (ValueError, RecursionError) as error:
        raise DataError("This line is not an answer.", at=at, fix="Remove it, and it is asked again.") from error
