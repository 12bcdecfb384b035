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


def read_wandb(run: Path) -> list[tuple[int, float]]:
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    store = import_module("wandb.sdk.internal.datastore").DataStore()
    record = import_module("wandb.proto.wandb_internal_pb2").Record
    store.open_for_scan(str(path))
    rows = []
    while (data := store.scan_data()) is not None:
        history = record.FromString(data).history
        row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}
        rows += [(row["one/step"], row["one/loss"])] if row else []
    return rows


def read_mlflow(run: Path) -> list[tuple[int, float]]:
    client = import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("mio").experiment_id])
    return [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "one/loss")]


READERS: dict[str, Callable[[Path], list[tuple[int, float]]]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
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
