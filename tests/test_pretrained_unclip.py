"""pretrained/unclip.py: a stock unCLIP folder draws what SEED-2's codes stand for, the same for the same seed."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from fabricate_media import SEED, fabricate_seed, fabricate_speech, fabricate_unclip
from numpy.testing import assert_array_equal

from mio.pretrained.seed import load_seed
from mio.pretrained.speech import load_speech
from mio.pretrained.unclip import UnClip, UnClipConfig
from mio.tokenizers.seed import Decoded, SeedTokenizer
from mio.types import DataError, Image, MissingError, Modality

ROW = Modality("image", 1, SEED.codebook_size, SEED.queries, "<image>", "</image>", "<img{}>")
SHORT = UnClipConfig(steps=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three media folders of a released model."""
    folder = tmp_path_factory.mktemp("models")
    fabricate_seed(folder / "seed-tokenizer-2")
    fabricate_speech(folder / "SpeechTokenizer")
    fabricate_unclip(folder / "stable-diffusion-2-1-unclip")
    return folder


@pytest.fixture(scope="module")
def folder(models: Path) -> Path:
    return models / "stable-diffusion-2-1-unclip"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return copytree(folder, tmp_path / "unclip")


def decoded(count: int = 2) -> Decoded:
    return Decoded(torch.zeros(count, SEED.queries, SEED.width), 3 * torch.randn(count, SEED.embedding))


def test_the_same_seed_draws_the_same_pixels_and_another_one_others(folder: Path) -> None:
    embeddings = decoded()
    pixels = UnClip(folder, config=SHORT)(embeddings)
    assert (pixels.shape, pixels.dtype) == ((2, 3, 16, 16), torch.float32)
    assert 0 <= pixels.min() < pixels.max() <= 1
    assert (pixels[0] != pixels[1]).any()
    assert torch.equal(UnClip(folder, config=SHORT)(embeddings), pixels)
    assert not torch.equal(UnClip(folder, config=UnClipConfig(steps=2, seed=1))(embeddings), pixels)


def test_an_image_is_drawn_alone_as_in_company(folder: Path) -> None:
    render, embeddings = UnClip(folder, config=SHORT), decoded(3)
    last = Decoded(embeddings.latents[2:], embeddings.embedding[2:])
    assert torch.equal(render(embeddings)[2:], render(last))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_weights_draw_nearly_the_same(folder: Path, dtype: torch.dtype) -> None:
    embeddings = decoded(1)
    pixels = UnClip(folder, dtype, SHORT)(embeddings)
    assert pixels.dtype == torch.float32
    assert (pixels - UnClip(folder, config=SHORT)(embeddings)).abs().mean() < 0.05


def test_the_unet_is_called_as_the_release_calls_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import UNet2DConditionModel

    calls: list[dict[str, Any]] = []
    forward = UNet2DConditionModel.forward

    def spy(unet: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append({"sample": sample.clone(), **kwargs})
        return forward(unet, sample, *args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", spy)
    embeddings = decoded(1)
    UnClip(folder)(embeddings)
    assert len(calls) == 21  # 20 steps of PNDM, which takes its second one twice
    empty, given = calls[0]["class_labels"]
    assert not empty.any()  # guidance: zeros in the place of embedding and noise level
    embedding, level = given.chunk(2)
    assert (embedding - embeddings.embedding[0]).abs().max() < 0.5  # level 0 still adds a little noise
    assert torch.equal(level, torch.tensor([1.0, 0.0]).repeat_interleave(SEED.embedding // 2))  # cosines, sines of 0
    without, prompted = calls[0]["encoder_hidden_states"]
    assert torch.equal(without, prompted)  # the prompt is empty
    assert torch.equal(*calls[0]["sample"])


def test_codes_become_pictures_through_the_tokenizer(models: Path, folder: Path) -> None:
    network, _ = load_seed(models / "seed-tokenizer-2")
    tokenizer = SeedTokenizer(network, ROW, UnClip(folder, config=SHORT))
    image = Image(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    codes = tokenizer.encode([image, image])
    first, second = tokenizer.decode(codes)
    assert (first.pixels.shape, first.pixels.dtype) == ((16, 16, 3), np.uint8)
    assert_array_equal(first.pixels, second.pixels)


def test_it_loads_at_the_first_call_and_can_be_let_go(folder: Path) -> None:
    render, embeddings = UnClip(folder, config=SHORT), decoded(1)
    assert not render.loaded
    before = render(embeddings)
    render.release()
    assert not render.loaded
    assert torch.equal(render(embeddings), before)


# ------------------------------------------------------------------------------------------------ what is missing


def test_without_diffusers_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingError, match="need diffusers") as error:
        UnClip(folder)(decoded(1))
    assert 'pip install "mio[hf]"' in error.value.fix


def test_without_the_folder_every_missing_part_is_named(tmp_path: Path) -> None:
    parts = r"model_index\.json, image_normalizer \(9 kB\), text_encoder \(1\.4 GB\), unet \(3\.5 GB\), vae \(335 MB\)"
    with pytest.raises(MissingError, match=f"unclip lacks {parts}") as error:
        UnClip(tmp_path / "unclip")(decoded(1))
    assert error.value.at == str(tmp_path / "unclip")


def test_a_part_without_weights_is_named(copied: Path) -> None:
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"unclip lacks unet \(3\.5 GB\)\."):
        UnClip(copied)(decoded(1))


def test_half_precision_files_are_read_where_there_are_no_others(copied: Path, folder: Path) -> None:
    for path in [*copied.rglob("*.safetensors")]:
        path.rename(path.with_suffix(".fp16.safetensors"))
    embeddings = decoded(1)
    assert torch.equal(UnClip(copied, config=SHORT)(embeddings), UnClip(folder, config=SHORT)(embeddings))


def test_a_damaged_part_is_refused(copied: Path) -> None:
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be loaded"):
        UnClip(copied)(decoded(1))


@pytest.mark.parametrize("changes", [{"_class_name": ["mine", "Pipeline"]}, {"unet": ["mine", "UNet2DConditionModel"]}])
def test_a_folder_that_asks_for_code_of_its_own_is_refused(copied: Path, changes: dict[str, object]) -> None:
    index = copied / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    with pytest.raises(DataError, match="code beyond diffusers and transformers"):
        UnClip(copied)(decoded(1))


# ------------------------------------------------------------------------------------------------ offline


def no_network(*args: object, **kwargs: object) -> None:
    raise AssertionError("the network was asked")


def test_the_media_tokenizers_work_without_a_network_and_from_anywhere(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.chdir(tmp_path)
    network, _ = load_seed(models / "seed-tokenizer-2")
    codes = network.encode(torch.randn(1, 3, SEED.image_size, SEED.image_size))
    render = UnClip(models / "stable-diffusion-2-1-unclip", config=SHORT)
    assert render(network.decode(codes)).shape == (1, 3, 16, 16)
    assert load_speech(models / "SpeechTokenizer").encode(torch.randn(1, 320)).shape == (8, 1, 1)
