"""What the words of a command line said."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mio.cli.console import Console

Command = Callable[["Arguments", Console], int]


class Arguments(argparse.Namespace):
    """Typed, where argparse is not; a command reads the fields that its own parser sets."""

    command: Command
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    model: Path | None = None  # a model folder or id; None: the one that ships
    revision: str | None = None  # of an id; None: the newest
    offline: bool = False
    files: list[Path]
    from_text: bool
    source: str  # a file of lines, or "-"
    path: Path
    lines: Path | None  # where to put lines
    folder: Path
    recipe: str
    kind: str  # of tokenizer
    stage: str  # of a recipe; "": none
    data: Path | None
    run: Path | None
    changes: list[str]
    only: str
    init: str  # a base model's folder or id; "": the recipe's own
    workers: int
    sharded: bool
    count: int
    prompt: str | None
    attachments: list[Path]
    kinds: str  # what may come out: "text", "image", "text,image", ...
    system: str
    tokens: int
    seed: int
    temperature: float | None
    profile: str  # how to decode, by name; "": the model's own way
    schema: Path | None  # that texts of an answer must follow
    regex: str  # that they must match; "": none
    small: bool
    dtype: str = ""  # of weights, exported or loaded; "": the model's own
    bits: Literal[4, 8] | None = None  # of the weights of linear layers; None: floats
    shard: float  # GB
    load: bool
    format: str  # of data, by name
    fields: list[str]  # FIELD=NAME, of a format
    rules: list[str]  # RULE=VALUE, or the name of the paper's for a kind of data
    max_bad_fraction: float
    seen_by: str  # who captions frames: "model", or an endpoint
    heard_by: str  # who writes speech down: "model", "nobody", or an endpoint
    told_by: str  # who makes one text of both: "rule", or an endpoint
    host: str
    port: int
    names: list[str]  # of the server, in Host headers
    key_file: Path | None
    fetch: list[str]  # hosts
    lanes: int
    queue: int
    marks: bool
    engine: Literal["own", "openai"]
    base_url: str  # of a back end
    bare: bool
    task: str  # of an evaluation, by name
    tasks: list[str]
    first: Path  # a run
    second: Path
    limit: int  # 0: all items
    batch: int
    samples: bool
    threshold: float | None
    witnesses: Path | None
    devices: int
    memory: float  # GB; 0: what this machine has
    rate: float  # GFLOP/s; 0: measured
