"""A judge for tests: a real endpoint on this machine that counts letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread


class Judge(HTTPServer):
    """Gives as many points as the answer has letters; with a key, to those who have it only."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, object]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Judge)
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(request)
        answer = request["messages"][0]["content"].rpartition("Answer: ")[2]
        body = json.dumps({"choices": [{"message": {"content": f"Mark: {len(answer)}"}}]}).encode()
        self.send_response(200 if self.headers["Authorization"] == "Bearer secret" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def judging() -> Iterator[Judge]:
    with Judge() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fabricate_judge(folder: Path, judge: Judge) -> Path:
    """A witness that asks `judge` with the key in JUDGES_KEY."""
    (folder / "judge").mkdir(parents=True)
    config = {"url": f"http://127.0.0.1:{judge.server_port}/v1", "model": "counter", "key": "JUDGES_KEY"}
    (folder / "judge" / "config.json").write_text(json.dumps(config))
    return folder
