"""`mio chat` and `mio generate`: questions in, answers with their media as files out."""

from __future__ import annotations

import json
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
from mio.cli.inputs import open_model, parse_object, read_file, read_lines, read_text, unused
from mio.config import from_dict
from mio.decoding.constraint import Regex, Schema, Shape
from mio.decoding.sampling import Sampling
from mio.pipeline import Job, Model, Reply, attachment, user
from mio.pretrained.inventory import readable
from mio.pretrained.memory import peak
from mio.processor import MODALITY_OF
from mio.types import DataError, Message, MioError, ResourceError, Text, Turns


def chat(args: Arguments, console: Console) -> int:
    prompt = _prompt(args)
    talk = _Talk(open_model(args), args, console)
    if prompt is None and not args.attachments:
        _loop(talk)
    elif prompt is not None and not prompt.strip() and not args.attachments:
        raise MioError("The prompt is empty.", fix='Ask something: mio chat "Draw a cat." --out image')
    else:
        talk.ask(args.attachments, prompt or "")
    places = (f"{readable(count)} {place}" for place, count in peak().items())
    console.note(f"peak memory: {', '.join(places)}")
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
        self.shape = _shape(read_file(self.args.schema) if self.args.schema else None, self.args.regex)

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
            shape=self.shape,
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
        self.console.data(_document(reply, parts, seconds) | {"ids": list(reply.ids), "peak_bytes": peak()})


def _sampling(model: Model, args: Arguments) -> Mapping[str, Sampling]:
    """What would decode the answer anyway, at another temperature if one is given, and then without beams."""
    if args.temperature is None:
        return {}
    own = model.decoding(args.kinds, args.profile)
    return {place: Sampling(args.temperature, s.top_p, s.top_k, s.repetition_penalty) for place, s in own.items()}


def _shape(schema: str | None, regex: str) -> Shape | None:
    """What texts must be: a schema, as JSON, or a regular expression; anything where neither is given."""
    if schema is not None and regex:
        raise MioError("A text cannot be given a schema and a regular expression.", fix="Leave one of them out.")
    return Schema(schema) if schema is not None else Regex(regex) if regex else None


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


HELP = "Type a question, or: /attach FILE, /out KINDS, /release (of media models, until they are needed), /quit."


def _loop(talk: _Talk) -> None:
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
    elif order == "/release":
        talk.model.release()
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
    schema: dict[str, Any] | None = None
    regex: str = ""

    def __post_init__(self) -> None:
        if not self.prompt.strip() and not self.attachments:
            raise DataError("The line asks nothing.", fix='Give it a "prompt", "attachments" or both.')
        if not 0 <= self.seed < 2**63:
            raise DataError(f"Seed {self.seed} is not from 0 to 2**63 - 1.")


GROUP = 16  # prompts that are answered together, and of which a kill costs the answers


def generate(args: Arguments, console: Console) -> int:
    lines = [(number, *line) for number, line in enumerate(read_lines(args.source), 1)]
    args.folder.mkdir(parents=True, exist_ok=True)
    results = args.folder / "results.jsonl"
    old = _finished(results)
    model = open_model(args)
    batch = _Batch(model, args.folder, Path() if args.source == "-" else Path(args.source).parent, old, args.profile)
    spent: dict[str, _Spent] = {}
    done = failed = 0
    with results.open("a", encoding="utf-8", errors="backslashreplace") as file:
        for start in tqdm(range(0, len(lines), GROUP), unit="group", disable=not console.bars):
            for result in batch.results(lines[start : start + GROUP], console, spent):
                done, failed = done + ("error" not in result), failed + ("error" in result)
                print(dumps(result), file=file, flush=True)
    counts = {"results": str(results), "done": done, "failed": failed, "skipped": len(lines) - done - failed}
    console.fields(counts | {out: str(spent[out]) for out in sorted(spent)} | {"peak_bytes": peak()})
    return 3 if failed else 0


@dataclass
class _Spent:
    """What answers of one kind took. Those of a group share its time by their ids."""

    answers: int = 0
    ids: int = 0
    seconds: float = 0.0

    def add(self, ids: int, seconds: float) -> None:
        self.answers, self.ids, self.seconds = self.answers + 1, self.ids + ids, self.seconds + seconds

    def __str__(self) -> str:
        speed = self.ids / max(self.seconds, 1e-9)
        return f"{self.answers} answers, {self.ids} ids, {self.seconds:.1f} s, {speed:.0f} ids/s"


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
    """Answers lines in groups. `old`: ids that have an answer already; `seen`: ids of this time."""

    model: Model
    folder: Path
    root: Path  # where attachments lie
    old: set[str]
    profile: str
    seen: set[str] = field(default_factory=set)

    def results(
        self, lines: Sequence[tuple[int, str, bytes]], console: Console, spent: dict[str, _Spent]
    ) -> Iterator[dict[str, Any]]:
        """What goes into the results, in order, for all without an answer; `spent` takes what it took, by kind."""
        asked = [line for line in (self._line(*line) for line in lines) if line is not None]
        begun, jobs = time.perf_counter(), [line.job for line in asked if isinstance(line.job, Job)]
        replies = iter(self.model.run(jobs))
        took = time.perf_counter() - begun
        answers = [
            (line, next(replies) if isinstance(line.job, Job) else Reply((), (), (), line.job)) for line in asked
        ]
        share = took / max(sum(len(reply.ids) for _, reply in answers), 1)
        for line, reply in answers:
            if isinstance(line.job, Job) and not reply.error:
                spent.setdefault(line.job.out, _Spent()).add(len(reply.ids), share * len(reply.ids))
            yield self._result(line, reply, share * len(reply.ids), console)

    def _line(self, number: int, at: str, line: bytes) -> _Line | None:
        id = str(number)
        try:
            fields = parse_object(line, at)
            id = str(fields.pop("id", id))
            return None if id in self.old else _Line(id, at, self._job(id, fields))
        except ResourceError:
            raise
        except MioError as error:
            return _Line(id, at, error)
        finally:
            self.seen.add(id)

    def _job(self, id: str, fields: Mapping[str, Any]) -> Job:
        if id in self.seen:
            raise DataError(f"Id {id!r} stands twice in the input.", fix="Give every line an id of its own.")
        p = from_dict(Prompt, fields)
        media = [attachment(self.root / path) for path in p.attachments]
        question = user(*media, p.prompt) if p.prompt else user(*media)
        shape = _shape(None if p.schema is None else json.dumps(p.schema), p.regex)
        return Job(Turns((question,)), p.out, p.tokens, seed=p.seed, profile=self.profile, shape=shape)

    def _result(self, line: _Line, reply: Reply, seconds: float, console: Console) -> dict[str, Any]:
        if error := reply.error:
            error.at = line.at if error.at in ("", line.at) else f"{line.at}: {error.at}"
            console.error(error)
            return {"id": line.id, "error": describe(error)}
        stem = re.sub(r"[^\w.-]", "_", line.id)[:60].lstrip(".") or "_"
        stems = (stem if n == 1 else f"{stem}~{n}" for n in count(1))
        parts = saved(reply, self.folder, unused(self.folder, stems))
        return {"id": line.id} | _document(reply, parts, seconds)


@dataclass(frozen=True)
class _Line:
    """A line of the input that wants an answer, or why it cannot have one."""

    id: str
    at: str
    job: Job | MioError
