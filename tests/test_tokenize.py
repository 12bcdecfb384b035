"""data/tokenize.py: files become the store that one pass would have made, whatever stopped it on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fabricate import ROWS, SYSTEMS, fabricate_model, fabricate_parts
from numpy.testing import assert_array_equal

from mio.cli import main
from mio.data import tokenize as module
from mio.data.faults import Reading
from mio.data.formats import FORMATS
from mio.data.plan import Slot
from mio.data.store import Store
from mio.data.tokenize import Speaker, Tokenizing, Wanted, Work, tokenize
from mio.data.wording import TEMPLATES, worded
from mio.media import encode_image
from mio.pipeline import load_processor
from mio.processor import Processor
from mio.recipe import Run, Stage
from mio.recipe.language import planned
from mio.recipes.tiny import tiny
from mio.train.loop import Fit
from mio.types import DataError, Document, Image, MediaFile, Text

COUNT = 11


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(fabricate_parts(tmp_path_factory.mktemp("parts")), ROWS, SYSTEMS, 2)


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven pictures with captions; chunks of four records."""
    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(module, "BATCH", 2)
    for n in range(COUNT):
        pixels = np.random.default_rng(n).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / f"{n}.png").write_bytes(encode_image(Image(pixels)))
    return write(tmp_path, range(COUNT))


def write(folder: Path, numbers: range | list[int], **captions: str) -> Path:
    records = [{"id": n, "image": f"{n}.png", "caption": captions.get(f"n{n}", f"picture {n}")} for n in numbers]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def job(path: Path, speaker: Processor, *tasks: str) -> Tokenizing:
    return Tokenizing(Reading(path, FORMATS["captions"]), Wanted("pairs", tasks), speaker.fingerprint)


def run(path: Path, speaker: Processor, *tasks: str, bad: float = 0.0) -> tuple[int, int]:
    """Chunks made and found."""
    work = job(path, speaker, *tasks)
    tokenize([work], path.parent / "store", bad, Speaker(speaker))
    return work.made, work.found


def test_the_store_holds_every_sample_as_the_processor_renders_it(pairs: Path, speaker: Processor) -> None:
    run(pairs, speaker)
    store = Store.open(pairs.parent / "store", speaker.fingerprint)
    assert len(store) == COUNT
    for n in range(COUNT):
        expected = speaker.sequence(Document((MediaFile(pairs.parent / f"{n}.png", "image"), Text(f"picture {n}"))))
        assert_array_equal(store[n].ids, expected.ids)
        assert_array_equal(store[n].loss, expected.loss)
        assert store.about(n)["id"] == f"pairs/{n}"


def test_a_picture_is_worded_for_every_task_that_is_asked_for(pairs: Path, speaker: Processor) -> None:
    run(pairs, speaker, "image to text", "text to image")
    store = Store.open(pairs.parent / "store", speaker.fingerprint)
    assert {name: len(numbers) for name, numbers in store.tasks().items() if "/" not in name} == {
        "image to text": COUNT,
        "text to image": COUNT,
    }
    picture = MediaFile(pairs.parent / "3.png", "image")
    for n, task in ((6, "image to text"), (7, "text to image")):
        assert store.about(n)["id"] == f"{task}:pairs/3"
        assert_array_equal(store[n].ids, speaker.sequence(worded(task, picture, Text("picture 3"))).ids)


@pytest.mark.parametrize("task", TEMPLATES)
def test_a_medium_that_stands_first_is_input(task: str) -> None:
    medium, text = MediaFile(Path("x"), task.split()[0]), Text("words")
    if medium.modality == "text":
        medium = MediaFile(Path("x"), task.split()[2])
    document = worded(task, medium, text)
    first = document.parts.index(medium) < document.parts.index(text)
    assert document.inputs == ({document.parts.index(medium)} if task.split()[0] != "text" else set())
    assert first == (task.split()[0] != "text") or medium.modality == "video"


class Killed(Exception):
    pass


class Mortal(Speaker):
    """Makes so many chunks and no more."""

    def __init__(self, processor: Processor, left: int) -> None:
        super().__init__(processor)
        self.left = left

    def make(self, work: Work) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        super().make(work)


def test_a_run_that_is_killed_goes_on_where_it_was_and_ends_with_the_same_bytes(
    pairs: Path, speaker: Processor
) -> None:
    run(pairs, speaker)
    whole = {p.name: p.read_bytes() for p in (pairs.parent / "store").iterdir()}
    other = pairs.parent / "other"
    for stop in (0, 1, 0):
        with pytest.raises(Killed):
            tokenize([job(pairs, speaker)], other, 0.0, Mortal(speaker, stop))
    work = job(pairs, speaker)
    tokenize([work], other, 0.0, Speaker(speaker))
    assert (work.made, work.found) == (2, 1)
    assert {p.name: p.read_bytes() for p in other.iterdir()} == whole


