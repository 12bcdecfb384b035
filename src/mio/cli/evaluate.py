"""`mio eval`: benchmarks answered and scored, runs listed and compared, the paper's tables, every direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.inputs import open_model
from mio.cli.people import form, people
from mio.cli.report_card import tokenizer
from mio.config import suggest
from mio.evals.answering import answer
from mio.evals.benchmarks.items import read_items
from mio.evals.paper import PUBLISHED, TASKS, Published
from mio.evals.planning import Settings, Task, is_base
from mio.evals.results import SCORES, compare, read_scores, score, write_samples
from mio.evals.scoring import METRICS
from mio.evals.surveys import SURVEYS
from mio.evals.witnesses import Witnesses
from mio.pipeline import Model
from mio.types import MioError, MissingError

BELOW = 6  # exit code: a score is worse than was asked for


def run(args: Arguments, console: Console) -> int:
    known = {**TASKS, **SURVEYS}
    if args.task not in known:
        raise MioError(f"No task {args.task!r}.", fix=suggest(args.task, known))
    task = known[args.task]
    model = open_model(args)
    document = _measured(task, model, args.run or Path("evals") / task.name, args)
    console.data(document)
    for line in _lines(document):
        console.text(line)
    return BELOW if _below(document, args.threshold) else 0


def _measured(task: Task, model: Model, folder: Path, args: Arguments) -> dict[str, Any]:
    """Answers and scores of one task, both kept in `folder`."""
    assert args.data is not None
    items = read_items(task.read, args.data / task.folder)
    settings = Settings(args.profile, args.seed, args.limit, args.batch)
    answer(task, model, items, folder, settings)
    document = score(task, items, folder, Witnesses(args.witnesses or args.data / "witnesses"))
    if args.samples:
        write_samples(task, model, items, folder)
    return document


def _below(document: Mapping[str, Any], threshold: float | None) -> bool:
    """Whether the first score is worse than `threshold`.

    Raises:
        MissingError: there is a threshold, and nothing was scored.
    """
    if threshold is None:
        return False
    if not document["scores"]:
        raise MissingError("Nothing was scored.", fix=f"Missing: {document['missing']}.")
    first = document["scores"][0]
    return bool(first["value"] < threshold if first["higher"] else first["value"] > threshold)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    for s in document["scores"]:
        yield f"{s['metric']}  {_value(s)}  n={s['n']}{_part(document)}"
    for metric, witness in document["missing"].items():
        yield f"{metric}  not scored: no {witness} among the witnesses"
    for word in ("empty", "failed"):
        if document[word]:
            yield f"{len(document[word])} {word}, counted as wrong: {', '.join(document[word][:5])}"
    yield " ".join(f"{k}={document[k]}" for k in ("prompt_hash", "template_hash", "profile", "vocabulary", "commit"))


def _value(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _part(document: Mapping[str, Any]) -> str:
    """What marks a score that stands for no whole benchmark."""
    if document["asked"] < document["items"]:
        return f"  only {document['asked']} of {document['items']} items"
    return "" if document["whole"] else "  with failures"


def ls(args: Arguments, console: Console) -> int:
    if args.folder is not None:
        return _runs(args.folder, console)
    rows = [
        {"task": t.name, "folder": t.folder, "metrics": t.metrics, "about": t.about, "needs": _needs(t)}
        for t in (*TASKS.values(), *SURVEYS.values())
    ]
    console.data(rows)
    for row in rows:
        console.text(f"{row['task']:16} {row['folder']:12} {', '.join(row['metrics']):32} {row['about']}")
    return 0


def _needs(task: Task) -> list[str]:
    return sorted({witness for m in task.metrics for witness in METRICS[m].needs})


def _runs(folder: Path, console: Console) -> int:
    """Raises: MissingError where there is no finished run."""
    found = sorted(path.parent for path in folder.rglob(SCORES))
    if not found:
        raise MissingError("There is no finished run.", at=str(folder), fix="Make one: mio eval run.")
    documents = [{"run": str(path)} | read_scores(path) for path in found]
    console.data([{k: v for k, v in d.items() if k != "points"} for d in documents])
    for d in documents:
        scores = ", ".join(f"{s['metric']} {_value(s)}" for s in d["scores"]) or "nothing scored"
        console.text(f"{d['run']}  {d['task']}  {d['model']}  {scores}{_part(d)}")
    return 0


def compare_runs(args: Arguments, console: Console) -> int:
    found = compare(args.first, args.second)
    console.data({name: asdict(difference) for name, difference in found.items()})
    worse = False
    for name, d in found.items():
        sign = 1 if METRICS[name].higher else -1
        worse |= args.threshold is not None and sign * d.value < 0 and d.p < args.threshold
        console.text(f"{name}  {d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}]  p={d.p:.4f}  n={d.n}")
    return BELOW if worse else 0


# ------------------------------------------------------------------------------------------------------- paper


def paper(args: Arguments, console: Console) -> int:
    """Every row that the paper reports, with ours where its data are there; 3 where a task could not be measured."""
    wanted = args.tasks or list(TASKS)
    for name in wanted:
        if name not in TASKS:
            raise MioError(f"No task {name!r}.", fix=suggest(name, TASKS))
    model = open_model(args)
    found = {name: _tried(TASKS[name], model, args) for name in wanted}
    rows = [_row(line, found) for line in PUBLISHED if line.task in wanted or not (line.task or args.tasks)]
    console.data(rows)
    for line in _table(rows):
        console.text(line)
    return 3 if any(isinstance(f, MioError) and not isinstance(f, MissingError) for f in found.values()) else 0


def _tried(task: Task, model: Model, args: Arguments) -> dict[str, Any] | MioError:
    """A task's scores, or why there are none: the other tasks go on."""
    assert args.data is not None
    if is_base(model) and not task.base:
        return MissingError("the paper asks no base model")
    if not (args.data / task.folder).is_dir():
        return MissingError("no data", at=str(args.data / task.folder))
    try:
        return _measured(task, model, (args.run or Path("evals/paper")) / task.name, args)
    except MioError as error:
        return error


