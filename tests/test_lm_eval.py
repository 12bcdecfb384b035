"""EleutherAI's lm-eval, unchanged, on an exported model and through the server: its numbers are ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fabricate import fabricate_model
from serving import running

from mio.evals.answering import answer, read_answers
from mio.evals.benchmarks.items import Item
from mio.evals.likelihood import likelihoods
from mio.evals.metrics.statistics import ratio
from mio.evals.planning import Settings, Task
from mio.evals.scoring import METRICS, Answer
from mio.evals.witnesses import Witnesses
from mio.pipeline import Model, load
from mio.pretrained.export import export
from mio.pretrained.stock import Outgoing
from mio.types import Document, Text

lm_eval = pytest.importorskip("lm_eval")
PLAIN = Settings(batch=1)
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

TALK = """
task: talk
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{wanted}}}}"
generation_kwargs:
  until: ["~~~~"]
  max_gen_toks: 12
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    regexes_to_ignore: ['^\\s+', '\\s+$']
"""


def exported(model: Model, folder: Path, out: Path) -> Path:
    held = model.processor
    parts = (held.vocab, held.text, held.template)
    text = model.decoding("text")["text"]
    export(Outgoing(model.config.name, model.backbone, *parts, text, folder, model.config.stop), out, "fp32")
    return out


def theirs(model: str, arguments: dict[str, Any], task: str, rows: list[dict[str, Any]], work: Path) -> dict[str, Any]:
    """Results and samples of one task over `rows`."""
    data, folder = work / "rows.jsonl", work / "tasks"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.mkdir()
    (folder / "task.yaml").write_text(task.format(data=data))
    from lm_eval.tasks import TaskManager

    found: dict[str, Any] = lm_eval.simple_evaluate(
        model,
        model_args=arguments,
        tasks=[task.split()[1]],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        device="cpu",
        batch_size=1,
        log_samples=True,
        apply_chat_template=model != "hf",
    )
    return found


def test_answers_through_the_server_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three items want what the model says, so that accuracy is neither nothing nor all."""
    pytest.importorskip("tenacity", reason="pip install 'lm-eval[api]'")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    model = load(fabricate_model(tmp_path / "model"))
    items = [Item(str(n), (Text(str(row["question"])),), ("",)) for n, row in enumerate(ROWS)]
    answer(
        Task("talk", "", "", lambda folder: items, "{0}", "", ("accuracy",), tokens=12), model, items, tmp_path, PLAIN
    )
    ours = read_answers(tmp_path, items)
    wanted = [a.text if n != 1 else "something else" for n, a in enumerate(ours)]
    rows = [{"question": row["question"], "wanted": text} for row, text in zip(ROWS, wanted, strict=True)]
    with running(model) as live:
        arguments = {"base_url": f"{live.base}/v1/chat/completions", "model": model.config.name, "eos_string": "~~~"}
        found = theirs("local-chat-completions", arguments, TALK, rows, tmp_path)
    assert [s["resps"][0][0].strip() for s in found["samples"]["talk"]] == [a.text for a in ours]
    pairs = [(a, replace(i, truth=(w,))) for a, i, w in zip(ours, items, wanted, strict=True)]
    accuracy = ratio(METRICS["accuracy"].points(pairs, Witnesses())).value
    assert [accuracy, found["results"]["talk"]["exact_match,none"]] == pytest.approx([2 / 3, 2 / 3])


def test_likelihoods_and_accuracy_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    folder = fabricate_model(tmp_path / "model")
    model = load(folder)
    arguments = {"pretrained": str(exported(model, folder, tmp_path / "export")), "dtype": "float32"}
    found = theirs("hf", arguments | {"add_bos_token": True}, TASK, ROWS, tmp_path)
    pairs = []
    for row, sample in zip(ROWS, found["samples"]["miniature"], strict=True):
        prompt = Document((Text(f"{row['question']}\nAnswer:"),))
        ours = likelihoods(model, prompt, [f" {c}" for c in row["choices"]])
        assert ours == pytest.approx([float(r[0]) for r in sample["filtered_resps"]], abs=1e-3)
        letters = tuple("ABCD")
        pairs.append((Answer("x", scores=tuple(ours)), Item("x", (), (letters[int(str(row["answer"]))],), letters)))
    ours_whole = ratio(METRICS["choice accuracy"].points(pairs, Witnesses())).value
    assert ours_whole == pytest.approx(found["results"]["miniature"]["acc,none"])
