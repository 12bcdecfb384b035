"""evals/tokenizers.py: a tokenizer that loses nothing has perfect marks, one that loses everything has none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fabricate import fabricate_model

from mio.cli import main
from mio.cli.report_card import named
from mio.data.sources import Item
from mio.evals.exhibits import Exhibits, exhibits
from mio.evals.kinds import KINDS, one_length, same_frames
from mio.evals.metrics.statistics import Score
from mio.evals.page import page
from mio.evals.tokenizers import (
    ORIGINAL,
    Line,
    Sheet,
    Trial,
    _kept,
    label,
    markdown,
    measured,
    original,
    rows,
    shown_score,
)
from mio.media import resize
from mio.types import Audio, Codes, Image, MediaFile, Modality, Text, Video

SIDE = 16
PIXELS = Modality("image", 1, 256, SIDE * SIDE * 3)
LEVELS = Modality("speech", 2, 4, 0, rate=10.0)


@dataclass
class Pixels:
    """Every number of a 16 x 16 picture is a code; `step` rounds them."""

    step: int = 1
    modality: Modality = PIXELS

    def encode(self, media: Sequence[Image]) -> list[Codes]:
        return [resize(m, SIDE).pixels.reshape(1, 1, -1).astype(np.int64) // self.step * self.step for m in media]

    def decode(self, codes: Sequence[Codes]) -> list[Image]:
        return [Image(c.reshape(SIDE, SIDE, 3).astype(np.uint8)) for c in codes]

    def fingerprint(self) -> str:
        return str(self.step)


@pytest.fixture(scope="module")
def shown() -> Exhibits:
    """Squares, to the left or to the right, of any colour."""
    rng = np.random.default_rng(0)

    def made(count: int) -> tuple[tuple[Item, ...], tuple[Image, ...]]:
        items, media = [], []
        for n in range(count):
            side = ("left", "right")[n % 2]
            pixels = rng.integers(0, 40, (SIDE, SIDE, 3))
            pixels[4:12, 8 * (n % 2) : 8 * (n % 2) + 8] = rng.integers(100, 256, 3)
            items.append(Item(f"square/{n}", "digits", (Text(side),), str(n), "CC0-1.0"))
            media.append(Image(pixels.astype(np.uint8)))
        return tuple(items), tuple(media)

    return Exhibits("image", *made(20), *made(40))


def scores(sheet: Sheet) -> dict[str, float]:
    return {line.what: line.score.value for line in sheet.lines}


def test_what_loses_nothing_has_perfect_marks(shown: Exhibits) -> None:
    tokenizer = Pixels()
    found, real = scores(measured("exact", tokenizer, tokenizer.modality, shown)), scores(original(shown))
    assert found["PSNR"] == 100 and found["SSIM"] == pytest.approx(1)
    assert found["perceptual distance (random network)"] == pytest.approx(0, abs=1e-9)
    assert found["Fréchet distance (random network)"] == pytest.approx(0, abs=1e-6)
    assert found["codes kept by encode(decode(c))"] == 1
    recognised = "handwritten digit (chance 50%): recognised in the medium"
    assert found[recognised] == real[recognised] == 1


def test_codes_alone_tell_what_they_hold(shown: Exhibits) -> None:
    found = scores(measured("rough", Pixels(64), PIXELS, shown))
    assert found["handwritten digit (chance 50%): linear probe on codes"] == 1
    blank = scores(measured("blank", Pixels(256), PIXELS, shown))
    assert blank["handwritten digit (chance 50%): linear probe on codes"] == 0.5


def test_costs_are_counted(shown: Exhibits) -> None:
    found = scores(measured("rough", Pixels(64), PIXELS, shown))
    assert found["tokens per picture"] == SIDE * SIDE * 3
    assert found["bits per picture"] == SIDE * SIDE * 3 * 8
    assert found["codebook 0: codes used"] == 4 / 256
    assert 0 < found["bits per picture, by how often codes occur"] <= SIDE * SIDE * 3 * 2
    assert found["encoding"] > 0 and found["decoding"] > 0


def test_coarser_codes_are_worse_by_every_measure_of_what_survives(shown: Exhibits) -> None:
    fine, coarse = (measured("", Pixels(step), PIXELS, shown).lines for step in (8, 96))
    for a, b in zip(fine, coarse, strict=True):
        if a.group == "reconstruction" and "kept" not in a.what:
            assert a.sign * a.score.value > b.sign * b.score.value, a.what


@dataclass
class Levels:
    """Speech in two codebooks: the first is the label's number, the second the speaker's."""

    shown: Exhibits
    modality: Modality = LEVELS

    def encode(self, media: Sequence[Audio]) -> list[Codes]:
        whole = [*self.shown.media, *self.shown.known_media]
        items = [*self.shown.items, *self.shown.known]
        found = [items[next(n for n, w in enumerate(whole) if len(w.samples) == len(m.samples))] for m in media]
        return [np.array([[[int(i.meta["label"])] * 5, [int(i.meta["speaker"])] * 5]]) for i in found]

    def decode(self, codes: Sequence[Codes]) -> list[Audio]:
        return list(self.shown.media[: len(codes)])

    def fingerprint(self) -> str:
        return ""


def test_what_the_first_codebook_tells_of_the_speaker_is_a_fault() -> None:
    rng = np.random.default_rng(0)

    def made(first: int, count: int) -> tuple[tuple[Item, ...], tuple[Audio, ...]]:
        numbers = range(first, first + count)
        meta = [{"label": n % 2, "speaker": str(n // 2 % 2)} for n in numbers]
        items = (Item(str(n), "fsdd", (Text(f"{m['label']}"),), "", "", m) for n, m in zip(numbers, meta, strict=True))
        return tuple(items), tuple(Audio(rng.normal(0, 0.1, 4000 + n).astype(np.float32), 16000) for n in numbers)

    shown = Exhibits("speech", *made(0, 12), *made(100, 40))
    lines = {line.what: line for line in measured("levels", Levels(shown), LEVELS, shown).lines}
    word, speaker = "spoken digit (chance 50%)", "speaker (chance 50%)"
    for what, sign, value in ((word, 1, 1.0), (speaker, -1, 0.5)):
        for measure in ("linear probe on codebook 0", "purity of codebook 0"):
            assert lines[f"{what}: {measure}"].sign == sign
            assert lines[f"{what}: {measure}"].score.value == value
    assert lines[f"{speaker}: linear probe on codes"].score.value == 1


def test_sounds_are_compared_at_one_rate_and_length() -> None:
    a, b = one_length(Audio(np.ones(8000, np.float32), 8000), Audio(np.ones(15000, np.float32), 16000))
    assert len(a.samples) == len(b.samples) == 15000 and a.rate == b.rate == 16000


def test_a_measure_that_fits_no_pair_is_left_out() -> None:
    stoi = next(m for m in KINDS["speech"].measures if m.what.startswith("STOI"))
    rng = np.random.default_rng(0)
    short, long = (Audio(rng.normal(0, 0.1, n).astype(np.float32), 16000) for n in (3000, 16000))
    assert stoi.of([(short, short)]) is None
    score = stoi.of([(short, short), (long, long)])
    assert score is not None and score.n == 1 and score.value == pytest.approx(1)


def test_one_medium_of_a_kind_is_measured_by_what_needs_no_second() -> None:
    rng = np.random.default_rng(0)
    picture, sound = Image(np.full((16, 16, 3), 9, np.uint8)), Audio(rng.normal(0, 0.1, 9000).astype(np.float32), 16000)
    for kind, medium, left_out in (("image", picture, "Fréchet"), ("speech", sound, "speaker")):
        for measure in KINDS[kind].measures:
            assert (measure.of([(medium, medium)]) is None) == measure.what.startswith(left_out)


@dataclass
class Short(Pixels):
    """Loses the last row of a picture."""

    def encode(self, media: Sequence[Image]) -> list[Codes]:
        return [m.pixels[:, :SIDE].reshape(1, 1, -1).astype(np.int64) for m in media]

    def decode(self, codes: Sequence[Codes]) -> list[Image]:
        return [Image(c.reshape(-1, SIDE, 3)[: SIDE - 1].astype(np.uint8)) for c in codes]


def test_codes_of_decoders_that_cut_a_little_off_are_compared_as_far_as_they_go(shown: Exhibits) -> None:
    trial = Trial.of(Short(), PIXELS, shown)
    assert trial.codes[0].shape != trial.again[0].shape
    assert {_kept(c, again) for c, again in zip(trial.codes, trial.again, strict=True)} == {1.0}


def test_clips_are_compared_by_the_frames_that_were_chosen() -> None:
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    a, b = same_frames(Video(frames, 8.0), Video(np.zeros((3, 2, 2, 3), np.uint8), 4.0))
    assert a.frames[:, 0, 0, 0].tolist() == [0, 4, 8] and a.frames.shape == b.frames.shape


def test_probes_need_labels_that_both_splits_have(shown: Exhibits) -> None:
    assert [e.probe.what for e in shown.exams] == ["handwritten digit"]
    few = Exhibits("image", shown.items[:7], shown.media[:7], shown.known, shown.known_media)
    one = Exhibits("image", shown.items, shown.media, shown.known[::2], shown.known_media[::2])
    assert few.exams == [] and one.exams == []


def test_a_medium_that_cannot_be_read_costs_itself_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    item = Item("bad", "digits", (MediaFile(tmp_path / "bad.png", "image"),), "")
    assert exhibits("image", [], [item], 5).media == ()
    assert "bad.png" in capsys.readouterr().err


def sheets() -> list[Sheet]:
    def line(value: float, low: float) -> Line:
        return Line("reconstruction", "loss", "dB", -1, Score(value, 9, low, 2 * value))

    plain = Line("cost", "tokens", "", 0, Score(1824.2, 9, 1824.2, 1824.2))
    return [Sheet("a", "image", (plain, line(1.0, 0.5)), ()), Sheet("b", "image", (line(0.2, 0.1),), ())]


def test_rows_are_side_by_side_and_in_order() -> None:
    found = rows(sheets())
    assert [r["group"] for r in found] == ["reconstruction", "cost"]
    assert {n: s["value"] for n, s in found[0]["scores"].items()} == {"a": 1.0, "b": 0.2}
    assert label(found[0]) == "loss, dB ↓" and label(found[1]) == "tokens"
    assert markdown(sheets()) == [
        "| kind | measure | a | b |",
        "| --- | --- | --- | --- |",
        "| image | loss, dB ↓ | 1.00 (0.500 - 2.00) | 0.200 (0.100 - 0.400) |",
        "| image | tokens | 1,824 |  |",
    ]


def test_shares_are_shown_in_per_cent() -> None:
    assert shown_score({"value": 0.5, "low": 0.25, "high": 1.0}, "%") == "50.0 (25.0 - 100.0)"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_marks_the_best(shown: Exhibits) -> None:
    two = [measured(f"<{step}>", Pixels(step), PIXELS, shown) for step in (1, 64)]
    html = page({"data": "a & b"}, [shown], [original(shown), *two])
    tags = Tags(html).found
    pictures = [attrs for tag, attrs in tags if tag == "img"]
    assert len(pictures) == 3 * len(shown.examples()) == 6
    assert all((p["src"] or "").startswith("data:image/png;base64,") and p["alt"] for p in pictures)
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe"} and "http:" not in html
    assert "a &amp; b" in html and "&lt;1&gt;" in html and "<1>" not in html
    assert "<td class=best>100 <small>" in html and html.count("$") == 0


def test_the_command_measures_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = fabricate_model(tmp_path / "made")
    code = main(["eval", "tokenizer", str(model), "-n", "30", "-o", str(tmp_path / "card"), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and Path(document["page"]).is_file()
    assert {r["kind"] for r in document["rows"]} == set(KINDS)
    names = {name for r in document["rows"] for name in r["scores"]}
    assert names == {ORIGINAL, "made"}
    assert json.loads((tmp_path / "card" / "report.json").read_text())["rows"] == document["rows"]


def test_columns_are_named_after_models_and_runs_and_by_path_where_names_are_the_same() -> None:
    sources = [Path("runs/a/model"), Path("runs/b"), Path("tiny"), Path("old/tiny")]
    assert [name for _, name in named(sources)] == ["a", "b", "tiny", "old/tiny"]


def test_a_folder_without_tokenizers_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "tokenizer", str(tmp_path)]) == 4
    assert str(tmp_path) in capsys.readouterr().err