def test_only_what_is_new_or_changed_is_made(pairs: Path, speaker: Processor) -> None:
    assert run(pairs, speaker) == (3, 0)
    assert run(pairs, speaker) == (0, 3)
    write(pairs.parent, range(COUNT - 3))  # fewer records: the last chunks go
    assert run(pairs, speaker) == (0, 2)
    assert len(list((pairs.parent / "store.parts").iterdir())) == 2
    write(pairs.parent, [*range(COUNT - 3), 9, 10])  # one more chunk
    assert run(pairs, speaker) == (1, 2)
    write(pairs.parent, [*range(COUNT - 3), 9, 10], n5="other words")
    assert run(pairs, speaker) == (1, 2)
    (pairs.parent / "0.png").write_bytes((pairs.parent / "1.png").read_bytes())
    assert run(pairs, speaker) == (1, 2)
    store = Store.open(pairs.parent / "store", speaker.fingerprint)
    assert (len(store), store.about(5)["id"]) == (10, "pairs/5")
    assert "other words" in speaker.text.decode(store[5].ids[store[5].ids < speaker.text.size].tolist())


def test_a_record_that_was_mended_costs_its_own_chunk_only(pairs: Path, speaker: Processor) -> None:
    whole = pairs.read_text()
    pairs.write_text(whole.replace('{"id": 1,', "{,"))
    assert run(pairs, speaker, bad=0.1) == (3, 0)
    pairs.write_text(whole)
    assert run(pairs, speaker) == (1, 2)


def test_a_medium_that_cannot_be_read_costs_its_record_and_is_named_each_time(pairs: Path, speaker: Processor) -> None:
    (pairs.parent / "6.png").write_bytes(b"no picture")
    for made in (3, 0):
        with pytest.raises(DataError, match="1 of 11"):
            run(pairs, speaker)
        assert not (pairs.parent / "store").exists()
        work = job(pairs, speaker)
        tokenize([work], pairs.parent / "fine", 0.1, Speaker(speaker))
        assert [f.line for f in work.reading.faults] == [7]
        assert made in (3, work.made)
    store = Store.open(pairs.parent / "fine", speaker.fingerprint)
    assert [store.about(n)["id"] for n in range(len(store))] == [f"pairs/{n}" for n in range(COUNT) if n != 6]


def test_a_stage_reads_a_store_that_was_made_of_files(
    pairs: Path, speaker: Processor, capsys: pytest.CaptureFixture[str]
) -> None:
    write(pairs.parent, range(COUNT), n4="word " * 200)  # longer than the window
    run(pairs, speaker, "image to text", "text to image")
    slots = {"reading": Slot(3, {"image to text": 1.0}), "drawing": Slot(1, {"text to image": 1.0})}
    stage = Stage("mine", str(pairs.parent / "store"), {}, Fit(8, parts=4), tokens=128, slots=slots)
    recipe = replace(tiny(), stages=(stage,), rows=ROWS, backbone=replace(tiny().backbone, positions=128))
    loader = planned(Run(recipe, Path(), pairs.parent / "run"), 0, speaker)
    ids = [loader.ids(number) for number in range(len(loader.plan))]
    assert len(ids) == 32
    for number, pack in enumerate(ids):
        assert {id.partition(":")[0] for id in pack} == {"text to image" if number % 4 == 1 else "image to text"}
    assert not any("pairs/4" in id for pack in ids for id in pack)
    assert "left out samples longer than 128 ids: 1 of image to text/pairs" in capsys.readouterr().err


def test_a_sample_that_is_no_pair_is_none_for_a_task(pairs: Path, speaker: Processor) -> None:
    with pytest.raises(DataError, match="11 of 11"):
        run(pairs, speaker, "speech to text")


def test_the_command_makes_a_store_and_counts_it(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fabricate_model(tmp_path / "model")
    (tmp_path / "6.png").write_bytes(b"no picture")
    words = [
        "data",
        "tokenize",
        str(pairs),
        "-o",
        str(tmp_path / "store"),
        "--format",
        "captions",
        "--model",
        str(model),
    ]
    assert main([*words, "--json", "--task", "image to text", "--max-bad-fraction", "0.1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["samples"], facts["bad"], facts["chunks made"]) == (COUNT - 1, 1, 3)
    assert main(["data", "stats", str(tmp_path / "store"), "--model", str(model), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert [(row["task/source"], row["samples"]) for row in stats["sources"]] == [("image to text/pairs", COUNT - 1)]
    assert {row["modality"]: row["tokens"] for row in stats["modalities"]}["image"] == 8 * (COUNT - 1)
    assert main([*words, "--quarantine", str(tmp_path / "bad.jsonl")]) == 3
    assert json.loads((tmp_path / "bad.jsonl").read_text())["line"] == 7
    assert main([*words, "--task", "a", "--task", "image to text"]) == 2
    assert main([*words, "--max-bad-fraction", "1.5"]) == 2
