"""The words of `mio data`: a row for every command."""

from __future__ import annotations

import argparse
from pathlib import Path

from mio.cli.options import Row, count, model_option, recipe_options, share


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="STORE", help="a folder such as RUN/prepare/instruct")
    parser.add_argument("-n", type=count, dest="count", default=3, metavar="N", help="how many (default: 3)")
    page = "write a page of packs with their pictures and sounds instead"
    parser.add_argument("-o", type=Path, dest="lines", metavar="FILE.html", help=page)
    _stage_options(parser)
    model_option(parser)


def _stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="STORE", help="a folder such as RUN/prepare/instruct")
    most = "with --stage: plan at most so many packs (default: 10000)"
    parser.add_argument("-n", type=count, dest="count", default=10_000, metavar="N", help=most)
    _stage_options(parser)
    model_option(parser)


def _stage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", default="", metavar="NAME", help="plan this stage's packs, and look at those")
    parser.add_argument("--recipe", default="", metavar="RECIPE", help="whose stage it is (default: the run's own)")


_FILE = "JSONL, WebDataset .tar, .parquet, LibriSpeech .trans.txt, or a folder of media with captions"


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FILE", help=_FILE)
    _bad_options(parser)


def _tokenize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=_FILE)
    parser.add_argument("-o", type=Path, dest="folder", metavar="STORE", required=True, help="the store's folder")
    tasks = "what mixtures call the samples; pairs are worded for tasks such as 'image to text'; may be repeated"
    parser.add_argument("--task", action="append", dest="tasks", default=[], metavar="NAME", help=tasks)
    _bad_options(parser)
    model_option(parser)


def _bad_options(parser: argparse.ArgumentParser) -> None:
    layout = "how records are laid out, such as messages or captions (default: as is usual in such files)"
    parser.add_argument("--format", default="", metavar="NAME", help=layout)
    parser.add_argument("--quarantine", type=Path, dest="lines", metavar="FILE", help="write the faults there, too")
    bad = "exit with 3 when a larger share of the records is bad (default: 0)"
    parser.add_argument("--max-bad-fraction", type=share, default=0.0, metavar="F", help=bad)


DATA = {
    "prepare": Row(
        "Run a recipe up to its token stores: tokenizers, then every sample as ids.",
        ("mio data prepare tiny --data corpus --out runs/tiny",),
        recipe_options,
    ),
    "validate": Row(
        "Read all records of a file and their media, and name every fault by file and record.",
        ("mio data validate chats.jsonl --format messages --quarantine quarantine.jsonl",),
        _validate,
    ),
    "tokenize": Row(
        "Make files of records a token store. Repeated, it makes only what is missing or new.",
        (
            "mio data tokenize chats.jsonl -o store --model runs/tiny/model",
            "mio data tokenize captions-0.tar captions-1.tar -o store --task 'image to text' --task 'text to image'",
        ),
        _tokenize,
    ),
    "stats": Row(
        "Count samples, tokens and trained targets of a token store, or of what a stage reads of it.",
        ("mio data stats runs/tiny/prepare/pretrain --stage stage3-speech", "mio data stats STORE --model MODEL"),
        _stats,
    ),
    "show": Row(
        "Print samples of a token store, spread evenly over it; or write packs as a page.",
        (
            "mio data show runs/tiny/prepare/instruct -n 5",
            "mio data show runs/tiny/prepare/pretrain --stage stage1-align -n 4 -o packs.html",
        ),
        _show,
    ),
}
