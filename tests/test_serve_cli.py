"""`mio serve` as a process: it says where its page is, keeps to safe defaults, and ends in order."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import httpx2 as httpx
import pytest
from fabricate import fabricate_model
from serving import process

from mio.cli import main
from mio.cli.parser import parse


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("model"))


def test_it_serves_and_finishes_what_is_under_way_when_it_is_told_to_end(folder: Path) -> None:
    body = {
        "messages": [{"role": "user", "content": "Go"}],
        "temperature": 2,
        "seed": 3,
        "max_tokens": 150,
        "stream": True,
    }
    with process(folder) as (server, base), httpx.Client(base_url=base, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            assert next(lines).startswith("data: ")
            server.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.wait(60) == 0


def test_beyond_this_machine_it_wants_a_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MIO_API_KEY", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--model", str(folder)]) == 2
    assert "MIO_API_KEY" in capsys.readouterr().err


def test_a_port_in_use_is_named_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, "--model", "nowhere"]) == 2
        assert port in capsys.readouterr().err


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--key-file", str(tmp_path / "keys")]) == 4
    assert "keys" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--port", "70000"], ["--lanes", "0"], ["--provenance", "maybe"], ["--queue", "x"]])
def test_odd_words_are_refused(words: list[str]) -> None:
    assert main(["serve", *words]) == 2


def test_defaults_are_safe() -> None:
    args = parse(["serve"])
    assert (args.host, args.port, args.fetch, args.names, args.marks) == ("127.0.0.1", 8000, [], [], True)
