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


_FILE = "JSONL, WebDataset .tar, .parquet, LibriSpeech .trans.txt, a folder of media, or a .yaml of data sets"


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=_FILE)
    _set_options(parser)
    _bad_options(parser)
    parser.set_defaults(tasks=[], rules=[])


def _narrate(parser: argparse.ArgumentParser) -> None:
    films = "video files, or records that name some (as for `mio data tokenize`)"
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=films)
    folder = "where documents.jsonl and the frames go"
    parser.add_argument("-o", type=Path, dest="folder", metavar="FOLDER", required=True, help=folder)
    where = "http://HOST/v1#NAME of a server that speaks OpenAI's chat completions (its key: $OPENAI_API_KEY)"
    seen = f"who captions the middle frames: model (default), or {where}"
    parser.add_argument("--seen-by", default="model", metavar="WHO", help=seen)
    heard = "who writes speech down: model (default), nobody, or such a server"
    parser.add_argument("--heard-by", default="model", metavar="WHO", help=heard)
    told = "who makes one text of both: rule (default), or such a server"
    parser.add_argument("--told-by", default="rule", metavar="WHO", help=told)
    _bad_options(parser)
    model_option(parser)


def _tokenize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=_FILE)
    parser.add_argument("-o", type=Path, dest="folder", metavar="STORE", required=True, help="the store's folder")
    tasks = "what mixtures call the samples; pairs are worded for tasks such as 'image to text'; may be repeated"
    parser.add_argument("--task", action="append", dest="tasks", default=[], metavar="NAME", help=tasks)
    rules = "keep what passes, such as side=224 or repetition=0.3; or the paper's of a kind, such as speech-text"
    parser.add_argument("--keep", action="append", dest="rules", default=[], metavar="RULE=X", help=rules)
    clip = "a folder whose `clip` is a CLIP as transformers saves it, for the rule clip=SCORE"
    parser.add_argument("--witnesses", type=Path, metavar="DIR", help=clip)
    engine = "ray: on the cluster that $RAY_ADDRESS names, or one of this machine's cores (default: local)"
    parser.add_argument("--engine", choices=["local", "ray"], default="local", help=engine)
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="with ray: processes (default: 2)")
    _set_options(parser)
    _bad_options(parser)
    model_option(parser)


def _set_options(parser: argparse.ArgumentParser) -> None:
    field = "where records call a field of the format otherwise, such as text=name; may be repeated"
    parser.add_argument("--field", action="append", dest="fields", default=[], metavar="A=B", help=field)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder of a .yaml's paths (default: its own)")
    parser.add_argument("-n", type=count, dest="limit", default=0, metavar="N", help="only N records of every file")


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
    "narrate": Row(
        "Make interleaved documents of videos: frames of every shot, and what is seen and said. Repeated, it goes on.",
        (
            "mio data narrate clip.mp4 -o films",
            "mio data narrate video/real.jsonl --format videos -o films --told-by http://127.0.0.1:8000/v1#qwen",
        ),
        _narrate,
    ),
    "tokenize": Row(
        "Make files of records a token store. Repeated, it makes only what is missing or new.",
        (
            "mio data tokenize chats.jsonl -o store --model runs/tiny/model",
            "mio data tokenize examples/corpus.yaml --data CORPUS -o store",
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
