"""train/watch.py: codebook health over several batches, samples beside the states, and a training none the wiser."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from toys import Net, Toy, run, toy, weights

from mio.cli import main
from mio.media import read_audio, read_image
from mio.tokenizers.quantizers import Quantized
from mio.train.watch import Samples, Watch, write_pictures, write_sounds
from mio.types import Audio, Codes, Image, Modality


def quantized(*rows: list[int], size: int = 4) -> Quantized:
    return Quantized(torch.zeros(1), torch.tensor(rows), {}, (size,) * len(rows))


def test_health_is_that_of_the_last_batches_of_every_codebook() -> None:
    watch = Watch(batches=2)
    watch.add(quantized([3, 3], [3, 3]))
    watch.add(quantized([0, 0], [0, 1]))
    found = {k: float(v) for k, v in watch.add(quantized([1, 1], [2, 3])).items()}
    assert found == pytest.approx({"usage0": 0.5, "perplexity0": 2.0, "usage1": 1.0, "perplexity1": 4.0})


def test_a_collapse_is_named_once_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(batches=2)
    for row in ([1, 1], [1, 1], [1, 1], [0, 3], [1, 1], [1, 1]):
        watch.add(quantized(row))
    assert (
        capsys.readouterr().err.splitlines()
        == ["codebook 0 collapsed: 1 of 4 codes used, perplexity 1.0 in the last 2 batches"] * 2
    )


def test_pictures_stand_above_their_reconstructions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)) for _ in range(6)]
    write_pictures(pictures[:3], pictures[3:], tmp_path / "x")
    sheet = read_image(tmp_path / "x.png").pixels
    assert sheet.shape == (8, 12, 3)
    assert np.array_equal(sheet[:4, 4:8], pictures[1].pixels) and np.array_equal(sheet[4:, 8:], pictures[5].pixels)


def test_sounds_come_before_their_reconstructions(tmp_path: Path) -> None:
    first, second = (Audio(np.full(n, level, np.float32), 8000) for n, level in ((800, 0.25), (1600, 0.5)))
    write_sounds([first], [second], tmp_path / "x", gap=0.1)
    heard = read_audio(tmp_path / "x.wav")
    assert heard.rate == 8000 and len(heard.samples) == 800 + 800 + 1600 + 800
    assert heard.samples[400] == pytest.approx(0.25, abs=1e-3) and heard.samples[2000] == pytest.approx(0.5, abs=1e-3)
    assert not heard.samples[900:1500].any()


@dataclass
class Negative:
    """Pictures <-> all their numbers; decodes to the negative."""

    modality: Modality = field(default_factory=lambda: Modality("image", 1, 256, 12))

    def encode(self, media: list[Image]) -> list[Codes]:
        return [m.pixels.reshape(1, 1, -1).astype(np.int64) for m in media]

    def decode(self, codes: list[Codes]) -> list[Image]:
        return [Image((255 - c).astype(np.uint8).reshape(2, 2, 3)) for c in codes]

    def fingerprint(self) -> str:
        return ""


def test_samples_go_through_the_tokenizer_as_it_is(tmp_path: Path) -> None:
    picture = Image(np.full((2, 2, 3), 5, np.uint8))
    Samples(Negative(), [picture], write_pictures).show(tmp_path, 40)
    sheet = read_image(tmp_path / "samples" / "00000040.png").pixels
    assert sheet[:2].max() == 5 and sheet[2:].min() == 250


@dataclass
class ShowingToy(Toy):
    shown: list[tuple[int, bool]] = field(default_factory=list)

    def show(self, folder: Path, step: int) -> None:
        self.shown.append((step, self.module.training))
        torch.rand(7)  # chance that it uses is its own affair


def test_whoever_shows_is_asked_at_every_state_and_learns_the_same(tmp_path: Path) -> None:
    plain = run(toy(), tmp_path / "plain")
    torch.manual_seed(3)
    showing = ShowingToy(Net())
    run(showing, tmp_path / "showing")
    assert showing.shown == [(5, False), (10, False), (12, False)]
    assert_close(weights(showing), weights(plain), rtol=0, atol=0)


def test_one_command_trains_one_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train-tokenizer", "text", "tiny", "--out", str(tmp_path / "a"), "--set", "text.size=400", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["stages"] == ["text"]
    before = (tmp_path / "a" / "text" / "tokenizer.json").stat().st_mtime_ns
    assert main(words) == 0  # finished: not done again
    assert (tmp_path / "a" / "text" / "tokenizer.json").stat().st_mtime_ns == before


def test_there_is_no_tokenizer_of_clips_to_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-tokenizer", "video", "tiny"]) == 2
    assert "image" in capsys.readouterr().err
