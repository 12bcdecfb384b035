"""The words of `mio eval`: what each of its commands takes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from mio.cli.options import Row, count, model_option, profile_option, seed, weights_options


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="a name that `mio eval ls` knows")
    _data(parser)
    out = "where answers and scores go (default: evals/TASK)"
    parser.add_argument("-o", "--out", type=Path, dest="run", metavar="DIR", help=out)
    about = "exit with 6 when the first score is worse than this"
    parser.add_argument("--threshold", type=float, metavar="X", help=about)
    _answers(parser)


def _paper(parser: argparse.ArgumentParser) -> None:
    _data(parser)
    out = "where answers and scores go (default: evals/paper)"
    parser.add_argument("-o", "--out", type=Path, dest="run", metavar="DIR", help=out)
    only = "only this one; may be repeated"
    parser.add_argument("--task", action="append", dest="tasks", default=[], metavar="TASK", help=only)
    _answers(parser)


def _data(parser: argparse.ArgumentParser) -> None:
    about = "a folder that holds the benchmarks' folders, as `mio eval ls` names them"
    parser.add_argument("--data", type=Path, metavar="DIR", required=True, help=about)


def _answers(parser: argparse.ArgumentParser) -> None:
    about = "only the first N items; such a score is marked, and stands for no whole benchmark"
    parser.add_argument("--limit", type=count, default=0, metavar="N", help=about)
    parser.add_argument("--samples", action="store_true", help="keep every prompt with answer and truth, too")
    parser.add_argument("--batch", type=count, default=8, metavar="N", help="answers at a time (default: 8)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of what is sampled (default: 0)")
    about = "a folder with clip, whisper and speaker models, which judge media (default: DATA/witnesses)"
    parser.add_argument("--witnesses", type=Path, metavar="DIR", help=about)
    profile_option(parser)
    model_option(parser)
    weights_options(parser)


def _ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="list the runs below it instead")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="RUN", help="a folder of `mio eval run`")
    parser.add_argument("second", type=Path, metavar="RUN", help="another, of the same task and items")
    about = "exit with 6 when the second is worse with a p-value below this"
    parser.add_argument("--threshold", type=float, metavar="P", help=about)


def _matrix(parser: argparse.ArgumentParser) -> None:
    about = "a corpus folder, whose validation split is measured (default: the sample that ships)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=about)
    out = "the page (default: matrix.html)"
    parser.add_argument("-o", "--out", type=Path, dest="path", default=Path("matrix.html"), metavar="FILE", help=out)
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="items of a direction (default: 20)")
    parser.add_argument("--batch", type=count, default=16, metavar="N", help="answers at a time (default: 16)")
    model_option(parser)


def _interleaved(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=count, default=40, metavar="N", help="stories (default: 40)")
    parser.add_argument("--batch", type=count, default=8, metavar="N", help="answers at a time (default: 8)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the stories (default: 0)")
    model_option(parser)


def _tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="NAME|PATH", help="models or runs, or one that ships")
    data = "a corpus folder, whose validation split is measured (default: the sample that ships)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=data)
    out = "where index.html and report.json go (default: tokenizer-card)"
    parser.add_argument("-o", type=Path, dest="folder", default=Path("tokenizer-card"), metavar="DIR", help=out)
    most = "most held-out media of each source (default: 150)"
    parser.add_argument("-n", type=count, dest="count", default=150, metavar="N", help=most)


def _form(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="RUN", help="folders of `mio eval run --samples`")
    out = "the page (default: ranking.html); its key goes beside it"
    parser.add_argument("-o", "--out", type=Path, dest="path", default=Path("ranking.html"), metavar="FILE", help=out)
    parser.add_argument("--limit", type=count, default=50, metavar="N", help="items to rank (default: 50)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of items and places (default: 0)")


def _people(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="KEY", help="the key beside the page")
    parser.add_argument("files", type=Path, nargs="+", metavar="SHEET", help="what each annotator saved")


EVAL: Mapping[str, Row] = {
    "run": Row(
        "Let a model answer a benchmark, and score it. Killed, the same command goes on.",
        ("mio eval run coco-caption --data benchmarks --model m-a-p/MIO-7B-Instruct -o evals/coco", "mio eval ls"),
        _run,
    ),
    "ls": Row("List the tasks, or the runs below a folder.", ("mio eval ls", "mio eval ls evals"), _ls),
    "compare": Row(
        "Say how sure it is that the second run is better or worse than the first.",
        ("mio eval compare evals/before evals/after --threshold 0.05",),
        _compare,
    ),
    "paper": Row(
        "Measure all that MIO's paper reports and whose data are there, beside the paper's numbers.",
        ("mio eval paper --data benchmarks --model m-a-p/MIO-7B-Instruct",),
        _paper,
    ),
    "matrix": Row(
        "Measure every direction of input and output, as a table and a page. Killed, the same command goes on.",
        ("mio eval matrix -o matrix.html", "mio eval matrix --data corpus --limit 100 > matrix.md"),
        _matrix,
    ),
    "interleaved": Row(
        "Ask for stories of texts and pictures whose truth is known, and mark structure, agreement and order.",
        ("mio eval interleaved --limit 100",),
        _interleaved,
    ),
    "form": Row(
        "Write one page on which people rank the answers of several runs, not knowing whose they are.",
        ("mio eval form evals/ours evals/theirs -o ranking.html",),
        _form,
    ),
    "people": Row(
        "Read what annotators saved: average ranks, preferences, agreement.",
        ("mio eval people ranking.key.json ranks-*.json",),
        _people,
    ),
    "tokenizer": Row(
        "Measure tokenizers side by side, as a table and as a page with originals and reconstructions.",
        ("mio eval tokenizer tiny --data corpus", "mio eval tokenizer runs/a runs/b --data corpus -o card"),
        _tokenizer,
    ),
}
