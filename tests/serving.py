"""A live server for tests: the real application on a free port of this machine, in a thread or as a process."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
from openai import OpenAI

from mio.media import encode_audio, encode_image, encode_video
from mio.pipeline import Model
from mio.serve.app import Options, Served, build
from mio.serve.connection import Server, configure
from mio.serve.work import AnyEngine
from mio.types import Audio, Image, Video

PICTURE = encode_image(Image(np.full((20, 30, 3), 200, np.uint8)))
SOUND = encode_audio(Audio((np.sin(np.arange(8000) / 20) / 2).astype(np.float32), 16_000))
CLIP = encode_video(Video(np.zeros((6, 16, 16, 3), np.uint8), 8.0))


def data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


class Live:
    """A running server. `http`, `connect()`: a plain client, a bare socket; `client`: OpenAI's, without retries."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server = Server(configure(served.app, "127.0.0.1", self.port), lambda: None, lambda: True)
        self.thread = threading.Thread(target=self._run)
        self.base = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.base, timeout=60)

    def _run(self) -> None:
        asyncio.run(self.server.serve([self.listener]))

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.base}/v1", api_key=key, max_retries=0, timeout=120)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def until(self, condition: object, seconds: float = 30) -> float:
        """Seconds until a condition holds."""
        assert callable(condition)
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < seconds, "it never came true"
            time.sleep(0.005)
        return time.monotonic() - begun


@contextmanager
def running(
    model: Model, options: Options | None = None, engine: Callable[[], AnyEngine] | None = None
) -> Iterator[Live]:
    live = Live(build(model, options, engine))
    live.thread.start()
    live.until(lambda: live.server.started)
    try:
        yield live
    finally:
        live.http.close()
        live.server.should_exit = True
        live.thread.join(60)
        assert not live.thread.is_alive()


@contextmanager
def process(folder: Path, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`mio serve` as a process, ready, and its address."""
    words = [sys.executable, "-m", "mio", "serve", "--json", "--port", "0", "--model", str(folder)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1", **env}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stdout
    try:
        base = json.loads(process.stdout.readline())["api"].removesuffix("/v1")
        while not _ready(base):
            time.sleep(0.02)
        yield process, base
    finally:
        process.kill()
        process.communicate()


def _ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/ready").status_code == 200
    except httpx.TransportError:
        return False


def named(data: bytes, name: str) -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = name
    return file
