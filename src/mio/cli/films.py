"""`mio data narrate`: videos become interleaved documents, told by the model at hand or by servers elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TypeVar

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.datafiles import format_of, tell
from mio.cli.inputs import open_model
from mio.data.endpoint import Endpoint
from mio.data.faults import Reading
from mio.data.narrate import Captioner, Narrator, Recogniser, Refiner, narrate, plain_words, write_documents
from mio.data.readers import reader_of
from mio.pipeline import Job, Model, user
from mio.types import Audio, Image, Turns

SEE, HEAR = "What is this?", "What is said?"  # as the model that ships has learned to be asked
WORDS = 64  # ids of an answer
H = TypeVar("H")


def answers(model: Model, question: str, media: Sequence[Image | Audio]) -> list[str]:
    """A model's words about each medium; all are asked together."""
    jobs = [Job(Turns((user(medium, question),)), tokens=WORDS) for medium in media]
    return [reply.checked().text for reply in model.run(jobs)]


def narrator(args: Arguments) -> Narrator:
    """Raises: MioError where a name is no helper."""
    model = cache(lambda: open_model(args))
    own = {"model": lambda: f"{model().config.name} {model().config.fingerprint}"}
    helpers = (args.seen_by, args.heard_by, args.told_by)
    name = ", ".join(own[who]() if who in own else who for who in helpers)
    eyes: Mapping[str, Callable[[], Captioner]] = {"model": lambda: partial(answers, model(), SEE)}
    ears: Mapping[str, Callable[[], Recogniser | None]] = {
        "model": lambda: partial(answers, model(), HEAR),
        "nobody": lambda: None,
    }
    pens: Mapping[str, Callable[[], Refiner]] = {"rule": lambda: plain_words}
    return Narrator(
        name,
        _helper(args.seen_by, eyes, lambda server: server.caption),
        _helper(args.heard_by, ears, lambda server: server.hear),
        _helper(args.told_by, pens, lambda server: server.refine),
    )


def _helper(who: str, own: Mapping[str, Callable[[], H]], of: Callable[[Endpoint], H]) -> H:
    return own[who]() if who in own else of(Endpoint.named(who, os.environ.get("OPENAI_API_KEY", "")))


def narrate_films(args: Arguments, console: Console) -> int:
    """Raises: DataError where more than the allowed share of a file is bad; videos that are done stay done."""
    for path in args.files:
        reader_of(path)  # complain before a model is loaded
    readings, storyteller = [Reading(path, format_of(args)) for path in args.files], narrator(args)
    try:
        places = [place for reading in readings for place in narrate(reading, storyteller, args.folder / "frames")]
    finally:
        tell([fault for reading in readings for fault in reading.faults], args.lines, console)
    for reading in readings:
        reading.hold(args.max_bad_fraction)
    documents = args.folder / "documents.jsonl"
    write_documents(documents, places)
    console.data({"documents": str(documents), "videos": len(places), "bad": sum(len(r.faults) for r in readings)})
    console.text(str(documents))
    return 0