def _row(line: Published, found: Mapping[str, dict[str, Any] | MioError]) -> dict[str, Any]:
    document = found.get(line.task)
    row = {"table": line.table, "what": line.what, "paper": dict(line.values), "note": line.note}
    if document is None:
        return row | {"ours": None, "why": "nothing here measures this"}
    if isinstance(document, MioError):
        return row | {"ours": None, "why": f"{document} {document.at}".strip()}
    ours = next((s for s in document["scores"] if s["metric"] == line.metric), None)
    if ours is None:
        return row | {"ours": None, "why": f"no {document['missing'][line.metric]} among the witnesses"}
    return row | {"ours": ours, "why": "", "of": document["items"], "whole": document["whole"]}


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'table':6} {'':48} {'ours':30} paper"
    for row in rows:
        ours = f"- ({row['why']})" if row["ours"] is None else _value(row["ours"]) + _mark(row)
        known = ", ".join(f"{name} {value:g}" for name, value in row["paper"].items() if name.startswith("MIO"))
        yield f"{row['table']:6} {row['what']:48} {ours:30} {known}"


def _mark(row: Mapping[str, Any]) -> str:
    return "" if row["whole"] else f" (partial: {row['ours']['n']} of {row['of']})"


def matrix(args: Arguments, console: Console) -> int:
    from mio.evals.matrix_page import markdown, write_matrix

    found = write_matrix(open_model(args), args.data, args.path, args.limit, args.batch)
    console.data({"page": str(args.path), "rows": [one.row() for one in found]})
    for line in markdown(found):
        console.text(line)
    console.note(f"The page: {args.path}")
    return 0


def interleaved(args: Arguments, console: Console) -> int:
    from mio.evals.interleaved import report, tell

    found = report(tell(open_model(args), args.limit, args.seed, args.batch))
    console.data({"faults": found.faults, "scores": {name: asdict(s) for name, s in found.scores.items()}})
    for name, s in found.scores.items():
        console.text(f"{name:12} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}]  n={s.n}")
    return 0


COMMANDS: Mapping[str, Callable[[Arguments, Console], int]] = {
    "run": run, "ls": ls, "compare": compare_runs, "paper": paper, "matrix": matrix,
    "interleaved": interleaved, "tokenizer": tokenizer, "form": form, "people": people,
}  # fmt: skip
