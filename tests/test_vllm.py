"""An unpatched vLLM serves the exported shipped model: the same greedy ids as ours, and media through the front.

Needs the environment that scripts/vllm_env.py makes, named by MIO_VLLM.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import PICTURE, Live, data_url, running
from test_fleet import answered, asked

from mio.cli import main
from mio.decoding.engine import Engine
from mio.media import read_audio, read_image
from mio.pipeline import Model, load
from mio.serve.fleet import Backend, Fleet
from mio.serve.front import media_plane, reach
from mio.serve.upstream import Upstream

VLLM = os.environ.get("MIO_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not VLLM, reason="MIO_VLLM names no environment: see scripts/vllm_env.py"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
ENVIRONMENT = {
    "VLLM_HOST_IP": "127.0.0.1",  # where its processes find each other; without a network it would not know
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
WORDS = ("--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8")
WORDS += ("--structured-outputs-config.backend", "guidance", "--served-model-name", "tiny")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm") / "tiny"
    assert main(["export", "vllm", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def base(exported: Path) -> Iterator[str]:
    """Where vLLM's own server answers, in a process that knows nothing of mio."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [f"{VLLM}/bin/vllm", "serve", str(exported), "--host", "127.0.0.1", "--port", str(port), *WORDS]
    log = exported.with_name("vllm.log")
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=outside | ENVIRONMENT, cwd=exported)
    try:
        _await(process, port, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(60)


def _await(process: subprocess.Popen[bytes], port: int, log: Path, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-4000:])


@pytest.fixture(scope="module")
def front(base: str) -> tuple[Model, Backend]:
    return reach(media_plane(None), Upstream(base))


@pytest.mark.parametrize("out", ["text", "image", "speech", "(text image){2}", "text, speech"])
def test_its_greedy_ids_are_ours(front: tuple[Model, Backend], out: str) -> None:
    model = load()
    (ours,) = answered(Engine(model.backbone, 1), asked(model, out, 200))
    assert answered(Fleet(front[1]), asked(front[0], out, 200)) == [ours]


@pytest.fixture(scope="module")
def live(front: tuple[Model, Backend]) -> Iterator[Live]:
    with running(front[0], engine=lambda: Fleet(front[1])) as live:
        yield live


def test_media_come_out_of_the_front(live: Live) -> None:
    said: list[Any] = [{"role": "user", "content": "Draw a cat."}]
    reply: Any = live.client().chat.completions.create(
        model="tiny", messages=said, extra_body={"out": "image speech"}, audio={"voice": "default", "format": "wav"}
    )
    message = reply.choices[0].message
    assert [part["type"] for part in message.parts] == ["image", "audio"]
    picture = base64.b64decode(message.images[0]["image_url"]["url"].partition(",")[2])
    assert read_image(picture).pixels.std() > 1
    assert np.abs(read_audio(base64.b64decode(message.audio.data)).samples).max() > 0.01


def test_a_picture_is_asked_about_through_the_front_as_without(live: Live) -> None:
    shown = {"type": "image_url", "image_url": {"url": data_url(PICTURE, "image/png")}}
    said: list[Any] = [{"role": "user", "content": [shown, {"type": "text", "text": "What is this?"}]}]
    reply = live.client().chat.completions.create(model="tiny", messages=said)
    assert (reply.choices[0].message.content or "").strip() == load().chat(read_image(PICTURE), "What is this?").text
