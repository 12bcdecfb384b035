"""`mio chat` and `mio generate`: questions in, answers with their media as files out."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mio.cli.arguments import Arguments
from mio.cli.console import Console, describe, dumps
from mio.cli.inputs import open_model, parse_object, read_lines, read_text, unused
from mio.config import from_dict
from mio.decoding.sampling import Sampling
from mio.pipeline import Model, Reply, attachment, user
from mio.processor import MODALITY_OF
from mio.types import DataError, Message, MioError, ResourceError, Text


def chat(args: Arguments, console: Console) -> int:
    prompt = _prompt(args)
    talk = _Talk(open_model(args.model, args.dtype, args.bits), args, console)
    if prompt is None and not args.attachments:
        return _loop(talk)
    if prompt is not None and not prompt.strip() and not args.attachments:
        raise MioError("The prompt is empty.", fix='Ask something: mio chat "Draw a cat." --out image')
    talk.ask(args.attachments, prompt or "")
    return 0


def _prompt(args: Arguments) -> str | None:
    """The question; None where there is none, or where one will be asked for."""
    piped = args.prompt is None and not args.attachments and not sys.stdin.isatty()
    return read_text().rstrip("\n") if args.prompt == "-" or piped else args.prompt


@dataclass
class _Talk:
    """A conversation. What was said is kept as codes, so that nothing is encoded twice."""

    model: Model
    args: Arguments
    console: Console
    history: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mode = self.args.system if self.args.system in self.model.config.systems else "std"
        if self.mode != self.args.system:
            self.history = [Message("system", (Text(self.args.system),))]

    def ask(self, files: Sequence[Path], prompt: str) -> None:
        """One question with its attachments first, as the model has learned them; and its answer, shown."""
        processor, args = self.model.processor, self.args
        parts = [attachment(path) for path in files] + ([Text(prompt)] if prompt else [])
        question = Message("user", tuple(processor.encode(parts)))
        begun = time.perf_counter()
        reply = self.model.chat(
            *self.history,
            question,
            out=args.kinds,
            system=self.mode,
            tokens=args.tokens,
            seed=args.seed,
            sampling=_sampling(self.model, args),
            profile=args.profile,
        )
        self._show(reply, time.perf_counter() - begun)
        said = processor.parse(np.array(reply.ids, np.int64)).parts
        self.history += [question, Message("assistant", said)]

    def _show(self, reply: Reply, seconds: float) -> None:
        folder = self.args.folder
        parts = saved(reply, folder, unused(folder, (f"reply-{n}" for n in count(1))))
        for part in parts:
            self.console.text(part.get("file", part.get("text", "")).strip())
        for fault in reply.faults:
            self.console.note(f"left out: {fault}")
        self.console.data(_document(reply, parts, seconds) | {"ids": list(reply.ids)})


def _sampling(model: Model, args: Arguments) -> Mapping[str, Sampling]:
    """What would decode the answer anyway, at another temperature if one is given, and then without beams."""
    if args.temperature is None:
        return {}
    own = model.decoding(args.kinds, args.profile)
    return {place: Sampling(args.temperature, s.top_p, s.top_k, s.repetition_penalty) for place, s in own.items()}


def saved(reply: Reply, folder: Path, stem: str) -> list[dict[str, str]]:
    """Parts as JSON gives them, their media in files."""
    media = any(not isinstance(part, Text) for part in reply.parts)
    files = iter(reply.save(folder, stem) if media else [])
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": MODALITY_OF[type(part)], "file": str(next(files))}
        for part in reply.parts
    ]


def _document(reply: Reply, parts: list[dict[str, str]], seconds: float) -> dict[str, Any]:
    return {
        "parts": parts,
        "text": reply.text,
        "tokens": len(reply.ids),
        "seconds": round(seconds, 3),
        "faults": list(reply.faults),
    }


HELP = "Type a question, or: /attach FILE, /out KINDS, /quit."


def _loop(talk: _Talk) -> int:
    """Questions from the terminal until it ends; a question that fails costs itself only."""
    talk.console.note(HELP)
    files: list[Path] = []
    for line in _typed():
        try:
            _turn(talk, line, files)
        except ResourceError:
            raise
        except MioError as error:
            talk.console.error(error)
            talk.console.data({"error": describe(error)})
    return 0


def _typed() -> Iterator[str]:
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()


def _turn(talk: _Talk, line: str, files: list[Path]) -> None:
    order, _, rest = line.partition(" ")
    if order == "/attach":
        path = Path(rest.strip()).expanduser()
        attachment(path)  # complains now if it cannot be read
        files.append(path)
    elif order == "/out":
        talk.args.kinds = rest.strip()
    elif order.startswith("/"):
        talk.console.note(HELP)
    else:
        now = files.copy()
        files.clear()
        talk.ask(now, line)


# ------------------------------------------------------------------------------------------------------ generate


@dataclass(frozen=True)
class Prompt:
    """One line of the input."""

    prompt: str = ""
    attachments: tuple[str, ...] = ()
    out: str = "text"
    seed: int = 0
    tokens: int = 400

    def __post_init__(self) -> None:
        if not self.prompt.strip() and not self.attachments:
            raise DataError("The line asks nothing.", fix='Give it a "prompt", "attachments" or both.')
        if not 0 <= self.seed < 2**63:
            raise DataError(f"Seed {self.seed} is not from 0 to 2**63 - 1.")


def generate(args: Arguments, console: Console) -> int:
    lines = list(read_lines(args.source))
    args.folder.mkdir(parents=True, exist_ok=True)
    results = args.folder / "results.jsonl"
    old = _finished(results)
    model = open_model(args.model, args.dtype, args.bits)
    batch = _Batch(model, args.folder, Path() if args.source == "-" else Path(args.source).parent, old, args.profile)
    done = failed = 0
    with results.open("a", encoding="utf-8", errors="backslashreplace") as file:
        for number, (at, line) in enumerate(tqdm(lines, unit="prompt", disable=not console.bars), 1):
            result = batch.result(number, line, at, console)
            if result is not None:
                done, failed = done + ("error" not in result), failed + ("error" in result)
                print(dumps(result), file=file, flush=True)
    skipped = len(lines) - done - failed
    console.fields({"results": str(results), "done": done, "failed": failed, "skipped": skipped})
    return 3 if failed else 0


def _finished(path: Path) -> set[str]:
    """Ids that have an answer; lines that failed, or that a kill cut short, are dropped to be tried again."""
    if not path.is_file():
        return set()
    kept: dict[str, bytes] = {}
    for at, line in read_lines(str(path)):
        try:
            result = parse_object(line, at)
        except DataError:
            continue
        if "error" not in result and line.endswith(b"\n"):
            kept[str(result.get("id"))] = line
    new = path.with_suffix(".tmp")
    new.write_bytes(b"".join(kept.values()))
    os.replace(new, path)
    return set(kept)


@dataclass
class _Batch:
    """Answers lines one by one. `old`: ids that have an answer already; `seen`: ids of this time."""

    model: Model
    folder: Path
    root: Path  # where attachments lie
    old: set[str]
    profile: str
    seen: set[str] = field(default_factory=set)

    def result(self, number: int, line: bytes, at: str, console: Console) -> dict[str, Any] | None:
        """What goes into the results; None for an id that has its answer."""
        id = str(number)
        try:
            fields = parse_object(line, at)
            id = str(fields.pop("id", id))
            if id in self.old:
                return None
            return {"id": id} | self._answer(id, fields)
        except ResourceError:
            raise
        except MioError as error:
            error.at = at if error.at in ("", at) else f"{at}: {error.at}"
            console.error(error)
            return {"id": id, "error": describe(error)}
        finally:
            self.seen.add(id)

    def _answer(self, id: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        if id in self.seen:
            raise DataError(f"Id {id!r} stands twice in the input.", fix="Give every line an id of its own.")
        p = from_dict(Prompt, fields)
        media = [attachment(self.root / path) for path in p.attachments]
        question = user(*media, p.prompt) if p.prompt else user(*media)
        begun = time.perf_counter()
        reply = self.model.chat(question, out=p.out, tokens=p.tokens, seed=p.seed, profile=self.profile)
        seconds = time.perf_counter() - begun
        stem = re.sub(r"[^\w.-]", "_", id)[:60].lstrip(".") or "_"
        stems = (stem if n == 1 else f"{stem}~{n}" for n in count(1))
        return _document(reply, saved(reply, self.folder, unused(self.folder, stems)), seconds)
