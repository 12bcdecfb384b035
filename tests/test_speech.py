"""tokenizers/speech.py: the released network's tensors, convolutions as torch has them, and lengths to the sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import digest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

from mio.tokenizers.speech import (
    SpeechConfig,
    SpeechNetwork,
    SpeechTokenizer,
    _Conv,
    _ConvTranspose,
    _reflect,
    resample,
)
from mio.types import Audio, Modality, Tokenizer

GOLDEN = "b0fe1a5a430c86ee4433cfb3f8bd6508c0dba5b671df0eba7c774b65b22eed0b"
ROW = Modality("speech", 3, 8, 0, "<spch>", "</spch>", "<spch{}>", "content", "sequential", rate=50.0)
TINY = SpeechConfig(filters=2, dimension=6, semantic_dimension=5, codebook_size=8, levels=5, lstm_layers=1)


@pytest.fixture(scope="module")
def network() -> SpeechNetwork:
    """Codebooks scattered over what the encoder gives, so that codes differ."""
    torch.manual_seed(0)
    network = SpeechNetwork(TINY).eval().requires_grad_(False)
    seen = network.encoder(torch.randn(1, 1, 3200))[0].T
    for codebook in network.quantizer.codebooks():
        codebook.embed.copy_(seen[torch.randperm(10)[:8]] * torch.rand(8, 1))
    return network


def noise(samples: int, rate: int = 16000) -> Audio:
    return Audio(np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32), rate)


def default_on_meta() -> SpeechNetwork:
    with torch.device("meta"):
        return SpeechNetwork(SpeechConfig())


def test_the_default_has_the_released_names_and_shapes(released: dict[str, dict[str, list[int]]]) -> None:
    assert {k: list(v.shape) for k, v in default_on_meta().state_dict().items()} == released["speechtokenizer"]


def test_the_default_has_the_166_released_tensors_by_digest() -> None:
    network = default_on_meta()
    shapes = {k: list(v.shape) for k, v in network.state_dict().items()}
    assert (len(shapes), digest(shapes)) == (166, GOLDEN)
    assert sum(int(np.prod(s)) for s in shapes.values()) == 120_461_002
    assert sum(p.numel() for p in network.parameters()) == 103_675_586


# ------------------------------------------------------------------------------------------------ convolutions


@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 1), (1, 1), (4, 2), (8, 4), (10, 5), (16, 8)])
@pytest.mark.parametrize("length", [16, 17, 23, 40])
def test_a_convolution_is_torchs_after_padding_by_hand(kernel: int, stride: int, length: int) -> None:
    ours, x = _Conv(3, 4, kernel, stride), torch.randn(2, 3, length)
    conv = ours.conv["conv"]
    conv.weight_g.data *= 1.7
    frames = -(-length // stride)
    total = kernel - stride + frames * stride - length
    left = kernel - stride - (kernel - stride) // 2
    columns = np.pad(np.arange(length), (left, total - left), mode="reflect")
    weight = conv.weight_g * conv.weight_v / conv.weight_v.flatten(1).norm(dim=1)[:, None, None]
    expected = F.conv1d(x[..., columns], weight, conv.bias, stride)
    assert expected.shape[-1] == frames
    assert_close(ours(x), expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_weight_norm_is_torchs_parametrization(transposed: bool) -> None:
    x = torch.randn(2, 3, 24)
    if transposed:
        ours, theirs = _ConvTranspose(3, 4, 8, 4), weight_norm(nn.ConvTranspose1d(3, 4, 8, 4, padding=2))
        tensors = ours.convtr["convtr"]
    else:
        ours, theirs = _Conv(3, 4, 7), weight_norm(nn.Conv1d(3, 4, 7, padding=3, padding_mode="reflect"))
        tensors = ours.conv["conv"]
    nn.init.normal_(tensors.weight_g)
    theirs.load_state_dict(
        {
            "bias": tensors.bias,
            "parametrizations.weight.original0": tensors.weight_g,
            "parametrizations.weight.original1": tensors.weight_v,
        }
    )
    assert_close(ours(x), theirs(x))


@given(st.integers(1, 12), st.integers(0, 7), st.integers(0, 7))
def test_reflection_keeps_the_input_in_its_middle_and_pads_any_length(length: int, left: int, right: int) -> None:
    x = torch.arange(1.0, length + 1)[None, None]
    out = _reflect(x, left, right)
    assert out.shape[-1] == left + length + right
    assert_close(out[..., left : left + length], x)
    if max(left, right) < length:
        assert_array_equal(out[0, 0], np.pad(x[0, 0].numpy(), (left, right), mode="reflect"))


def test_a_transposed_convolution_multiplies_the_length_by_its_stride() -> None:
    for kernel, stride in ((16, 8), (10, 5), (8, 4), (4, 2)):
        assert _ConvTranspose(3, 2, kernel, stride)(torch.randn(1, 3, 7)).shape == (1, 2, 7 * stride)


# ------------------------------------------------------------------------------------------------ lengths, levels


@pytest.mark.parametrize(("samples", "steps"), [(1, 1), (319, 1), (320, 1), (321, 2), (34000, 107)])
def test_steps_are_samples_by_320_rounded_up_and_come_back_in_full(
    network: SpeechNetwork, samples: int, steps: int
) -> None:
    tokenizer = SpeechTokenizer(network, ROW)
    (codes,) = tokenizer.encode([noise(samples)])
    (audio,) = tokenizer.decode([codes])
    assert codes.shape == (1, 3, steps)
    assert (audio.samples.shape, audio.samples.dtype, audio.rate) == ((320 * steps,), np.float32, 16000)


def test_the_default_has_the_hop_of_320() -> None:
    assert SpeechConfig().hop == 320


def test_fewer_levels_are_the_first_ones(network: SpeechNetwork) -> None:
    x = torch.randn(2, 1000)
    codes = network.encode(x)
    assert codes.shape == (5, 2, 4)
    assert torch.equal(network.encode(x, levels=4), codes[:4])


def test_encoding_from_a_later_level_starts_at_the_whole_feature(network: SpeechNetwork) -> None:
    x = torch.randn(2, 3200)
    later = network.encode(x, start=1)
    assert later.shape == (4, 2, 10)
    assert not torch.equal(later, network.encode(x)[1:])


def test_decoding_sums_the_rows_of_the_levels_it_is_given(network: SpeechNetwork) -> None:
    codes = torch.randint(0, 8, (5, 2, 6))
    rows = sum(F.embedding(c, b.embed) for c, b in zip(codes[:4], network.quantizer.codebooks(), strict=False))
    assert_close(network.decode(codes[:4]), network.decoder(rows.transpose(1, 2))[:, 0])
    later = F.embedding(codes[1], network.quantizer.codebooks()[1].embed)
    assert_close(network.decode(codes[1:2], start=1), network.decoder(later.transpose(1, 2))[:, 0])


def test_forward_is_encode_then_decode_at_the_given_length(network: SpeechNetwork) -> None:
    x = torch.randn(2, 1000)
    out = network(x)
    assert torch.equal(out.quantized.codes, network.encode(x))
    assert_close(out.samples, network.decode(out.quantized.codes)[:, :1000], atol=1e-5, rtol=1e-5)
    assert out.semantic.shape == (2, 4, 5)
    content = network.quantizer.decode(out.quantized.codes[:1])
    assert_close(out.semantic, network.transform(content), atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ the tokenizer


def test_a_clip_has_the_same_codes_alone_and_in_company(network: SpeechNetwork) -> None:
    tokenizer, clips = SpeechTokenizer(network, ROW), [noise(n) for n in (700, 3200, 1)]
    assert isinstance(tokenizer, Tokenizer)
    together = tokenizer.encode(clips)
    assert len({c.tobytes() for c in together}) == 3
    for clip, codes in zip(clips, together, strict=True):
        assert_array_equal(tokenizer.encode([clip])[0], codes)
        assert codes.dtype == np.int64


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_any_number_of_levels_is_decoded(network: SpeechNetwork, levels: int) -> None:
    codes = np.zeros((1, levels, 4), np.int64)
    assert SpeechTokenizer(network, ROW).decode([codes])[0].samples.shape == (1280,)


@settings(max_examples=20)
@given(st.integers(1, 3000), st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]))
def test_resampling_keeps_the_duration_and_is_never_empty(samples: int, rate: int) -> None:
    audio = noise(samples, rate)
    out = resample(audio, 16000)
    assert out.rate == 16000
    assert out.samples.dtype == np.float32
    assert len(out.samples) == pytest.approx(max(1, samples * 16000 / rate), abs=1)


def test_resampling_keeps_a_tone() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(24000) / 48000).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    assert np.abs(resample(Audio(tone, 48000), 16000).samples - expected)[200:-200].max() < 1e-3


def test_samples_are_clamped_to_full_scale(network: SpeechNetwork) -> None:
    loud = SpeechNetwork(TINY).eval()
    loud.load_state_dict(network.state_dict())
    loud.decoder.model[-1].conv["conv"].weight_g.data *= 1e4
    out = SpeechTokenizer(loud, ROW).decode([np.zeros((1, 3, 4), np.int64)])[0].samples
    assert np.abs(out).max() == 1.0


def test_the_fingerprint_changes_with_weights_and_codebooks(network: SpeechNetwork) -> None:
    prints = [SpeechTokenizer(network, ROW).fingerprint()]
    for name in ("encoder.model.0.conv.conv.bias", "quantizer.vq.layers.2._codebook.embed"):
        other = SpeechNetwork(TINY)
        state = {k: v.clone() for k, v in network.state_dict().items()}
        state[name].view(-1)[0] += 1e-3
        other.load_state_dict(state)
        prints.append(SpeechTokenizer(other, ROW).fingerprint())
    assert len(set(prints)) == 3
    assert SpeechTokenizer(network, ROW).fingerprint() == prints[0]
