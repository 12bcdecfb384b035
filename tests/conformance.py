"""Clients that no one here wrote, each in an environment of its own, against live servers; their matrix for docs/.

python tests/conformance.py [CLIENT ...]    # installs them below MIO_CLIENTS, runs them, and writes their columns
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients.rows import STORY
from serving import Live, data_url, running
from test_shipped import unseen

import mio
from mio.decoding.engine import Engine
from mio.media import encode_audio, encode_image, encode_video
from mio.pipeline import Model
from mio.processor import open_media
from mio.serve.app import Options
from mio.serve.scheduler import Load
from mio.types import Audio, Image, MediaFile, MissingError, Video

PROGRAMS = Path(__file__).parent / "clients"
PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
FOLDER = Path(os.environ.get("MIO_CLIENTS", Path(tempfile.gettempdir()) / "mio-clients"))
Facts = dict[str, Any]
Column = dict[str, str]  # row -> "yes", "dropped" by the client, or "no: why"; rows it has no call for are left out


@dataclass(frozen=True)
class Client:
    """`packages` are installed; `program` reports its rows; `way`: which of several ways in it is to take."""

    name: str
    title: str
    program: str
    packages: tuple[str, ...]
    way: str = ""


CLIENTS = (
    Client("openai3", "openai (Python)", "openai_python.py", ("openai>=3,<4",)),
    Client("openai2", "openai (Python)", "openai_python.py", ("openai>=2,<3",)),
    Client("node", "openai (node)", "openai_node.mjs", ("openai",)),
    Client("litellm", "litellm", "litellm_python.py", ("litellm",)),
    Client("langchain", "langchain-openai", "langchain_python.py", ("langchain-openai",)),
    Client("aisdk", "@ai-sdk/openai", "ai_sdk.mjs", ("ai", "@ai-sdk/openai", "zod"), "openai"),
    Client("compatible", "@ai-sdk/openai-compatible", "ai_sdk.mjs", ("ai", "@ai-sdk/openai-compatible", "zod"), "any"),
)
ROWS = (
    *("text", "stream", "image in", "audio in", "video in", "image out", "image out, streamed"),
    *("audio out", "audio out, streamed", "video out", "order of parts"),
    *("responses", "responses, streamed", "responses, image out"),
    *("images endpoint", "speech endpoint", "transcription endpoint"),
    *("errors", "error in a stream", "retry after 429"),
)


# ------------------------------------------------------------------------------------------------------ environments


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise MissingError(f"{words[0]} failed: {done.stderr[-300:]}", at=str(folder), fix="Is there a network?")


def _python(folder: Path, packages: Sequence[str]) -> None:
    venv.create(folder, with_pip=True)
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages], folder)


def _node(folder: Path, packages: Sequence[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError("There is no npm on this machine.", fix="Install node 20 or later.")
    (folder / "package.json").write_text("{}", encoding="utf-8")
    _run([npm, "install", "--no-audit", "--no-fund", "--silent", *packages], folder)


INSTALL: Mapping[str, tuple[str, Callable[[Path, Sequence[str]], None]]] = {
    ".py": ("bin/python", _python),
    ".mjs": ("node", _node),
}


def installed(client: Client) -> list[str]:
    """The command that runs the client's program. Programs are copied beside the packages: node looks for them there.

    Raises:
        MissingError: no interpreter, or no network.
    """
    program, folder = PROGRAMS / client.program, FOLDER / client.name
    done, packages = folder / "installed", "\n".join(client.packages)
    interpreter, install = INSTALL[program.suffix]
    folder.mkdir(parents=True, exist_ok=True)
    if not done.exists() or done.read_text(encoding="utf-8") != packages:
        install(folder, client.packages)
        done.write_text(packages, encoding="utf-8")
    for path in (program, program.with_name(f"rows{program.suffix}")):
        shutil.copy(path, folder)
    return [str(folder / interpreter) if "/" in interpreter else interpreter, str(folder / program.name)]


# ----------------------------------------------------------------------------------------------------------- servers


class Brittle(Engine):
    """An engine that fails after a few steps."""

    left = 3

    def step(self) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken on purpose")
        return super().step()


@dataclass(frozen=True)
class Servers:
    """One that works, one that is busy whenever it is asked to be, one that fails in the middle of every answer."""

    works: Live
    busy: Live
    broken: Live

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """The busy one sends its next request away, and takes the one after."""
        scheduler, metrics = self.busy.served.service.scheduler, self.busy.served.service.metrics
        load, before, over = scheduler.load, metrics.total("mio_rejections_total"), threading.Event()

        def relent() -> None:
            while metrics.total("mio_rejections_total") == before and not over.wait(0.01):
                pass
            scheduler.load = load

        scheduler.load = replace(load, queue=0)
        watch = threading.Thread(target=relent)
        watch.start()
        yield
        over.set()
        watch.join()


@contextmanager
def servers(model: Model) -> Iterator[Servers]:
    options = Options(load=Load(lanes=2))
    with ExitStack() as stack:
        works, busy, broken = (stack.enter_context(running(model, options)) for _ in range(3))
        scheduler = broken.served.service.scheduler
        scheduler._new_engine = lambda: Brittle(model.backbone, 5)  # type: ignore[method-assign]
        scheduler._engine = scheduler._new_engine()
        yield Servers(works, busy, broken)


def facts(servers: Servers) -> Facts:
    """Where the servers are, media to send, and what plain HTTP without any client gets for them."""
    picture, sound = (_medium(source) for source in ("digits", "fsdd"))
    clip = Video(_frames(), 4.0)
    assert isinstance(picture, Image) and isinstance(sound, Audio)
    wav = encode_audio(sound)
    urls = {
        "image": data_url(encode_image(picture), "image/png"),
        "audio": data_url(wav, "audio/wav"),
        "video": data_url(encode_video(clip), "video/mp4"),
    }
    return {
        **{name: f"{live.base}/v1" for name, live in servers.__dict__.items() if name != "works"},
        "base": f"{servers.works.base}/v1",
        "sound": base64.b64encode(wav).decode(),
        **urls,
        "told": plain(servers.works, STORY),
        "seen": plain(servers.works, *_about("image", urls, "What is this?")),
        "heard": plain(servers.works, *_about("audio", urls, "What is said?")),
        "watched": plain(servers.works, *_about("video", urls, "How does it move?")),
    }


def _medium(source: str) -> Any:
    (media,) = [open_media(p) for p in unseen(source)[0].parts if isinstance(p, MediaFile)]
    return media


def _frames() -> Any:
    """A ball that moves to the left."""
    import numpy as np

    frames = np.full((4, 64, 64, 3), 255, np.uint8)
    for n in range(4):
        frames[n, 24:40, 44 - 12 * n : 60 - 12 * n] = (200, 30, 30)
    return frames


def _about(kind: str, urls: Mapping[str, str], words: str) -> list[Any]:
    return [{"type": f"{kind}_url", f"{kind}_url": {"url": urls[kind]}}, {"type": "text", "text": words}]


def plain(live: Live, *parts: Any) -> str:
    content = parts[0] if isinstance(parts[0], str) else [*parts]
    body = {"messages": [{"role": "user", "content": content}], "seed": 0, "max_tokens": 150}
    reply = live.http.post("/v1/chat/completions", json=body)
    return reply.raise_for_status().json()["choices"][0]["message"]["content"]


# ------------------------------------------------------------------------------------------------------------ matrix


def column(client: Client, servers: Servers, facts: Facts) -> Column:
    """What a client makes of every row, and its "version"."""
    words = installed(client)
    told = json.dumps(facts | {"way": client.way})
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
    with servers.refusing():
        done = subprocess.run(words, input=told, capture_output=True, text=True, env=env, timeout=900)
    found: Column = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line) if line.startswith("{") else {}
    if done.returncode or "version" not in found:
        raise RuntimeError(f"{client.name} broke off after {found}: {done.stderr[-2000:]}")
    return found


def page(columns: Mapping[str, Column]) -> str:
    """The matrix as Markdown; columns by the names of clients."""
    found = [columns.get(client.name, {"version": "not run"}) for client in CLIENTS]
    titles = [f"`{client.title}` {told['version']}" for client, told in zip(CLIENTS, found, strict=True)]
    lines = [["", *titles], ["---"] * (len(titles) + 1)]
    lines += [[row, *(told.get(row, "–") for told in found)] for row in ROWS]
    return HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def read(text: str) -> dict[str, Column]:
    """The columns of a page."""
    lines = [line.strip("|\n").split("|") for line in text.splitlines() if line.startswith("|")]
    (_, *titles), _, *rows = [[cell.strip() for cell in line] for line in lines]
    found = {client.name: {"version": title.split("` ")[1]} for client, title in zip(CLIENTS, titles, strict=True)}
    for name, *cells in rows:
        for client, cell in zip(CLIENTS, cells, strict=True):
            found[client.name] |= {name: cell} if cell != "–" else {}
    return found


HEAD = """# Clients that no one here wrote

Written by `python tests/conformance.py`; each client is installed in an environment of its own and talks to live
servers with the shipped model. Texts, and answers about media, must be those that plain HTTP gets; pictures and sounds
must be files; streams must add up to the whole.

- **yes**: it arrived, and was right.
- **dropped**: the server sends it (other columns have it), and the client keeps it from its user.
- **–**: the client has no call for it, or none was tried.

`/v1/responses` is how pictures reach clients that drop them in chat. "Retry after 429": the server sends the first
request away with `Retry-After`, and the client comes back by itself. "Error in a stream": the engine fails in the
middle of an answer, and the client raises its own error.

"""


def main(names: list[str]) -> None:
    """All clients, or some; columns of the others stay as the page has them."""
    columns = read(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    with servers(mio.load()) as live:
        told = facts(live)
        for client in (c for c in CLIENTS if not names or c.name in names):
            columns[client.name] = column(client, live, told)
            print(client.name, json.dumps(columns[client.name]), flush=True)
    PAGE.write_text(page(columns), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
