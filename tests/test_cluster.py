"""Chunks on Ray Data: the bytes are those of one process, also when workers die; what fails always ends the run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fabricate import fabricate_model

from mio.cli.arguments import Arguments
from mio.cli.datafiles import speaker_and_witnesses
from mio.data import tokenize as module
from mio.data.cluster import Cluster
from mio.data.keep import Keep
from mio.data.listing import DataSet
from mio.data.tokenize import Speaker, Work, alone, tokenize
from mio.media import encode_image
from mio.types import DataError, Image

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own warnings are not ours
ray = pytest.importorskip("ray")
COUNT = 24


@pytest.fixture(scope="module")
def started() -> Iterator[None]:
    """A local one of two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_model(tmp_path_factory.mktemp("cluster") / "model")


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Pictures with captions, one of them too long and one damaged; six chunks of four records."""
    monkeypatch.setattr(module, "CHUNK", 4)
    for n in range(COUNT):
        pixels = np.random.default_rng(n).integers(0, 256, (16, 16 if n % 7 else 80, 3), dtype=np.uint8)
        (tmp_path / f"{n}.png").write_bytes(encode_image(Image(pixels)))
    (tmp_path / "5.png").write_bytes(b"no picture")
    lines = [json.dumps({"image": f"{n}.png", "caption": f"picture {n}"}) for n in range(COUNT)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    return DataSet("pairs", ("pairs.jsonl",), "captions", keep=Keep(aspect=2))


@dataclass
class Frail:
    """A speaker that dies, or fails, on the first chunk that it sees of those that no mark says it has seen."""

    speaker: Speaker
    marks: Path
    dies: bool

    def make(self, work: Work) -> None:
        mark = self.marks / work.part.name
        if not mark.exists() and len(list(self.marks.iterdir())) < 2:
            mark.touch()
            if self.dies:
                os._exit(1)
            raise OSError("a passing trouble")
        self.speaker.make(work)


def frail(model: Path, marks: Path, dies: bool) -> Frail:
    return Frail(speaker_and_witnesses(Arguments(model=model)), marks, dies)


class Broken:
    def make(self, work: Work) -> None:
        raise OSError("a lasting trouble")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dies", [True, False])
def test_many_workers_write_what_one_process_writes_whatever_befalls_them(
    started: None, model: Path, pairs: DataSet, tmp_path: Path, dies: bool
) -> None:
    speaker = speaker_and_witnesses(Arguments(model=model))
    name = speaker.processor.fingerprint
    tokenize(pairs.jobs(tmp_path, name), tmp_path / "one", 0.1, alone(speaker))
    marks = tmp_path / "marks"
    marks.mkdir()
    engine = Cluster(partial(frail, model, marks, dies), 2).engine()  # type: ignore[arg-type]
    tokenize(pairs.jobs(tmp_path, name), tmp_path / "many", 0.1, engine)
    assert list(marks.iterdir())
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_a_chunk_that_always_fails_ends_the_run_by_name(
    started: None, model: Path, pairs: DataSet, tmp_path: Path
) -> None:
    name = speaker_and_witnesses(Arguments(model=model)).processor.fingerprint
    engine = Cluster(Broken, 2, tries=2).engine()  # type: ignore[arg-type]
    with pytest.raises(DataError, match="6 chunks failed 2 times; records 1 to 4: OSError: a lasting trouble"):
        tokenize(pairs.jobs(tmp_path, name), tmp_path / "none", 0.1, engine)
    assert not (tmp_path / "none").exists()
