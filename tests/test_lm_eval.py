"""EleutherAI's lm-eval, unchanged, on an exported model: its likelihoods and accuracy are ours on the same items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fabricate import fabricate_model

from mio.evals.benchmarks.items import Item
from mio.evals.likelihood import likelihoods
from mio.evals.metrics.statistics import ratio
from mio.evals.scoring import METRICS, Answer
from mio.evals.witnesses import Witnesses
from mio.pipeline import Model, load
from mio.pretrained.export import export
from mio.pretrained.stock import Outgoing
from mio.types import Document, Text

lm_eval = pytest.importorskip("lm_eval")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # theirs

ROWS = [
    {"question": "What is 1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1},
    {"question": "The cat sat on the", "choices": ["mat", "house", "apple", "seven"], "answer": 0},
    {"question": "Draw a red", "choices": ["a", "apple", "cat", "b"], "answer": 1},
]
TASK = """
task: miniature
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""


def exported(model: Model, folder: Path, out: Path) -> Path:
    held = model.processor
    parts = (held.vocab, held.text, held.template)
    text = model.decoding("text")["text"]
    export(Outgoing(model.config.name, model.backbone, *parts, text, folder, model.config.stop), out, "fp32")
    return out


def theirs(folder: Path, work: Path) -> dict[str, Any]:
    data = work / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (work / "tasks").mkdir()
    (work / "tasks" / "miniature.yaml").write_text(TASK.format(data=data))
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(work / "tasks"), include_defaults=False)
    arguments = {"pretrained": str(folder), "dtype": "float32", "add_bos_token": True}
    found: dict[str, Any] = lm_eval.simple_evaluate(
        "hf",
        model_args=arguments,
        tasks=["miniature"],
        task_manager=manager,
        device="cpu",
        batch_size=1,
        log_samples=True,
    )
    return found


def test_likelihoods_and_accuracy_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = fabricate_model(tmp_path / "model")
    model = load(folder)
    found = theirs(exported(model, folder, tmp_path / "export"), tmp_path)
    pairs = []
    for row, sample in zip(ROWS, found["samples"]["miniature"], strict=True):
        prompt = Document((Text(f"{row['question']}\nAnswer:"),))
        ours = likelihoods(model, prompt, [f" {c}" for c in row["choices"]])
        assert ours == pytest.approx([float(r[0]) for r in sample["filtered_resps"]], abs=1e-3)
        letters = tuple("ABCD")
        pairs.append((Answer("x", scores=tuple(ours)), Item("x", (), (letters[int(str(row["answer"]))],), letters)))
    ours_whole = ratio(METRICS["choice accuracy"].points(pairs, Witnesses())).value
    assert ours_whole == pytest.approx(found["results"]["miniature"]["acc,none"])
