"""The command line as argparse sees it: words -> `Arguments`. A command's code is loaded when it runs, not before."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from mio.cli.arguments import Arguments, Command
from mio.cli.console import Console


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        from mio.types import MioError

        raise MioError(f"{message[:1].upper()}{message[1:]}.", fix=f"See {self.prog} --help.")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import mio

        print(f"mio {mio.__version__}")
        parser.exit()


_Group: TypeAlias = "argparse._SubParsersAction[_Parser]"


def parse(words: Sequence[str]) -> Arguments:
    """Raises: MioError on words that make no command. SystemExit after --help and --version."""
    top = _Parser("mio", description="Any-to-any models on multimodal tokens.", allow_abbrev=False)
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    _common(top)
    group = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for add in (_doctor, _tokenize, _detokenize, _data, _train, _chat, _generate, _demo, _inspect, _export, _recipes):
        add(group)
    return top.parse_args(words, namespace=Arguments())


def _common(parser: argparse.ArgumentParser) -> None:
    """Flags that every command has; suppressed defaults, so that they may stand before the command and after it."""
    keep = argparse.SUPPRESS
    parser.add_argument("--json", action="store_true", default=keep, help="JSON on stdout and nothing else")
    parser.add_argument("-q", "--quiet", action="store_true", default=keep, help="no notes and no progress bars")
    parser.add_argument("-v", "--verbose", action="store_true", default=keep, help="tracebacks of errors")


def _add(group: _Group, name: str, command: Command, about: str, examples: Sequence[str]) -> _Parser:
    raw = argparse.RawDescriptionHelpFormatter
    ending = "examples:\n" + "\n".join(f"  {line}" for line in examples)
    parser = group.add_parser(
        name, help=about, description=about, epilog=ending, formatter_class=raw, allow_abbrev=False
    )
    parser.set_defaults(command=command)
    _common(parser)
    return parser


def _add_group(group: _Group, name: str, about: str) -> _Group:
    parser = group.add_parser(name, help=about, description=about, allow_abbrev=False)
    _common(parser)
    return parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)


def _model_option(parser: _Parser) -> None:
    parser.add_argument("--model", type=Path, metavar="DIR", help="a model folder (default: the model that ships)")


def _profile_option(parser: _Parser) -> None:
    about = "how to decode: paper, release, or a task such as release/tts (default: the model's own way)"
    parser.add_argument("--profile", default="", metavar="NAME", help=about)


def _weights_options(parser: _Parser) -> None:
    about = "of the language model: bf16, fp16 or fp32 (default: fp32 for ours, bf16 for a released model)"
    parser.add_argument("--dtype", choices=["bf16", "fp16", "fp32"], default="", metavar="DTYPE", help=about)
    about = "8 or 4: round the weights of linear layers, to fit where memory is short (default: floats)"
    parser.add_argument("--bits", type=int, choices=[8, 4], metavar="N", help=about)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**63 - 1")
    return int(text)


def _temperature(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def _size(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _doctor(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import doctor

        return doctor.doctor(args, console)

    about = "Check Python, torch, codecs, memory, disk and the model's files."
    _model_option(
        _add(
            group,
            "doctor",
            run,
            about,
            ["mio doctor", "mio doctor --json --model runs/tiny/model", "mio doctor --model m-a-p/MIO-7B-Instruct"],
        )
    )


def _tokenize(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import tokens

        return tokens.tokenize(args, console)

    examples = ["mio tokenize cat.png yes.wav clip.mp4", "mio tokenize *.png --json | mio detokenize - -o out"]
    parser = _add(group, "tokenize", run, "Turn images, speech, videos or text into token ids.", examples)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="media files, told apart by their content")
    parser.add_argument("--text", action="store_true", dest="from_text", help="take a text from standard input")
    parser.add_argument("-o", type=Path, dest="lines", metavar="FILE.jsonl", help="write the JSON lines there, too")
    _model_option(parser)


def _detokenize(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import tokens

        return tokens.detokenize(args, console)

    examples = ["mio detokenize tokens.jsonl -o out", "mio tokenize cat.png --json | mio detokenize - -o out"]
    about = "Turn the lines of `mio tokenize` back into files. No file is ever overwritten."
    parser = _add(group, "detokenize", run, about, examples)
    parser.add_argument("source", metavar="FILE|-", help="JSON lines; - for standard input")
    parser.add_argument("-o", type=Path, dest="folder", metavar="DIR", required=True, help="where to write the files")
    _model_option(parser)


def _data(group: _Group) -> None:
    inner = _add_group(group, "data", "Prepare training data, or look at them.")
    _prepare(inner)
    _show(inner)
    _validate(inner)


def _prepare(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.prepare(args, console)

    about = "Run a recipe up to its token stores: tokenizers, then every sample as ids."
    parser = _add(group, "prepare", run, about, ["mio data prepare tiny --data corpus --out runs/tiny"])
    _recipe_options(parser)


def _show(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.show(args, console)

    about = "Print samples of a token store, spread evenly over it."
    parser = _add(group, "show", run, about, ["mio data show runs/tiny/prepare/instruct -n 5"])
    parser.add_argument("path", type=Path, metavar="STORE", help="a folder such as RUN/prepare/instruct")
    parser.add_argument("-n", type=_count, dest="count", default=3, metavar="N", help="how many (default: 3)")
    _model_option(parser)


def _validate(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import validate

        return validate.validate(args, console)

    about = "Read a JSONL file and all its media, and name every fault by file and line."
    examples = ["mio data validate chats.jsonl --format messages --quarantine quarantine.jsonl"]
    parser = _add(group, "validate", run, about, examples)
    parser.add_argument("path", type=Path, metavar="FILE.jsonl", help="media are named from its folder")
    names = ["messages", "sharegpt", "captions", "manifest", "videos", "obelics", "mmc4"]  # data.formats.FORMATS
    parser.add_argument("--format", choices=names, default="messages", help="how records are laid out")
    parser.add_argument("--quarantine", type=Path, dest="lines", metavar="FILE", help="write the faults there, too")
    bad = "exit with 3 when a larger share of the records is bad (default: 0)"
    parser.add_argument("--max-bad-fraction", type=float, default=0.0, metavar="F", help=bad)


def _recipe_options(parser: _Parser) -> None:
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


def _train(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.train(args, console)

    examples = ["mio train tiny --data corpus --out runs/tiny", "mio train mine.yaml --set stages.0.fit.steps=100"]
    about = "Run a recipe from raw files to a model. Killed, the same command resumes where it was."
    parser = _add(group, "train", run, about, examples)
    _recipe_options(parser)
    parser.add_argument("--only", default="", metavar="STAGE,...", help="only these stages")


def _chat(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import talk

        return talk.chat(args, console)

    examples = ['mio chat "What is this?" -a cat.png', 'mio chat "Draw a red apple." --out image --save pictures']
    about = "Ask a question, or talk in a loop when there is no prompt."
    parser = _add(group, "chat", run, about, examples)
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the question; - reads it from standard input")
    parser.add_argument(
        "-a",
        "--attach",
        action="append",
        type=Path,
        dest="attachments",
        default=[],
        metavar="FILE",
        help="a picture, sound or clip that the question is about; may be repeated",
    )
    parser.add_argument(
        "--out",
        dest="kinds",
        default="text",
        metavar="KINDS",
        help="text, image, speech, video, several such as text,image, or an order: '(text image){4}' (default: text)",
    )
    parser.add_argument("--system", default="std", metavar="NAME|TEXT", help="std, voice, or a system prompt in words")
    parser.add_argument("--tokens", type=_count, default=400, metavar="N", help="most ids of an answer (default: 400)")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="the same one, the same answer (default: 0)")
    parser.add_argument("--temperature", type=_temperature, metavar="T", help="0 is greedy (default: the model's own)")
    parser.add_argument("--save", type=Path, dest="folder", default=Path("."), metavar="DIR", help="where media go")
    _profile_option(parser)
    _model_option(parser)
    _weights_options(parser)


def _generate(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import talk

        return talk.generate(args, console)

    about = "Answer many prompts into DIR/results.jsonl. Repeated, it goes on and tries failed ones again."
    examples = [
        "mio generate prompts.jsonl -o answers",
        """echo '{"id": "a", "prompt": "Draw a cat.", "out": "image"}' | mio generate - -o answers""",
        'keys of a line: "prompt", "id", "attachments" (paths from the file\'s folder), "out", "seed", "tokens"',
    ]
    parser = _add(group, "generate", run, about, examples)
    parser.add_argument("source", metavar="IN.jsonl|-", help="one JSON object per line; - for standard input")
    parser.add_argument("-o", type=Path, dest="folder", metavar="DIR", required=True, help="where results go")
    _profile_option(parser)
    _model_option(parser)
    _weights_options(parser)


def _demo(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.demo(args, console)

    about = "Let the model show all it can do, as a page."
    parser = _add(group, "demo", run, about, ["mio demo --out demo-out --small"])
    parser.add_argument("--out", type=Path, dest="folder", metavar="DIR", required=True, help="where the page goes")
    parser.add_argument("--small", action="store_true", help="fewer examples")
    _model_option(parser)


def _inspect(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import look

        return look.inspect(args, console)

    about = "Explain a model, a run, a token store, a media file or a recipe."
    parser = _add(group, "inspect", run, about, ["mio inspect runs/tiny/model", "mio inspect clip.mp4 --json"])
    what = "a folder, a file, a recipe's name, or the id of a released model on this machine"
    parser.add_argument("path", type=Path, metavar="PATH", help=what)


def _export(group: _Group) -> None:
    def hf(args: Arguments, console: Console) -> int:
        from mio.cli import export

        return export.hf(args, console)

    def gguf(args: Arguments, console: Console) -> int:
        from mio.cli import export

        return export.gguf(args, console)

    inner = _add_group(group, "export", "Write a model in a form that runs elsewhere, without mio.")
    about = "Write a folder that stock transformers loads, and check it against the model."
    parser = _add(inner, "hf", hf, about, ["mio export hf runs/tiny/model -o tiny-hf"])
    _export_options(parser)
    parser.add_argument("-o", type=Path, dest="folder", metavar="DIR", required=True, help="the folder, not there yet")
    parser.add_argument("--shard", type=_size, default=4.0, metavar="GB", help="most of one file (default: 4)")
    no_load = "compare weights only, and do not load the result with transformers (halves the memory)"
    parser.add_argument("--no-load", action="store_false", dest="load", help=no_load)
    about = "Write the language model as a GGUF file for llama.cpp, and read it back."
    parser = _add(inner, "gguf", gguf, about, ["mio export gguf runs/tiny/model -o tiny.gguf"])
    _export_options(parser)
    parser.add_argument(
        "-o", type=Path, dest="path", metavar="FILE.gguf", required=True, help="the file, not there yet"
    )


def _export_options(parser: _Parser) -> None:
    about = "a model folder or id (default: the model that ships)"
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help=about)
    kinds, about = (
        ["bf16", "fp16", "fp32"],
        "bf16, fp16 or fp32 (default: as mio holds the weights; bf16 for MIO-7B)",
    )
    parser.add_argument("--dtype", choices=kinds, default="", metavar="DTYPE", help=about)


def _recipes(group: _Group) -> None:
    def ls(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.list_recipes(args, console)

    def cat(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.print_recipe(args, console)

    inner = _add_group(group, "recipes", "List recipes, or print one as YAML.")
    _add(inner, "ls", ls, "List the recipes that ship.", ["mio recipes ls"])
    parser = _add(inner, "cat", cat, "Print a recipe as YAML.", ["mio recipes cat tiny > mine.yaml"])
    parser.add_argument("recipe", metavar="NAME", help="a name that `mio recipes ls` knows, or a .yaml file")
