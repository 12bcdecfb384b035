"""train/log.py: one JSON object per line, and the same numbers in every tracker that is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from mio.train.log import TRACKERS, Log

LINES = [{"stage": "one", "step": step, "seconds": 0.5, "loss": 4.0 - step, "share of text": 0.25} for step in (1, 2)]


def test_lines_are_json_objects_and_a_second_training_adds_to_them(tmp_path: Path) -> None:
    for line in LINES:
        with Log(tmp_path / "run" / "metrics.jsonl") as log:
            log.write(line)
    assert [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == LINES


def read_tensorboard(run: Path) -> list[tuple[int, float]]:
    module = import_module("tensorboard.backend.event_processing.event_accumulator")
    found = module.EventAccumulator(str(run / "tensorboard")).Reload()
    return [(event.step, event.value) for event in found.Scalars("one/loss")]


READERS: dict[str, Callable[[Path], list[tuple[int, float]]]] = {
    "tensorboard": read_tensorboard,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", TRACKERS)
def test_trackers_hold_what_was_logged(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    with Log(tmp_path / "metrics.jsonl") as log:
        for line in LINES:
            log.write(line)
    assert READERS[name](tmp_path) == [(1, 3.0), (2, 2.0)]
