"""The server against its own bare engine, in one run: answers streamed side by side, and one alone to its first token.

    python benchmarks/serve.py                       # random weights of 31M parameters, a minute
    python benchmarks/serve.py --layers 2 --tokens 16
    python benchmarks/serve.py --beside http://127.0.0.1:9000/v1 --name NAME    # and any other server of this interface

The same seeds give the same ids both ways. The clients are a process of their own; rounds take turns, the best counts.
"Work" is the processor's time for all answers in the process that holds the model, the one number that a busy machine
does not change much.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import torch

from mio.decoding.engine import generate
from mio.decoding.sampling import Sampling
from mio.models.backbone import Backbone, BackboneConfig
from mio.pipeline import Job, Model, load, user
from mio.serve.app import Options, build
from mio.serve.connection import Server, configure
from mio.serve.scheduler import Load
from mio.types import Turns

WORDS = "Say anything at all, number {}."


@dataclass(frozen=True)
class Times:
    """Seconds: from the first request to the last piece of all answers; of one answer alone to its first piece; of the
    processor."""

    all: float
    first: float
    work: float = 0.0

    def best(self, other: Times) -> Times:
        return Times(min(self.all, other.all), min(self.first, other.first), min(self.work, other.work))


def model_of(layers: int) -> Model:
    """The shipped tokenizers around random weights: at temperature 1 hardly an answer ends before its budget."""
    shipped = load()
    torch.manual_seed(0)
    shape = BackboneConfig(
        len(shipped.processor.vocab), layers, 512, 8, 2, 64, 1376, 10_000.0, positions=1024, tied=True
    )
    config = replace(shipped.config, backbone=shape)
    return Model(config, Backbone(shape).requires_grad_(False), shipped.processor)


# ------------------------------------------------------------------------------------------------------- the engine


def job(number: int, tokens: int) -> Job:
    content = Turns((user(WORDS.format(number)),))
    return Job(content, "text", tokens, seed=number, sampling={"text": Sampling(1.0, 1.0)})


def bare(model: Model, streams: int, tokens: int) -> tuple[Times, int]:
    """And the number of ids."""
    start, work = time.perf_counter(), time.process_time()
    requests = [model.request(job(n, tokens)) for n in range(streams)]
    for _ in generate(model.backbone, requests):
        pass
    whole, work = time.perf_counter() - start, time.process_time() - work
    start = time.perf_counter()
    next(iter(generate(model.backbone, [model.request(job(0, tokens))])))
    return Times(whole, time.perf_counter() - start, work), sum(len(request.out) for request in requests)


# ------------------------------------------------------------------------------------------------------- the server


@contextmanager
def served(model: Model, lanes: int) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        app = build(model, Options(load=Load(lanes))).app
        server = Server(configure(app, "127.0.0.1", port), lambda: None, lambda: True)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/v1"
        server.should_exit = True
        thread.join()


def asked(base: str, name: str, number: int, tokens: int, only_first: bool = False) -> float:
    """Seconds of one streamed answer, or until it begins."""
    url, start = urlsplit(base), time.perf_counter()
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=600)
    body = {"model": name, "messages": [{"role": "user", "content": WORDS.format(number)}], "stream": True}
    body |= {"temperature": 1.0, "top_p": 1.0, "seed": number, "max_tokens": tokens}
    connection.request("POST", f"{url.path}/chat/completions", json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    for line in reply:
        if only_first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
            break
    connection.close()
    return time.perf_counter() - start


def clients(base: str, name: str, streams: int, tokens: int) -> Times:
    start = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        [*pool.map(lambda number: asked(base, name, number, tokens), range(streams))]
    whole = time.perf_counter() - start
    time.sleep(0.2)
    return Times(whole, asked(base, name, 0, tokens, only_first=True))


def elsewhere(base: str, name: str, streams: int, tokens: int) -> Times:
    """The clients in a process of their own, which takes no time from the server's interpreter."""
    work = time.process_time()
    words = [sys.executable, __file__, "--client", base, "--name", name, "--streams", str(streams)]
    done = subprocess.run([*words, "--tokens", str(tokens)], stdout=subprocess.PIPE, text=True, check=True)
    return replace(Times(**json.loads(done.stdout)), work=time.process_time() - work)


# -------------------------------------------------------------------------------------------------------- the table


def table(rows: Sequence[tuple[str, Times]], ids: int) -> None:
    engine = rows[0][1]
    print("| | ids/s, all streams | time | work, s | work | first piece, ms | time |\n|---|---|---|---|---|---|---|")
    for name, times in rows:
        whole = f"{ids / times.all:.0f} | x {times.all / engine.all:.2f} | {times.work:.2f}"
        print(f"| {name} | {whole} | x {times.work / engine.work:.2f} | ", end="")
        print(f"{times.first * 1e3:.1f} | x {times.first / engine.first:.2f} |")


def measure(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    model = model_of(arguments.layers)
    size = sum(p.numel() for p in model.backbone.parameters()) / 1e6
    streams, tokens = arguments.streams, arguments.tokens
    print(f"{size:.1f}M parameters, {arguments.threads} thread(s), {streams} streams of at most {tokens} ids\n")
    ours, theirs, others = [], [], []
    with served(model, streams) as base:
        for _ in range(arguments.rounds):
            engine, ids = bare(model, streams, tokens)
            ours.append(engine)
            theirs.append(elsewhere(base, model.config.name, streams, tokens))
            if arguments.beside:
                others.append(elsewhere(arguments.beside, arguments.name, streams, tokens))
    found = {"engine": ours, "mio serve": theirs, arguments.name or "other": others}
    table([(name, _best(times)) for name, times in found.items() if times], ids)


def _best(times: Sequence[Times]) -> Times:
    first, *rest = times
    for one in rest:
        first = first.best(one)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch; the clients need a core as well")
    parser.add_argument("--beside", default="", help="base URL of another server")
    parser.add_argument("--name", default="", help="of the other server's model")
    parser.add_argument("--client", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        times = clients(arguments.client, arguments.name, arguments.streams, arguments.tokens)
        print(json.dumps(times.__dict__))
    else:
        measure(arguments)


if __name__ == "__main__":
    main()
