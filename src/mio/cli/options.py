"""Options that several commands have, and the kinds of their values."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A command of a group: what it does, examples, and what it takes."""

    about: str
    examples: tuple[str, ...]
    options: Callable[[argparse.ArgumentParser], None]


def model_option(parser: argparse.ArgumentParser) -> None:
    about = "a model folder, or the id of a released model (default: the model that ships)"
    parser.add_argument("--model", type=Path, metavar="MODEL", help=about)
    hub_options(parser)


def hub_options(parser: argparse.ArgumentParser) -> None:
    """Where the model is an id."""
    about = "the branch, tag or commit of an id (default: its newest)"
    parser.add_argument("--revision", metavar="NAME", help=about)
    about = "take an id's files from this machine, and never ask the network; so does HF_HUB_OFFLINE=1"
    parser.add_argument("--offline", action="store_true", help=about)


def profile_option(parser: argparse.ArgumentParser) -> None:
    about = "how to decode: paper, release, or a task such as release/tts (default: the model's own way)"
    parser.add_argument("--profile", default="", metavar="NAME", help=about)


def weights_options(parser: argparse.ArgumentParser) -> None:
    about = "of the language model: bf16, fp16 or fp32 (default: fp32 for ours, bf16 for a released model)"
    parser.add_argument("--dtype", choices=["bf16", "fp16", "fp32"], default="", metavar="DTYPE", help=about)
    about = "8 or 4: round the weights of linear layers, to fit where memory is short (default: floats)"
    parser.add_argument("--bits", type=int, choices=[8, 4], metavar="N", help=about)


def count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**63 - 1")
    return int(text)


def temperature(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def size(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def recipe_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a name that `mio recipes ls` knows, or a .yaml file")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a corpus folder (default: the sample that ships)")
    parser.add_argument("--out", type=Path, dest="run", metavar="RUN", help="the run's folder (default: runs/RECIPE)")
    changes = "change a field by its path; may be repeated"
    parser.add_argument("--set", action="append", dest="changes", default=[], metavar="A.B=C", help=changes)
    base = "start the language model from this Hugging Face folder or id, with its shape and text tokenizer"
    parser.add_argument("--init", default="", metavar="BASE", help=base)
    cores = os.cpu_count() or 1
    workers = "processes that share the cores: stages side by side, and ranks of one training (default: 2)"
    parser.add_argument("--workers", type=int, default=min(2, cores), metavar="N", help=workers)
    sharded = (
        "ranks hold parts of the language model each, not the whole (FSDP2); start them with --workers or torchrun"
    )
    parser.add_argument("--sharded", action="store_true", help=sharded)
