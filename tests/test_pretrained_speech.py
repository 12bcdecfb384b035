"""pretrained/speech.py: the released file becomes our network, strictly; SEANet is EnCodec's on equal weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import soundfile
import torch
from fabricate_media import RELEASED_SPEECH, SPEECH, fabricate_speech, fabricate_trap, parametrised
from numpy.testing import assert_array_equal
from torch import Tensor, nn
from torch.testing import assert_close

from mio.media import read_audio
from mio.pretrained.speech import ReleasedConfig, load_speech
from mio.tokenizers.speech import SpeechConfig, SpeechNetwork, SpeechTokenizer, resample
from mio.train.speech import distill_over_time
from mio.types import Audio, DataError, MioError, MissingError, Modality

FILE = "SpeechTokenizer.pt"
ROW = Modality("speech", 4, 32, 0, "<spch>", "</spch>", "<spch{}>", "content", "sequential", rate=50.0)


@pytest.fixture(scope="module")
def released_speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SpeechNetwork]:
    """A folder as published, and the network that its file holds."""
    folder = tmp_path_factory.mktemp("models") / "SpeechTokenizer"
    return folder, fabricate_speech(folder)


@pytest.fixture
def copied(released_speech: tuple[Path, SpeechNetwork], tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return copytree(released_speech[0], tmp_path / "speech")


def change(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = torch.load(path, weights_only=True)
    edit(tensors)
    torch.save(tensors, path)


def configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------------------------------------ what is right


def test_the_released_file_loads_and_gives_the_same_codes_and_samples(
    released_speech: tuple[Path, SpeechNetwork],
) -> None:
    folder, expected = released_speech
    network, x = load_speech(folder), torch.randn(2, 5000)
    codes = network.encode(x)
    assert len(codes.unique()) > 8
    assert torch.equal(codes, expected.encode(x))
    for levels in range(1, 9):
        assert torch.equal(network.decode(codes[:levels]), expected.decode(codes[:levels]))
    assert not network.training


def test_the_released_file_holds_166_tensors_of_481_844_008_bytes() -> None:
    with torch.device("meta"):
        state = SpeechNetwork(SpeechConfig()).state_dict()
    assert len(state) == 166
    assert sum(t.numel() * t.element_size() for t in state.values()) == 481_844_008


def test_torchs_newer_names_of_weight_norm_are_the_same_network(
    released_speech: tuple[Path, SpeechNetwork], tmp_path: Path
) -> None:
    fabricate_speech(tmp_path / "newer", newer=True)
    found = torch.load(tmp_path / "newer" / FILE, weights_only=True)
    assert "decoder.model.3.convtr.convtr.parametrizations.weight.original0" in found
    assert not any(name.endswith("weight_g") for name in found)
    network, x = load_speech(tmp_path / "newer"), torch.randn(1, 2000)
    assert_array_equal(network.encode(x), released_speech[1].encode(x))


def test_the_released_configuration_is_our_default() -> None:
    shaping = {k: v for k, v in RELEASED_SPEECH.items() if k in ReleasedConfig.__dataclass_fields__}
    assert ReleasedConfig(**{**shaping, "strides": (8, 5, 4, 2)}).ours() == SpeechConfig()  # type: ignore[arg-type]


def test_any_size_is_read_from_the_configuration(tmp_path: Path) -> None:
    config = replace(SPEECH, strides=(4, 2), levels=3, lstm_layers=1, sample_rate=8000)
    network = fabricate_speech(tmp_path / "small", config)
    assert load_speech(tmp_path / "small").config == network.config


@pytest.mark.parametrize(("samples", "steps"), [(34_000, 107), (63_520, 199), (176_960, 553)])
def test_the_published_clips_have_the_published_lengths(
    released_speech: tuple[Path, SpeechNetwork], samples: int, steps: int
) -> None:
    tokenizer = SpeechTokenizer(load_speech(released_speech[0]), ROW)
    clip = Audio(np.random.default_rng(0).uniform(-1, 1, samples).astype(np.float32), 16000)
    (codes,) = tokenizer.encode([clip])
    assert codes.shape == (1, 4, steps)
    assert len(tokenizer.decode([codes])[0].samples) == 320 * steps


def test_a_stereo_file_of_integers_at_another_rate_is_its_mean_resampled(
    released_speech: tuple[Path, SpeechNetwork],
) -> None:
    channels = (np.random.default_rng(0).uniform(-0.5, 0.5, (22_050, 2)) * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, channels, 44_100, "PCM_16", format="WAV")
    mono = Audio((channels / 32768).mean(1).astype(np.float32), 44_100)
    tokenizer = SpeechTokenizer(load_speech(released_speech[0]), ROW)
    (codes,) = tokenizer.encode([read_audio(buffer.getvalue())])
    assert_array_equal(codes, tokenizer.encode([resample(mono, 16_000)])[0])
    assert codes.shape == (1, 4, 25)


def test_the_distillation_loss_by_hand() -> None:
    student = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # (1, T = 2, D = 2)
    teacher = torch.tensor([[[3.0, 4.0], [4.0, -3.0]]])
    cosines = torch.tensor([3 / 5, -3 / 5])  # over time: (1, 0) with (3, 4), and (0, 2) with (4, -3)
    expected = torch.log(1 + torch.exp(-cosines)).mean()
    assert_close(distill_over_time(student, teacher), expected)


# ------------------------------------------------------------------------------------------------ what is not


@pytest.mark.parametrize(
    "name",
    ["transform.bias", "quantizer.vq.layers.7._codebook.inited", "encoder.model.15.conv.conv.weight_g"],
)
def test_165_of_the_166_tensors_are_refused_by_the_name_that_is_missing(copied: Path, name: str) -> None:
    change(copied / FILE, lambda tensors: tensors.pop(name))
    with pytest.raises(DataError, match=rf"{name} missing \(1 faults\)"):
        load_speech(copied)


def test_a_tensor_more_is_refused_by_name(copied: Path) -> None:
    change(copied / FILE, lambda tensors: tensors.update({"encoder.model.16.alpha": torch.zeros(1)}))
    with pytest.raises(DataError, match=r"encoder\.model\.16\.alpha not expected"):
        load_speech(copied)


def test_a_tensor_of_another_shape_is_refused_by_name(copied: Path) -> None:
    change(copied / FILE, lambda tensors: tensors.update({"transform.bias": torch.zeros(13)}))
    with pytest.raises(DataError, match=r"transform\.bias is \(13,\) instead of \(12,\)"):
        load_speech(copied)


def test_a_weight_under_both_names_is_refused(copied: Path) -> None:
    change(copied / FILE, lambda tensors: tensors.update(parametrised(tensors)))
    with pytest.raises(DataError, match="weight_g there twice"):
        load_speech(copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation", "Snake"),
        ("bidirectional", False),
        ("dilation_base", 1),
        ("residual_kernel_size", 5),
        ("n_residual_layers", 2),
        ("n_filters", "64"),
    ],
)
def test_a_setting_that_our_network_does_not_carry_is_refused_by_name(copied: Path, key: str, value: object) -> None:
    configure(copied, **{key: value})
    with pytest.raises(MioError, match=rf"{key} (cannot|must) be"):
        load_speech(copied)


@pytest.mark.parametrize(("text", "fault"), [("{}", "lacks sample_rate, n_filters"), ("[]", "no mapping")])
def test_a_configuration_without_its_keys_is_refused(copied: Path, text: str, fault: str) -> None:
    (copied / "config.json").write_text(text)
    with pytest.raises(MioError, match=fault):
        load_speech(copied)


def test_a_file_that_would_run_code_is_refused_and_does_not_run(copied: Path, tmp_path: Path) -> None:
    fabricate_trap(copied / FILE, tmp_path / "sprung")
    with pytest.raises(DataError, match=f"{FILE} is no file of tensors"):
        load_speech(copied)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(copied: Path, share: float) -> None:
    whole = (copied / FILE).read_bytes()
    (copied / FILE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=FILE):
        load_speech(copied)


def test_missing_files_are_all_named_with_their_sizes(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"lacks SpeechTokenizer\.pt \(482 MB\), config\.json \(2 kB\)"):
        load_speech(tmp_path)


# ------------------------------------------------------------------------------------------------ another route


@pytest.fixture(scope="module")
def encodec() -> tuple[SpeechNetwork, nn.Module]:
    """Our network and transformers' EnCodec, non-causal, where both have the same weights; only our encoder's LSTM,
    which reads both ways, has no likeness there."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    ours = SpeechNetwork(SPEECH).eval().requires_grad_(False)
    for name, parameter in ours.named_parameters():
        if name.endswith(("weight_g", "bias")):
            parameter.normal_()
    config = EncodecConfig(
        use_causal_conv=False,
        num_filters=SPEECH.filters,
        upsampling_ratios=list(SPEECH.strides),
        hidden_size=SPEECH.dimension,
        codebook_dim=SPEECH.dimension,
        codebook_size=SPEECH.codebook_size,
        sampling_rate=SPEECH.sample_rate,
    )
    theirs = EncodecModel(config).eval()
    state = {k: v for k, v in encodec_names(ours.state_dict()).items() if "encoder.layers.15" not in k}
    found = theirs.load_state_dict(
        {k: v for k, v in state.items() if ".lstm." not in k or "decoder" in k}, strict=False
    )
    assert not found.unexpected_keys
    assert all(k.startswith(("quantizer.", "encoder.layers.13.", "encoder.layers.15.")) for k in found.missing_keys)
    return ours, theirs


