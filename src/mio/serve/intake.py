"""Media as clients send them -> arrays: decoded in a process of their own, which is killed when it takes too long."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Any

from mio.serve.decoder import unpacked
from mio.serve.errors import ApiError
from mio.serve.fetch import Fetcher
from mio.serve.metrics import Metrics
from mio.serve.protocol import Source
from mio.types import Media

SECONDS = 30.0  # of one file, by the clock
MOST = 2**30  # bytes of one decoded file
_REFUSED = "The file is damaged, or decoding it takes more memory or time than a request may."


class Decoder:
    """One process, started when it is first needed and again when it has died. One file at a time."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def decode(self, source: Source) -> Media:
        """Raises: ApiError for a file that cannot be decoded within the limits."""
        async with self._turn:
            try:
                line, data = await asyncio.wait_for(self._ask(source), SECONDS)
            except (TimeoutError, OSError, EOFError, ValueError) as error:
                await self.close()
                raise ApiError(_REFUSED, param=source.param, code="invalid_media") from error
            except BaseException:  # cancelled between question and answer
                await self.close()
                raise
        if "error" in line:
            raise ApiError(str(line["error"]), param=source.param, code="invalid_media")
        return unpacked(line, data)

    async def _ask(self, source: Source) -> tuple[dict[str, Any], bytes]:
        process = self._process = self._process or await _start()
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps({"row": source.row, "bytes": len(source.data)}).encode() + b"\n" + source.data)
        await process.stdin.drain()
        line = json.loads(await process.stdout.readline())
        if line["bytes"] > MOST:
            raise ValueError("too many bytes")
        return line, await process.stdout.readexactly(line["bytes"])

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


async def _start() -> Process:
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **threads}
    words = [sys.executable, "-s", "-B", "-m", "mio.serve.decoder"]
    return await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=env, cwd="/")


class Intake:
    """Sources -> media. URLs are fetched only where the operator allows their hosts."""

    def __init__(self, fetcher: Fetcher, metrics: Metrics, processes: int = 2) -> None:
        self.fetcher, self.metrics = fetcher, metrics
        self._decoders = [Decoder() for _ in range(processes)]
        self._number = 0

    async def read(self, source: Source) -> Media:
        """Raises: ApiError naming the source's place in the request."""
        if source.url:
            source = await self.fetcher.fetch(source)
        begun = time.monotonic()
        self._number += 1
        media = await self._decoders[self._number % len(self._decoders)].decode(source)
        self.metrics.observe("mio_media_decode_seconds", time.monotonic() - begun)
        return media

    async def close(self) -> None:
        for decoder in self._decoders:
            await decoder.close()
