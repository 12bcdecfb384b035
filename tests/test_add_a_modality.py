"""examples/sensor.py and docs/howto/add-a-modality.md: one file brings a modality into everything that has rows."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from mio.data.sources import Item
from mio.evals.exhibits import Exhibits
from mio.evals.forms import FORMS
from mio.evals.kinds import KINDS
from mio.evals.page import page
from mio.evals.tokenizers import measured, original
from mio.pipeline import BUILDERS, WRITERS, load, load_tokenizers
from mio.processor import MODALITY_OF, READERS, open_media
from mio.types import DataError, MediaFile, MissingError, Tokenizer

ROOT = Path(__file__).parents[1]
TABLES = (MODALITY_OF, READERS, WRITERS, BUILDERS, FORMS, KINDS)


@pytest.fixture(scope="module")
def sensor() -> Iterator[ModuleType]:
    """The example, imported; the tables are put back, for other tests."""
    before = [dict(table) for table in TABLES]
    spec = importlib.util.spec_from_file_location("sensor", ROOT / "examples" / "sensor.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["sensor"] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["sensor"]
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenizer(sensor: ModuleType) -> Tokenizer:
    torch.manual_seed(0)
    network = sensor.SignalNetwork(sensor.SignalConfig())
    network(torch.randn(64, 96))  # the codebooks start
    out: Tokenizer = sensor.SignalTokenizer(network, sensor.ROW)
    return out


def test_the_page_quotes_the_file() -> None:
    text, source = ((ROOT / p).read_text() for p in ("docs/howto/add-a-modality.md", "examples/sensor.py"))
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        for piece in block.split("\n...\n"):
            assert piece.strip("\n") in source, piece


def test_the_tokenizer_keeps_the_contract(sensor: ModuleType, tokenizer: Tokenizer) -> None:
    assert isinstance(tokenizer, Tokenizer)
    signals = [sensor.Signal(np.full(n, 0.1, np.float32)) for n in (1, 8, 20)]
    codes = tokenizer.encode(signals)
    assert [c.shape for c in codes] == [(1, 2, 1), (1, 2, 1), (1, 2, 3)]
    assert [len(s.samples) for s in tokenizer.decode(codes)] == [8, 8, 24]
    assert_array_equal(tokenizer.encode(signals[2:])[0], codes[2])


def test_files_are_read_and_written(sensor: ModuleType, tmp_path: Path) -> None:
    signal = sensor.wave("saw", np.random.default_rng(0))
    path = tmp_path / f"a{WRITERS[sensor.Signal].suffix}"
    WRITERS[sensor.Signal].write(signal, path)
    assert open_media(MediaFile(path, "sensor")).samples == pytest.approx(signal.samples, abs=1e-5)
    for text in ("seven", "0.1 nan", ""):
        path.write_text(text)
        with pytest.raises(DataError, match="no signal"):
            open_media(MediaFile(path, "sensor"))


def test_the_report_card_measures_it(sensor: ModuleType, tokenizer: Tokenizer) -> None:
    def made(count: int, seed: int) -> tuple[tuple[Item, ...], tuple[object, ...]]:
        rng, shapes = np.random.default_rng(seed), [sensor.SHAPES[n % 3] for n in range(count)]
        items = tuple(Item(f"waves/{n}", "waves", (), "", "", {"shape": s}) for n, s in enumerate(shapes))
        return items, tuple(sensor.wave(s, rng) for s in shapes)

    shown = Exhibits("sensor", *made(30, 0), *made(60, 1))
    sheet = measured("mine", tokenizer, sensor.ROW, shown)
    found = {line.what: line.score.value for line in sheet.lines}
    assert found["tokens per second"] == 8 and found["bits per second"] == 40
    assert found["shape (chance 33%): linear probe on codes"] > 0.5
    html = page({}, [shown], [original(shown), sheet])
    assert "data:image/svg+xml;base64," in html and "signal to noise, dB ↑" in html


def test_a_row_that_nobody_builds_is_named(tmp_path: Path) -> None:
    from conftest import ROWS

    stranger = type(ROWS[0])("smell", 1, 4)
    with pytest.raises(MissingError, match="smell") as caught:
        load_tokenizers(tmp_path, (stranger,), 1)
    assert "Import" in caught.value.fix


@pytest.mark.slow
def test_a_model_learns_to_read_and_to_write_signals(sensor: ModuleType, tmp_path: Path) -> None:
    model = sensor.train(tmp_path)
    rng = np.random.default_rng(5)
    asked = [sensor.SHAPES[n % 3] for n in range(12)]
    said = [model.chat(sensor.wave(shape, rng), "Which shape?").text for shape in asked]
    assert sum(a == b for a, b in zip(asked, said, strict=True)) >= 10
    reply = load(tmp_path / "model").chat("Make a square.", out="sensor")
    (signal,) = reply.media(sensor.Signal)
    assert not reply.faults and np.median(np.abs(signal.samples)) > 0.6  # of a sine 0.57, of a saw 0.4
    assert reply.save(tmp_path)[0].suffix == ".csv"
