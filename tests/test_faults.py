"""Broken records cost themselves only: a hundred of ten thousand, in twelve ways."""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mio.cli import main
from mio.cli.parser import parse
from mio.data.faults import Reading, check_media, parse_record, write_quarantine
from mio.data.formats import FORMATS
from mio.media import encode_image
from mio.types import DataError, Image, MediaFile

MEDIA = ("cut.jpg", "zero.jpg", "wrong.jpg", "nan.wav", "long.wav", "../out.jpg", "link.jpg", "bomb.png", "none.jpg")
TEXTS = (b'{"messages": "\xff"}', b"[" * 100_000 + b"]" * 100_000)  # bad UTF-8; JSON 10^5 deep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults") / "data"
    root.mkdir()
    jpeg = encode_image(Image(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)), "jpg")
    for path in (root / "good.jpg", root.parent / "out.jpg"):
        path.write_bytes(jpeg)
    (root / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "zero.jpg").touch()
    soundfile.write(root / "nan.wav", np.full(100, np.nan, np.float32), 8000, subtype="FLOAT")
    soundfile.write(root / "long.wav", np.zeros(100_000, np.int16), 1)  # one sample a second
    (root / "wrong.jpg").write_bytes(sound_bytes(root))
    (root / "link.jpg").symlink_to(root.parent / "out.jpg")
    png = encode_image(Image(np.zeros((1, 1, 3), np.uint8)))
    (root / "bomb.png").write_bytes(png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:])
    return root


def sound_bytes(root: Path) -> bytes:
    soundfile.write(root / "good.wav", np.zeros(100, np.int16), 8000)
    return (root / "good.wav").read_bytes()


def line_of(number: int, name: str, mark: str = "<image>") -> bytes:
    column = "audios" if name.endswith(".wav") else "images"
    text = "<audio>" if name.endswith(".wav") and mark else mark
    record = {"id": number, "messages": [{"role": "user", "content": f"{text} {number}"}], column: [name]}
    return json.dumps(record).encode()


def broken(number: int) -> bytes:
    way = number % 12
    if way < len(MEDIA):
        return line_of(number, MEDIA[way])
    return line_of(number, "good.jpg", "") if way == 11 else TEXTS[way - len(MEDIA)]


def test_a_hundred_of_ten_thousand_are_named_and_the_rest_keeps_its_order(folder: Path) -> None:
    bad = np.random.default_rng(1).choice(10_000, 100, replace=False)
    ways = {int(place): way for way, place in enumerate(bad)}
    lines = [broken(ways[n]) if n in ways else line_of(n, "good.jpg") for n in range(10_000)]
    path = folder / "chats.jsonl"
    path.write_bytes(b"\n".join(lines))
    once = lru_cache(None)(check_media)  # 9,900 lines share one good picture
    reading = Reading(path, FORMATS["messages"], once)
    assert [s.id for s in reading.samples()] == [f"chats/{n}" for n in range(10_000) if n not in ways]
    write_quarantine(reading.faults, folder / "quarantine.jsonl")
    named = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [f["line"] for f in named] == [n + 1 for n in sorted(ways)]
    assert {f["file"] for f in named} == {str(path)} and all(f["what"] for f in named)
    reading.hold(0.01)
    with pytest.raises(DataError, match="100 of 10000") as error:
        reading.hold(0.0099)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("way", range(12))
def test_each_way_is_a_fault_of_its_own(folder: Path, way: int) -> None:
    path = folder / f"way{way}.jsonl"
    path.write_bytes(broken(way) + b"\n" + line_of(1, "good.jpg"))
    reading = Reading(path, FORMATS["messages"], check_media)
    assert [s.id for s in reading.samples()] == [f"way{way}/1"]
    assert [f.line for f in reading.faults] == [1]


def test_the_command_exits_with_3_above_the_share_and_0_below(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, quarantine = folder / "two.jsonl", folder / "two.quarantine"
    path.write_bytes(line_of(0, "good.jpg") + b"\n\n" + line_of(1, "cut.jpg"))
    words = ["data", "validate", str(path), "--json", "--quarantine", str(quarantine)]
    assert main([*words, "--max-bad-fraction", "0.5"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["records"], out["good"], out["bad"]) == (2, 1, 1)
    assert [(f["file"], f["line"]) for f in out["faults"]] == [(str(path), 3)]
    assert json.loads(quarantine.read_text()) == out["faults"][0]
    assert main(words) == 3
    assert json.loads(capsys.readouterr().out) == out


def test_the_command_knows_every_format() -> None:
    for name in FORMATS:
        assert parse(["data", "validate", "x", "--format", name]).format == name


def test_one_record_is_one_object() -> None:
    assert parse_record(b'{"a": "\xe2\x80\xa8"}') == {"a": "\u2028"}
    with pytest.raises(DataError, match="list"):
        parse_record(b"[]")


def test_a_medium_of_another_modality_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="holds speech, not image"):
        check_media(MediaFile(folder / "wrong.jpg", "image"))
