"""tokenizers/seed.py: the released network's tensors, queries that read in order, and images that come back whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import digest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor
from torch.testing import assert_close

from mio.models.decoders import PixelDecoder, PixelDecoderConfig
from mio.tokenizers.seed import MEAN, STD, Decoded, SeedConfig, SeedNetwork, SeedTokenizer, normalise, start_from_places
from mio.types import Image, MissingError, Modality, Tokenizer

GOLDEN = "4a2774f8ff06ac713dd4c36999558843d9c9ea5978aec5e1b2bf82473f5f9838"
ROW = Modality("image", 1, 16, 4, "<image>", "</image>", "<img{}>")
TINY = SeedConfig(
    image_size=16,
    patch=8,
    vit_width=12,
    vit_depth=2,
    vit_heads=2,
    vit_hidden=20,
    width=8,
    layers=3,
    heads=2,
    hidden=16,
    queries=4,
    codebook_size=16,
    code_dim=6,
    reverse_depth=1,
    image_down=(6, 2),
    embedding=10,
)


@pytest.fixture
def network() -> SeedNetwork:
    """Weights large enough that images differ in their codes."""
    torch.manual_seed(0)
    network = SeedNetwork(TINY).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.quantize.embedding.weight.normal_()
    network.encode_task_layer[2].weight.mul_(5)
    network.query_tokens.normal_()
    return network


def pictures(count: int, side: int = 16) -> list[Image]:
    rng = np.random.default_rng(0)
    return [Image(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def shapes_of_the_default() -> dict[str, list[int]]:
    with torch.device("meta"):
        return {k: list(v.shape) for k, v in SeedNetwork(SeedConfig()).state_dict().items()}


def test_the_default_has_the_released_names_and_shapes(released: dict[str, dict[str, list[int]]]) -> None:
    assert shapes_of_the_default() == released["seed2_inference_module"]


def test_the_default_has_the_881_released_tensors_by_digest() -> None:
    shapes = shapes_of_the_default()
    assert (len(shapes), digest(shapes)) == (881, GOLDEN)
    beyond_vit = [s for k, s in shapes.items() if not k.startswith("visual_encoder.")]
    assert (len(beyond_vit), sum(int(np.prod(s)) for s in beyond_vit)) == (370, 164_104_512)


@pytest.mark.parametrize("j", range(4))
def test_a_query_is_seen_by_itself_and_later_ones_only(network: SeedNetwork, j: int) -> None:
    pixels = normalise(torch.from_numpy(np.stack([p.pixels for p in pictures(2)])))
    before = network.causal_embeddings(pixels)
    network.query_tokens[:, j] = torch.randn(8)
    after = network.causal_embeddings(pixels)
    assert torch.equal(before[:, :j], after[:, :j])
    assert all((before[:, i] != after[:, i]).any() for i in range(j, 4))


def test_every_patch_is_seen_by_every_query(network: SeedNetwork) -> None:
    pixels = torch.randn(1, 3, 16, 16, requires_grad=True)
    for query in network.causal_embeddings(pixels)[0]:
        (gradient,) = torch.autograd.grad(query @ torch.randn(8), pixels, retain_graph=True)
        assert (gradient.abs().amax(1).unflatten(1, (2, 8)).unflatten(3, (2, 8)).amax((2, 4)) > 0).all()


def test_cross_attention_is_on_every_second_layer(network: SeedNetwork) -> None:
    assert [layer.crossattention is not None for layer in network.Qformer.bert.encoder["layer"]] == [True, False, True]


def test_the_reverse_sees_both_ways(network: SeedNetwork) -> None:
    codes = torch.tensor([[0, 1, 2, 3]])
    before, after = network.decode(codes), network.decode(torch.tensor([[0, 1, 2, 5]]))
    assert (before.latents[:, 0] != after.latents[:, 0]).any()
    assert before.latents.shape == (1, 4, 8)
    assert before.embedding.shape == (1, 10)


def test_decoding_the_codes_is_decoding_what_was_quantized(network: SeedNetwork) -> None:
    out = network.quantized(network.causal_embeddings(torch.randn(2, 3, 16, 16)))
    a, b = network.decode(out.codes), network.reverse(out.quantized)
    assert_close((a.latents, a.embedding), (b.latents, b.embedding))


def test_a_network_trained_from_nothing_starts_with_each_query_at_its_part_of_the_picture() -> None:
    started = SeedNetwork(replace(TINY, image_size=32, width=16, vit_width=16))  # 4 x 4 patches, 4 queries
    start_from_places(started)
    likeness = started.query_tokens[0] @ started.visual_encoder.pos_embed[0, 1:].T
    assert (likeness.argmax(1) // 4).tolist() == [0, 1, 2, 3]
    assert torch.equal(started.pos_embed, started.pos_embed_image)


def test_normalising_uses_clips_mean_and_deviation() -> None:
    black, white = normalise(
        torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2).permute(3, 2, 0, 1).expand(2, 1, 1, 3)
    )
    assert_allclose(black[:, 0, 0], -np.array(MEAN) / np.array(STD), rtol=1e-5)
    assert_allclose(white[:, 0, 0], (1 - np.array(MEAN)) / np.array(STD), rtol=1e-5)


def flat(decoded: Decoded) -> Tensor:
    """A renderer that paints the first latent as grey, partly outside [0, 1]."""
    return (decoded.latents.mean((1, 2)) + 0.5).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)


def test_a_batch_is_encoded_and_decoded_as_its_members_are(network: SeedNetwork) -> None:
    images, tokenizer = pictures(5), SeedTokenizer(network, ROW, flat, batch=2)
    codes = tokenizer.encode(images)
    assert isinstance(tokenizer, Tokenizer)
    assert {(c.shape, c.dtype) for c in codes} == {((1, 1, 4), np.dtype(np.int64))}
    assert len({c.tobytes() for c in codes}) > 1
    assert_array_equal(codes, [tokenizer.encode([i])[0] for i in images])
    alone = [tokenizer.decode([c])[0].pixels for c in codes]
    assert_array_equal([d.pixels for d in tokenizer.decode(codes)], alone)


def test_images_of_any_size_are_encoded(network: SeedNetwork) -> None:
    sizes = [Image(np.full((h, w, 3), 90, np.uint8)) for h, w in ((1, 1), (16, 40), (100, 3))]
    one, *others = SeedTokenizer(network, ROW).encode(sizes)
    assert all(np.array_equal(one, other) for other in others)  # all of one grey


def test_no_images_are_no_codes(network: SeedNetwork) -> None:
    assert SeedTokenizer(network, ROW).encode([]) == []
    assert SeedTokenizer(network, ROW, flat).decode([]) == []


@settings(max_examples=10)
@given(st.lists(st.integers(0, 15), min_size=4, max_size=4))
def test_any_codes_decode_to_a_picture(codes: list[int]) -> None:
    torch.manual_seed(0)
    render = PixelDecoder(PixelDecoderConfig(16, 8, 8, 1, 2, latents=8, embedding=10, smooth=4)).eval()
    tokenizer = SeedTokenizer(SeedNetwork(TINY), ROW, lambda d: render(d.latents, d.embedding))
    (image,) = tokenizer.decode([np.array(codes).reshape(1, 1, 4)])
    assert (image.pixels.shape, image.pixels.dtype) == ((16, 16, 3), np.uint8)


def test_without_a_pixel_decoder_decoding_is_refused(network: SeedNetwork) -> None:
    with pytest.raises(MissingError, match="no pixel decoder"):
        SeedTokenizer(network, ROW).decode([np.zeros((1, 1, 4), np.int64)])


@pytest.mark.parametrize(
    "change",
    [lambda n: n.quantize.embedding.weight[3, 1].add_(1e-3), lambda n: n.visual_encoder.cls_token[0, 0, 0].add_(1e-3)],
)
def test_the_fingerprint_changes_with_the_weights(
    network: SeedNetwork, change: Callable[[SeedNetwork], Tensor]
) -> None:
    tokenizer = SeedTokenizer(network, ROW)
    before = tokenizer.fingerprint()
    assert tokenizer.fingerprint() == before
    change(network)
    assert tokenizer.fingerprint() != before