UNLIKE = ("encoder.layers.13.", "encoder.layers.15.")  # the LSTM and the convolution after it


def encodec_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SpeechTokenizer's names -> EnCodec's of transformers, of what both have."""
    swaps = {".model.": ".layers.", ".conv.conv.": ".conv.", ".convtr.convtr.": ".conv."}
    out = {}
    for name, tensor in parametrised(state).items():
        for ours, theirs in swaps.items():
            name = name.replace(ours, theirs)
        if name.startswith(("encoder.", "decoder.")) and not name.startswith(UNLIKE):
            out[name] = tensor
    return out


@pytest.mark.parametrize("samples", [1, 319, 320, 5000])
@torch.no_grad()
def test_the_encoders_convolutions_are_encodecs(encodec: tuple[SpeechNetwork, nn.Module], samples: int) -> None:
    ours, theirs = encodec
    x = expected = torch.randn(2, 1, samples)
    for layer in theirs.encoder.layers[:13]:  # type: ignore[index,union-attr]
        expected = layer(expected)
    assert expected.shape == (2, 32, -(-samples // 320))
    assert_close(ours.encoder.model[:13](x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 9])
@torch.no_grad()
def test_the_decoder_is_encodecs(encodec: tuple[SpeechNetwork, nn.Module], steps: int) -> None:
    ours, theirs = encodec
    x = torch.randn(2, SPEECH.dimension, steps)
    expected = theirs.decoder(x)  # type: ignore[operator]
    assert expected.shape == (2, 1, 320 * steps)
    assert_close(ours.decoder(x), expected, atol=1e-5, rtol=1e-5)
