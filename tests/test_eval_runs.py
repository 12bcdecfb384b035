"""Runs: answers kept one by one, scores only of what is whole, and two runs compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricate import fabricate_model
from fabricate_benchmarks import fabricate_benchmarks
from fabricate_release import fabricate_release
from fabricate_witnesses import fabricate_witnesses
from judging import fabricate_judge, judging

from mio.cli import main
from mio.evals.answering import ANSWERS, answer, read_answers, write_lines
from mio.evals.benchmarks.items import Item, read_items
from mio.evals.likelihood import likelihoods
from mio.evals.paper import PUBLISHED, TASKS
from mio.evals.planning import Settings, content, continues
from mio.evals.results import SAMPLES, compare, score, write_samples
from mio.evals.scoring import METRICS, Answer, chosen
from mio.evals.surveys import SURVEYS
from mio.evals.witnesses import Witnesses
from mio.pipeline import Model, load
from mio.types import DataError, Document, MioError, MissingError, Text, Turns

TASK = replace(TASKS["vqav2"], tokens=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("runs") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder)


@pytest.fixture(scope="module")
def items(data: Path) -> list[Item]:
    return read_items(TASK.read, data / TASK.folder)


def lines(folder: Path) -> list[str]:
    return (folder / ANSWERS).read_text().splitlines()


def test_a_cut_run_goes_on_and_ends_as_an_unbroken_one(model: Model, items: list[Item], tmp_path: Path) -> None:
    answer(TASK, model, items, tmp_path / "whole", Settings(batch=1))
    whole = [json.loads(line) | {"seconds": 0} for line in lines(tmp_path / "whole")]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    text = (tmp_path / "cut" / ANSWERS).read_text()
    (tmp_path / "cut" / ANSWERS).write_text(text[: len(text) - 9])  # inside the second line
    with pytest.raises(DataError, match="1 of 2 items have no answer: 10"):
        score(TASK, items, tmp_path / "cut")
    answer(TASK, model, items, tmp_path / "cut", Settings(batch=1))
    assert [json.loads(line) | {"seconds": 0} for line in lines(tmp_path / "cut")] == whole
    kept = lines(tmp_path / "cut")
    answer(TASK, model, items, tmp_path / "cut", Settings(batch=2))  # nothing is left to ask
    assert lines(tmp_path / "cut") == kept


def test_a_folder_holds_one_plan(model: Model, items: list[Item], tmp_path: Path) -> None:
    answer(TASK, model, items, tmp_path, Settings(limit=1))
    with pytest.raises(MioError, match="seed, asked differ"):
        answer(TASK, model, items, tmp_path, Settings(seed=1))


def test_a_limited_run_says_so_and_scores_carry_what_they_depend_on(
    model: Model, items: list[Item], tmp_path: Path
) -> None:
    answer(TASK, model, items, tmp_path, Settings(limit=1))
    document = score(TASK, items, tmp_path)
    assert (document["asked"], document["items"], document["whole"]) == (1, 2, False)
    (found,) = document["scores"]
    assert found["n"] == 1 and found["low"] <= found["value"] <= found["high"]
    for key in ("prompt", "prompt_hash", "template_hash", "profile", "vocabulary", "seed", "commit", "weights"):
        assert document[key] not in ("", None)
    assert document["vocabulary"] == model.processor.vocab.fingerprint()


def given(folder: Path, items: list[Item], model: Model, answers: list[Answer]) -> Path:
    """A run whose answers were written by hand."""
    answer(TASK, model, items, folder, Settings())
    write_lines(folder / ANSWERS, [json.dumps({"id": a.id, "text": a.text, "error": a.error}) for a in answers])
    return folder


def test_scores_are_those_of_the_answers(model: Model, items: list[Item], tmp_path: Path) -> None:
    given(tmp_path, items, model, [Answer("0", "The cat."), Answer("10", "dog")])
    document = score(TASK, items, tmp_path)
    assert document["scores"][0]["value"] == 50 and document["whole"]
    assert document["points"]["VQA accuracy"] == {"0": [1, 1], "10": [0, 1]}


def test_empty_and_failed_answers_are_named_and_wrong(model: Model, items: list[Item], tmp_path: Path) -> None:
    given(tmp_path, items, model, [Answer("0", " "), Answer("10", error="too long")])
    document = score(TASK, items, tmp_path)
    assert document["empty"] == ["0"] and document["failed"] == ["10"] and not document["whole"]
    assert document["scores"][0]["value"] == 0


def test_doubled_and_strange_answers_are_named(model: Model, items: list[Item], tmp_path: Path) -> None:
    given(tmp_path, items, model, [Answer("0", "cat"), Answer("0", "dog")])
    with pytest.raises(DataError, match="1 items have two answers: 0"):
        score(TASK, items, tmp_path)
    given(tmp_path / "b", items, model, [Answer("0", "cat"), Answer("77", "dog")])
    with pytest.raises(DataError, match="1 answers are to no item: 77"):
        score(TASK, items, tmp_path / "b")
    (tmp_path / "b" / ANSWERS).write_text("[]\n")
    with pytest.raises(DataError, match="not an answer"):
        read_answers(tmp_path / "b", items)


def test_a_bad_item_costs_its_own_answer_and_is_asked_again(
    model: Model, items: list[Item], data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(data / TASK.folder, tmp_path / "vqav2")
    picture = copy / "val2014/COCO_val2014_000000000000.jpg"
    good = picture.read_bytes()
    picture.write_bytes(b"nonsense")
    spoilt = read_items(TASK.read, copy)
    answer(TASK, model, spoilt, tmp_path / "run", Settings(batch=2))
    assert score(TASK, spoilt, tmp_path / "run")["failed"] == ["0"]
    picture.write_bytes(good)
    answer(TASK, model, spoilt, tmp_path / "run", Settings(batch=2))
    assert score(TASK, spoilt, tmp_path / "run")["failed"] == []


def test_samples_keep_prompt_answer_and_truth(model: Model, items: list[Item], tmp_path: Path) -> None:
    answer(TASK, model, items, tmp_path, Settings())
    score(TASK, items, tmp_path)
    write_samples(TASK, model, items, tmp_path)
    first = json.loads((tmp_path / SAMPLES).read_text().splitlines()[0])
    assert first["prompt"] == "What is number 0?\n<COCO_val2014_000000000000.jpg>"
    assert first["truth"] == ["cat"] * 10 and first["points"]["VQA accuracy"][1] == 1


def test_a_difference_has_its_sign_and_p_value(model: Model, items: list[Item], tmp_path: Path) -> None:
    for name, texts in (("a", ("dog", "dog")), ("b", ("cat", "cat"))):
        given(tmp_path / name, items, model, [Answer(i.id, t) for i, t in zip(items, texts, strict=True)])
        score(TASK, items, tmp_path / name)
    found = compare(tmp_path / "a", tmp_path / "b")["VQA accuracy"]
    assert found.value == 100 and found.p == 0.5  # two items: of four exchanges, two are as far apart
    assert compare(tmp_path / "a", tmp_path / "a")["VQA accuracy"].p == 1
    with pytest.raises(MissingError):
        compare(tmp_path / "a", tmp_path)


def test_items_of_one_run_only_are_named(model: Model, items: list[Item], tmp_path: Path) -> None:
    for name, limit in (("a", 0), ("b", 1)):
        answer(TASK, model, items, tmp_path / name, Settings(limit=limit))
        score(TASK, items, tmp_path / name)
    with pytest.raises(DataError, match="1 items are in one run only: 10"):
        compare(tmp_path / "a", tmp_path / "b")


def test_likelihoods_of_texts_are_the_products_of_their_steps(model: Model) -> None:
    prompt = Document((Text("the cat sat"),))
    one, other = likelihoods(model, prompt, [" on", " on the mat"])
    assert one == pytest.approx(likelihoods(model, prompt, [" on"])[0], abs=1e-5)
    rest = likelihoods(model, Document((Text("the cat sat on"),)), [" the mat"])[0]
    assert other == pytest.approx(one + rest, abs=1e-4)
    size = model.processor.text.size
    assert sum(np.exp(likelihoods(model, prompt, [chr(65 + n) for n in range(26)]))) < 1 < size
    with pytest.raises(MioError, match="of 512 positions"):
        likelihoods(model, Document((Text("1 2 3 4 " * 400),)), ["x"])


def test_the_likeliest_letter_is_chosen_and_written_ones_are_read() -> None:
    item = Item("x", (), ("B",), ("a", "b", "c"))
    assert chosen(Answer("x", scores=(-3, -1, -2)), item) == "B"
    assert chosen(Answer("x", "The answer is (C)."), item) == "C" and chosen(Answer("x", "perhaps"), item) is None
    points = METRICS["choice accuracy"].points([(Answer("x", scores=(-1, -1, -2)), item)], Witnesses())
    assert points.tolist() == [[0, 1]]  # the first of equals


def test_a_task_without_a_turn_is_continued_by_every_model(model: Model, data: Path) -> None:
    item = read_items(TASKS["mmlu"].read, data / "mmlu")[0]
    assert continues(TASKS["mmlu"], model) and not continues(TASK, model)
    assert isinstance(content(TASKS["mmlu"], model, item), Document)
    assert isinstance(content(replace(TASK, prompt="{0}"), model, item), Turns)


# ------------------------------------------------------------------------------------------------------- commands


def test_run_scores_resumes_and_fails_below_a_threshold(
    data: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "run", "mmlu", "--data", str(data), "--model", str(folder), "-o", str(tmp_path / "a"), "--samples"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["task"] == "mmlu" and document["scores"][0]["n"] == 2 and document["whole"]
    assert main([*words, "--threshold", "100.1"]) == 6
    assert "choice accuracy" in capsys.readouterr().out
    assert main(["eval", "ls", str(tmp_path)]) == 0 and "fabricated" in capsys.readouterr().out
    assert main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "a"), "--threshold", "0.05"]) == 0
    assert "p=1.0000" in capsys.readouterr().out
    assert main(["eval", "run", "vizwizz", "--data", str(data)]) == 2
    assert "Did you mean 'vizwiz'" in capsys.readouterr().err


def test_compare_fails_where_the_second_is_surely_worse(
    model: Model, data: Path, items: list[Item], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("good", "cat"), ("bad", "dog")):
        given(tmp_path / name, items, model, [Answer(i.id, text) for i in items])
        score(TASK, items, tmp_path / name)
    words = ["eval", "compare", str(tmp_path / "good"), str(tmp_path / "bad")]
    assert main([*words, "--threshold", "0.51"]) == 6 and main([*words, "--threshold", "0.5"]) == 0
    assert main(["eval", "compare", words[3], words[2], "--threshold", "0.51"]) == 0  # better
    capsys.readouterr()


def test_stories_of_a_model_are_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "interleaved", "--model", str(folder), "--limit", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["scores"]
    assert set(found) == {"structure", "choice", "words", "agreement", "order", "consistency", "total"}
    assert all(0 <= s["low"] <= s["value"] <= s["high"] <= 1 and s["n"] == 1 for s in found.values())


def test_tasks_are_listed_with_their_folders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "ls", "--json"]) == 0
    rows = {row["task"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["vizwiz"]["folder"] == "vizwiz" and rows["coco-image"]["needs"] == ["aesthetic", "clip"]
    assert set(rows) == {*TASKS, *SURVEYS}


def paper_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, object]]]:
    code = main(["eval", "paper", *words, "--json"])
    return code, {row["what"]: row for row in json.loads(capsys.readouterr().out)}


SHORT = {name: replace(task, tokens=min(task.tokens, 45)) for name, task in TASKS.items()}


def test_the_paper_names_what_is_not_there(
    data: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "mmlu", tmp_path / "mmlu")
    (tmp_path / "okvqa").mkdir()
    words = ["--data", str(tmp_path), "--model", str(folder), "-o", str(tmp_path / "out"), "--limit", "1"]
    code, rows = paper_of(words, capsys)
    assert code == 0 and rows["MMLU"]["of"] == 2 and rows["MMLU"]["whole"] is False
    assert "no data" in str(rows["VQAv2"]["why"]) and "OpenEnded" in str(rows["OK-VQA"]["why"])
    main(["eval", "paper", *words])
    table = {line[:54].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "(partial: 1 of 2)" in table["text   MMLU"] and "MIO-Instruct 65.5" in table["3      VQAv2"]


@pytest.mark.slow
def test_made_media_are_judged_by_everyone_that_is_there(
    data: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mio.cli.evaluate.TASKS", SHORT)
    monkeypatch.setenv("JUDGES_KEY", "secret")
    there, out = fabricate_witnesses(tmp_path / "witnesses"), tmp_path / "out"
    tasks = [word for name in ("coco-image", "globe-tts", "speech-to-speech") for word in ("--task", name)]
    words = ["--data", str(data), "--model", str(folder), "--witnesses", str(there), "--limit", "1", *tasks]
    with judging() as judge:
        fabricate_judge(there, judge)
        code, rows = paper_of([*words, "-o", str(out)], capsys)
    assert code == 0 and len(rows) == 4 and all(row["ours"] and row["why"] == "" for row in rows.values())
    drawn = json.loads((out / "coco-image/scores.json").read_text())
    assert [s["metric"] for s in drawn["scores"]] == ["CLIP-I", "CLIP-T", "aesthetic"] and drawn["missing"] == {}
    assert drawn["scores"][2]["witness"].count(" ") == 3  # two names with their digests


BASE = {line.table for line in PUBLISHED if line.task and TASKS[line.task].base}


@pytest.mark.slow
@pytest.mark.parametrize("instruct", [True, False])
def test_a_fabricated_release_goes_through_the_whole_paper(
    data: Path, tmp_path: Path, instruct: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures by the pixel decoder, judged by a CLIP; speech heard by a Whisper; beams as in the paper. All tables."""
    monkeypatch.setenv("JUDGES_KEY", "secret")
    monkeypatch.setattr("mio.cli.evaluate.TASKS", SHORT)
    release = fabricate_release(tmp_path / ("MIO-Instruct" if instruct else "MIO-Base"), "B", instruct, unclip=True)
    there = fabricate_witnesses(tmp_path / "witnesses")
    words = ["--data", str(data), "--model", str(release), "--dtype", "fp32", "--witnesses", str(there)]
    with judging() as judge:
        fabricate_judge(there, judge)
        code, rows = paper_of([*words, "-o", str(tmp_path / "out")], capsys)
    measured = {what for what, row in rows.items() if row["ours"]}
    asked = {line.what for line in PUBLISHED if line.task and (instruct or TASKS[line.task].base)}
    assert code == 0 and measured == asked
    assert {row["table"] for row in rows.values() if row["ours"]} == (
        {"3", "4", "5", "6", "text"} if instruct else BASE
    )
    assert all(row["whole"] for row in rows.values() if row["ours"])
    assert json.loads((tmp_path / "out/coco-image/scores.json").read_text())["profile"] == "paper"
