"""Networks of others judge media: equal media agree fully, none scores nothing, and nobody judges unnamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate_witnesses import fabricate_witnesses
from transformers import CLIPImageProcessorPil, CLIPModel

from mio.checkpoint import sha256
from mio.evals.benchmarks.items import Item
from mio.evals.scoring import METRICS, Answer
from mio.evals.witnesses import Witnesses
from mio.media import read_audio, read_image, write_audio, write_image
from mio.types import Audio, Image, MediaFile, MissingError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Witnesses, two pictures and two sounds."""
    folder, rng = fabricate_witnesses(tmp_path_factory.mktemp("witnesses")), np.random.default_rng(0)
    for name in "ab":
        write_image(Image(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)), folder / f"{name}.png")
        write_audio(Audio(rng.normal(0, 0.1, 8000).astype(np.float32), 16000), folder / f"{name}.wav")
    return folder


def pairs(folder: Path, kind: str, suffix: str) -> list[tuple[Answer, Item]]:
    """The right medium, another one, and none."""
    right = Item("x", (), ("a b",), shown=(MediaFile(folder / f"a{suffix}", kind),))
    return [(Answer("x", files=files), right) for files in ((f"{folder}/a{suffix}",), (f"{folder}/b{suffix}",), ())]


@pytest.mark.parametrize(
    ("metric", "kind", "suffix"), [("CLIP-I", "image", ".png"), ("speaker similarity", "speech", ".wav")]
)
def test_likeness_is_one_for_the_same_medium_and_nothing_for_none(
    folder: Path, metric: str, kind: str, suffix: str
) -> None:
    points = METRICS[metric].points(pairs(folder, kind, suffix), Witnesses(folder))
    assert points[:, 1].tolist() == [1, 1, 1]
    assert points[0, 0] == pytest.approx(1) and -1 <= points[1, 0] < 0.9999 and points[2, 0] == 0


def test_a_picture_is_compared_with_words_as_clip_itself_does(folder: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    made = pairs(folder, "image", ".png")
    model, processor = CLIPModel.from_pretrained(folder / "clip"), CLIPProcessor.from_pretrained(folder / "clip")
    given = processor(text=["a b"], images=read_image(folder / "a.png").pixels, return_tensors="pt")
    theirs = (model(**given).logits_per_image[0, 0] / model.logit_scale.exp()).item()
    points = METRICS["CLIP-T"].points(made, Witnesses(folder))
    assert points[0, 0] == pytest.approx(theirs, abs=1e-5) and points[2].tolist() == [0, 1]


def test_beauty_is_a_line_in_unit_embeddings(folder: Path) -> None:
    """The head's weights are ones and its bias is 5, so a mark is 5 plus the sum of the unit embedding."""
    witnesses = Witnesses(folder)
    seen = witnesses.sees([read_image(folder / "a.png")])[0]
    points = METRICS["aesthetic"].points(pairs(folder, "image", ".png"), witnesses)
    assert points[0, 0] == pytest.approx((5 + seen.sum() / np.linalg.norm(seen)) / 10) and points[2, 0] == 0


def test_error_rates_are_of_what_is_heard(folder: Path) -> None:
    """A listener who hears "aaaaaaaa" in noise has one word wrong and misses one; silence loses both."""
    witnesses = Witnesses(folder)
    heard = witnesses.hears([read_audio(folder / "a.wav"), None])
    points = METRICS["heard WER"].points(pairs(folder, "speech", ".wav"), witnesses)
    assert heard[1] == "" and set(heard[0]) == {"a"}
    assert points.tolist() == [[2, 2], [2, 2], [2, 2]] and not METRICS["heard WER"].higher


def test_a_witness_is_known_by_its_weights(folder: Path) -> None:
    assert Witnesses(folder).known_as("clip") == f"clip {sha256(folder / 'clip' / 'model.safetensors')[:16]}"


def test_nobody_judges_who_is_not_there(tmp_path: Path) -> None:
    for nobody in (Witnesses(), Witnesses(tmp_path)):
        assert not nobody.has("clip")
        with pytest.raises(MissingError, match="no clip"):
            nobody.sees([])


def test_a_text_fits_a_picture_as_clip_itself_says(folder: Path) -> None:
    picture = read_image(folder / "a.png")
    whole = CLIPModel.from_pretrained(folder / "clip").eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder / "clip")(images=picture.pixels, return_tensors="pt")
    ids = torch.tensor([[1, 3, 4, 2]])  # begin, a, b, end
    with torch.inference_mode():
        logits = whole(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits_per_image
        expected = float(logits / whole.logit_scale.exp())
    assert Witnesses(folder).fits(picture, "a b") == pytest.approx(expected, abs=1e-5)
