"""The command line as argparse sees it: words -> `Arguments`. A command's code is loaded when it runs, not before."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from mio.cli.arguments import Arguments, Command
from mio.cli.console import Console
from mio.cli.data_options import DATA
from mio.cli.eval_options import EVAL
from mio.cli.options import count as _count
from mio.cli.options import hub_options as _hub_options
from mio.cli.options import model_option as _model_option
from mio.cli.options import profile_option as _profile_option
from mio.cli.options import recipe_options as _recipe_options
from mio.cli.options import seed as _seed
from mio.cli.options import size as _size
from mio.cli.options import temperature as _temperature
from mio.cli.options import weights_options as _weights_options


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
    reading = (_doctor, _tokenize, _detokenize, _data)
    training = (_plan, _train_tokenizer, _train)
    using = (_chat, _generate, _serve, _eval, _demo, _inspect, _export, _recipes)
    for add in (*reading, *training, *using):
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
    for name, row in DATA.items():

        def run(args: Arguments, console: Console, name: str = name) -> int:
            from mio.cli import data

            return data.COMMANDS[name](args, console)

        row.options(_add(inner, name, run, row.about, row.examples))


def _plan(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import plan

        return plan.show(args, console)

    examples = ["mio plan tiny", "mio plan mine.yaml --devices 8 --memory 80 --rate 400000"]
    about = "Say what a recipe's language stages will take, and what to change where it does not fit."
    parser = _add(group, "plan", run, about, examples)
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or a .yaml file")
    about = "a run that has prepared its samples: exact tokens instead of upper bounds"
    parser.add_argument("--run", type=Path, metavar="DIR", help=about)
    parser.add_argument("--devices", type=_count, default=1, metavar="N", help="ranks that share a step (default: 1)")
    about = "GB of each device (default: this machine's free memory, shared by all)"
    parser.add_argument("--memory", type=_size, default=0.0, metavar="GB", help=about)
    about = "GFLOP/s of each device in one large product (default: measured here, shared by all)"
    parser.add_argument("--rate", type=_size, default=0.0, metavar="GFLOPS", help=about)
    about = "change the recipe: backbone.layers=4"
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help=about)


def _train(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.train(args, console)

    examples = ["mio train tiny --data corpus --out runs/tiny", "mio train mine.yaml --set stages.0.fit.steps=100"]
    about = "Run a recipe from raw files to a model. Killed, the same command resumes where it was."
    parser = _add(group, "train", run, about, examples)
    _recipe_options(parser)
    parser.add_argument("--only", default="", metavar="STAGE,...", help="only these stages")


def _train_tokenizer(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import runs

        return runs.train_tokenizer(args, console)

    examples = ["mio train-tokenizer image tiny --data corpus --out runs/a", "mio eval tokenizer runs/a --data corpus"]
    about = "Train one tokenizer of a recipe. Codebook health goes to RUN/metrics.jsonl, samples to RUN/work."
    parser = _add(group, "train-tokenizer", run, about, examples)
    parser.add_argument("kind", choices=["text", "image", "speech"], help="what it is for; clips are pictures")
    _recipe_options(parser)


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
    about = "a JSON schema that each text of the answer must follow (needs mio[schema])"
    parser.add_argument("--schema", type=Path, metavar="FILE", help=about)
    about = "a regular expression that each text of the answer must match"
    parser.add_argument("--regex", default="", metavar="PATTERN", help=about)
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
        'keys of a line: "prompt", "id", "attachments" (paths from the file\'s folder), "out", "seed", "tokens",',
        '"schema" (an object) or "regex" that texts must follow',
    ]
    parser = _add(group, "generate", run, about, examples)
    parser.add_argument("source", metavar="IN.jsonl|-", help="one JSON object per line; - for standard input")
    parser.add_argument("-o", type=Path, dest="folder", metavar="DIR", required=True, help="where results go")
    _profile_option(parser)
    _model_option(parser)
    _weights_options(parser)


def _serve(group: _Group) -> None:
    def run(args: Arguments, console: Console) -> int:
        from mio.cli import serve

        return serve.serve(args, console)

    about = "Serve a model: OpenAI's API, and a page to talk to it. Keys come from MIO_API_KEY or --key-file."
    examples = ["mio serve", "mio serve --model runs/tiny/model --port 9000 --lanes 8"]
    examples += ["MIO_API_KEY=... mio serve --host 0.0.0.0 --name mio.example.org"]
    examples += ["mio serve --engine openai --base-url http://127.0.0.1:8001/v1"]
    parser = _add(group, "serve", run, about, examples)
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help="0 takes any free one (default: 8000)")
    names = "a name that clients reach it by; may be repeated (default: this machine's own, or any beyond it)"
    parser.add_argument("--name", action="append", dest="names", default=[], metavar="HOST", help=names)
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="API keys, one a line")
    fetch = "let requests name media there by https URL; may be repeated (default: data: URLs only)"
    parser.add_argument("--allow-media-domain", action="append", dest="fetch", default=[], metavar="HOST", help=fetch)
    parser.add_argument("--lanes", type=_count, default=4, metavar="N", help="answers side by side (default: 4)")
    parser.add_argument("--queue", type=_count, default=64, metavar="N", help="requests that may wait (default: 64)")
    marks = "off: leave generated files without the mark that a model made them (default: on)"
    parser.add_argument("--provenance", type=_switch, dest="marks", default=True, metavar="on|off", help=marks)
    engine = "openai: the language model runs elsewhere, at --base-url; the rest here (default: own)"
    parser.add_argument("--engine", choices=["own", "openai"], default="own", help=engine)
    base = "vLLM or `mio serve --bare`, as in http://127.0.0.1:8001/v1; its key comes from MIO_ENGINE_KEY"
    parser.add_argument("--base-url", default="", metavar="URL", help=base)
    bare = "also answer /v1/completions, ids in and ids out, for a front"
    parser.add_argument("--bare", action="store_true", help=bare)
    _model_option(parser)
    _weights_options(parser)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def _eval(group: _Group) -> None:
    inner = _add_group(group, "eval", "Measure a model on benchmarks, and compare what was measured.")
    for name, row in EVAL.items():

        def run(args: Arguments, console: Console, name: str = name) -> int:
            from mio.cli import evaluate

            return evaluate.COMMANDS[name](args, console)

        row.options(_add(inner, name, run, row.about, row.examples))


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
    about = "the branch, tag or commit of an id (default: its newest)"
    parser.add_argument("--revision", metavar="NAME", help=about)


def _export(group: _Group) -> None:
    def hf(args: Arguments, console: Console) -> int:
        from mio.cli import export

        return export.hf(args, console)

    def vllm(args: Arguments, console: Console) -> int:
        from mio.cli import export

        return export.vllm(args, console)

    def gguf(args: Arguments, console: Console) -> int:
        from mio.cli import export

        return export.gguf(args, console)

    inner = _add_group(group, "export", "Write a model in a form that runs elsewhere, without mio.")
    about = "Write a folder that stock transformers loads, and check it against the model."
    _folder_options(_add(inner, "hf", hf, about, ["mio export hf runs/tiny/model -o tiny-hf"]))
    about = "Write a folder that vLLM serves as it is, with the grammars of its answers, and check it."
    _folder_options(_add(inner, "vllm", vllm, about, ["mio export vllm runs/tiny/model -o tiny-vllm"]))
    about = "Write the language model as a GGUF file for llama.cpp, and read it back."
    parser = _add(inner, "gguf", gguf, about, ["mio export gguf runs/tiny/model -o tiny.gguf"])
    _export_options(parser)
    parser.add_argument(
        "-o", type=Path, dest="path", metavar="FILE.gguf", required=True, help="the file, not there yet"
    )


def _folder_options(parser: _Parser) -> None:
    _export_options(parser)
    parser.add_argument("-o", type=Path, dest="folder", metavar="DIR", required=True, help="the folder, not there yet")
    parser.add_argument("--shard", type=_size, default=4.0, metavar="GB", help="most of one file (default: 4)")
    no_load = "compare weights only, and do not load the result with transformers (halves the memory)"
    parser.add_argument("--no-load", action="store_false", dest="load", help=no_load)


def _export_options(parser: _Parser) -> None:
    about = "a model folder or id (default: the model that ships)"
    parser.add_argument("model", type=Path, nargs="?", metavar="MODEL", help=about)
    _hub_options(parser)
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
