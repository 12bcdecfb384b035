"""pretrained/seed.py and lazy.py: the released files become our network whole, and whatever else is refused by name.

Parity with transformers' BLIP-2 is at reduced width, on equal random weights.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from fabricate_media import SEED, fabricate_seed, fabricate_trap, heads_of_training, text_half
from numpy.testing import assert_array_equal
from torch import Tensor
from torch.testing import assert_close

from mio.checkpoint import write_json
from mio.config import to_dict
from mio.media import resize
from mio.pretrained.fill import Report, fill
from mio.pretrained.lazy import LazyTokenizer
from mio.pretrained.seed import HalfSeedNetwork, load_seed, resized
from mio.tokenizers.seed import SeedNetwork, SeedTokenizer
from mio.types import DataError, Image, MioError, MissingError, Modality, Tokenizer

QUANTIZER, VIT = "seed_quantizer.pt", "eva_vit_g.pth"
ROW = Modality("image", 1, SEED.codebook_size, SEED.queries, "<image>", "</image>", "<img{}>")


@pytest.fixture(scope="module")
def released_seed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SeedNetwork]:
    """A folder as published, and the network that its files hold."""
    folder = tmp_path_factory.mktemp("models") / "seed-tokenizer-2"
    return folder, fabricate_seed(folder)


@pytest.fixture
def copied(released_seed: tuple[Path, SeedNetwork], tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return copytree(released_seed[0], tmp_path / "seed")


def change(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = torch.load(path, weights_only=True)
    edit(tensors)
    torch.save(tensors, path)


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SEED.image_size, SEED.image_size)


def pictures(count: int, side: int = 40) -> list[Image]:
    rng = np.random.default_rng(0)
    return [Image(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


# ------------------------------------------------------------------------------------------------ what is right


def test_the_released_files_load_and_give_the_same_codes_and_embeddings(
    released_seed: tuple[Path, SeedNetwork],
) -> None:
    folder, expected = released_seed
    network, x = load_seed(folder)[0], pixels()
    codes = network.encode(x)
    assert len(codes.unique()) > 8
    assert torch.equal(codes, expected.encode(x))
    assert torch.equal(network.decode(codes).embedding, expected.decode(codes).embedding)
    assert network.decode(codes).embedding.shape == (3, SEED.embedding)


def test_every_tensor_is_taken_and_every_other_one_is_listed(released_seed: tuple[Path, SeedNetwork]) -> None:
    folder, network = released_seed
    _, report = load_seed(folder)
    assert (len(report.loaded), set(report.loaded)) == (881, set(network.state_dict()))
    assert {*heads_of_training(SEED), *text_half(SEED)} < set(report.ignored)
    assert [n for n in report.ignored if n.startswith("visual_encoder.")][-2:] == [
        "visual_encoder.head.weight",
        "visual_encoder.head.bias",
    ]
    assert len(report.ignored) == 146 + 81 + 13 + 4  # dropped block, norm and head of the ViT


def test_the_quantizers_file_lacks_511_names_and_has_146_that_the_network_has_not(
    released_seed: tuple[Path, SeedNetwork],
) -> None:
    folder, network = released_seed
    found, own = set(torch.load(folder / QUANTIZER, weights_only=True)), set(network.state_dict())
    assert len(found) == 597
    assert (len(found & own), len(own - found), len(found - own - set(text_half(SEED)))) == (370, 511, 146)


def test_nothing_stays_on_the_meta_device_and_all_is_ready_to_use(released_seed: tuple[Path, SeedNetwork]) -> None:
    network, _ = load_seed(released_seed[0])
    assert {t.device.type for t in (*network.parameters(), *network.buffers())} == {"cpu"}
    assert not network.training
    assert network.Qformer.bert.embeddings.position_ids.dtype == torch.int64
    network.train().quantize(torch.randn(2, 32, SEED.code_dim))  # counts how often each code is seen


def test_a_tensor_of_the_wanted_dtype_is_not_copied() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 3)
    file = {"weight": torch.randn(3, 2), "bias": torch.randn(3).half(), "more": torch.zeros(1)}
    report = fill(module, file.items(), ["weight", "bias"], torch.float32, "file")
    assert report == Report(("weight", "bias"), ("more",))
    assert module.weight.data_ptr() == file["weight"].data_ptr()
    assert torch.equal(module.bias, file["bias"].float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_weights_compute_in_fp32_on_a_cpu(released_seed: tuple[Path, SeedNetwork], dtype: torch.dtype) -> None:
    folder, expected = released_seed
    network, _ = load_seed(folder, dtype)
    assert isinstance(network, HalfSeedNetwork)
    assert {p.dtype for p in network.parameters()} == {dtype}
    rounded = SeedNetwork(SEED).eval()
    rounded.load_state_dict({k: v.to(dtype) for k, v in expected.state_dict().items()})
    codes = network.encode(x := pixels())
    assert torch.equal(codes, rounded.encode(x))
    assert network.decode(codes).embedding.dtype == torch.float32
    assert_close(network.decode(codes).embedding, rounded.decode(codes).embedding, atol=0, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_squeezed_as_is_asked(released_seed: tuple[Path, SeedNetwork], interpolation: str) -> None:
    network, _ = load_seed(released_seed[0], interpolation=interpolation)  # type: ignore[arg-type]
    tokenizer, image = SeedTokenizer(network, ROW), pictures(1)[0]
    squeezed = resize(image, SEED.image_size, interpolation)  # type: ignore[arg-type]
    assert_array_equal(tokenizer.encode([image])[0], tokenizer.encode([squeezed])[0])
    assert network.config.interpolation == interpolation


def test_the_configuration_decides_where_nothing_is_asked(copied: Path) -> None:
    assert load_seed(copied)[0].config.interpolation == "bilinear"
    write_json(copied / "config.json", to_dict(replace(SEED, interpolation="bicubic")))
    assert load_seed(copied)[0].config.interpolation == "bicubic"


def test_another_grid_resizes_the_positions(copied: Path, released_seed: tuple[Path, SeedNetwork]) -> None:
    write_json(copied / "config.json", to_dict(replace(SEED, image_size=56)))
    network, _ = load_seed(copied)
    before = released_seed[1].visual_encoder.pos_embed
    assert network.visual_encoder.pos_embed.shape == (1, 17, SEED.vit_width)
    assert torch.equal(network.visual_encoder.pos_embed[:, 0], before[:, 0])
    assert network.encode(torch.randn(1, 3, 56, 56)).shape == (1, 32)


def test_positions_are_resized_as_transformers_does_it() -> None:
    from transformers import Blip2VisionConfig
    from transformers.models.blip_2.modeling_blip_2 import Blip2VisionEmbeddings

    theirs = Blip2VisionEmbeddings(Blip2VisionConfig(hidden_size=8, image_size=224, patch_size=14))
    expected = theirs.interpolate_pos_encoding(torch.zeros(1, 1 + 24 * 24, 8), 336, 336)
    assert_close(resized(theirs.position_embedding, 24), expected, atol=1e-6, rtol=0)
    assert resized(theirs.position_embedding, 16) is theirs.position_embedding


# ------------------------------------------------------------------------------------------------ what is not


@pytest.mark.parametrize(
    "name",
    ["query_tokens", "Qformer.bert.embeddings.position_ids", "blocks.3.mlp.fc2.bias", "distill_image_proj.weight"],
)
def test_369_of_the_370_tensors_are_refused_by_the_name_that_is_missing(copied: Path, name: str) -> None:
    change(copied / QUANTIZER, lambda tensors: tensors.pop(name))
    with pytest.raises(DataError, match=rf"{name} missing \(1 faults\)") as error:
        load_seed(copied)
    assert error.value.at.endswith(QUANTIZER)


def test_a_vit_without_one_of_its_tensors_is_refused_by_name(copied: Path) -> None:
    change(copied / VIT, lambda tensors: tensors.pop("blocks.38.attn.q_bias"))
    with pytest.raises(DataError, match=r"visual_encoder\.blocks\.38\.attn\.q_bias missing") as error:
        load_seed(copied)
    assert error.value.at.endswith(VIT)


@pytest.mark.parametrize(
    ("file", "name", "tensor", "fault"),
    [
        (QUANTIZER, "quantize.embedding.weight", torch.zeros(63, 8), r"is \(63, 8\) instead of \(64, 8\)"),
        (QUANTIZER, "pos_embed", torch.zeros(1, 32, 16, dtype=torch.int64), r"is torch.int64 instead of torch.float32"),
        (VIT, "pos_embed", torch.zeros(1, 6, 16), r"is \(1, 6, 16\) instead of \(1, 5, 16\)"),
        (VIT, "cls_token", torch.zeros(16), r"is \(16,\) instead of \(1, 1, 16\)"),
    ],
)
def test_a_tensor_of_another_shape_or_kind_is_refused_by_name(
    copied: Path, file: str, name: str, tensor: Tensor, fault: str
) -> None:
    change(copied / file, lambda tensors: tensors.update({name: tensor}))
    with pytest.raises(DataError, match=rf"{name} {fault}"):
        load_seed(copied)


def test_without_a_configuration_the_released_size_is_demanded(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(DataError, match=r"is \(16,\) instead of \(768,\).*\(369 faults\)"):  # all but position_ids
        load_seed(copied)


def test_a_configuration_of_something_else_is_refused(copied: Path) -> None:
    write_json(copied / "config.json", {**to_dict(SEED), "n_filters": 64})
    with pytest.raises(MioError, match=r"config\.json\.n_filters"):
        load_seed(copied)


@pytest.mark.parametrize("file", [QUANTIZER, VIT])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(copied: Path, tmp_path: Path, file: str) -> None:
    fabricate_trap(copied / file, tmp_path / "sprung")
    with pytest.raises(DataError, match=f"{file} is no file of tensors"):
        load_seed(copied)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("file", [QUANTIZER, VIT])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(copied: Path, file: str, share: float) -> None:
    whole = (copied / file).read_bytes()
    (copied / file).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=file):
        load_seed(copied)


def test_missing_files_are_all_named_with_their_sizes(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"lacks seed_quantizer\.pt \(1\.2 GB\), eva_vit_g\.pth \(2 GB\)"):
        load_seed(tmp_path)


# ------------------------------------------------------------------------------------------------ lazily


def lazy(folder: Path, **settings: object) -> LazyTokenizer:
    files = [folder / name for name in (QUANTIZER, VIT, "config.json")]
    return LazyTokenizer(ROW, lambda: SeedTokenizer(load_seed(folder)[0], ROW), files, settings)


def test_a_lazy_tokenizer_is_built_by_the_first_input_and_again_after_release(
    released_seed: tuple[Path, SeedNetwork],
) -> None:
    tokenizer, images = lazy(released_seed[0]), pictures(2)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode([]) == tokenizer.decode([]) == []
    assert not tokenizer.built
    codes = tokenizer.encode(images)
    network = weakref.ref(tokenizer.tokenizer().network)  # type: ignore[attr-defined]
    tokenizer.release()
    gc.collect()
    assert not tokenizer.built
    assert network() is None
    assert_array_equal(tokenizer.encode(images), codes)


def test_a_lazy_tokenizers_fingerprint_changes_with_weights_configuration_and_settings(copied: Path) -> None:
    prints = [lazy(copied).fingerprint(), lazy(copied, interpolation="bicubic").fingerprint()]
    change(copied / VIT, lambda tensors: tensors["cls_token"].add_(1))
    prints.append(lazy(copied).fingerprint())
    write_json(copied / "config.json", to_dict(replace(SEED, interpolation="bicubic")))
    prints.append(lazy(copied).fingerprint())
    assert len(set(prints)) == 4
    assert lazy(copied).fingerprint() == prints[-1]
    (copied / VIT).unlink()
    with pytest.raises(MissingError, match=VIT):
        lazy(copied).fingerprint()


# ------------------------------------------------------------------------------------------------ another route


def test_the_vit_is_transformers_blip2_vision_model() -> None:
    from transformers import Blip2VisionConfig, Blip2VisionModel

    config = Blip2VisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        layer_norm_eps=1e-6,
    )
    theirs, ours = Blip2VisionModel(config).eval(), lively(SeedNetwork(replace(SEED, vit_depth=3))).visual_encoder
    theirs.post_layernorm = torch.nn.Identity()  # the released trunk ends without
    theirs.load_state_dict(blip2_names(ours.state_dict()))
    x = pixels(2)
    assert_close(ours(x), theirs(x).last_hidden_state, atol=1e-5, rtol=1e-5)


def lively(network: SeedNetwork) -> SeedNetwork:
    """Every parameter random, biases and norms too, so that none goes unseen."""
    for parameter in network.requires_grad_(False).parameters():
        parameter.normal_(std=0.3)
    return network.eval()


def renamed(name: str, parts: Mapping[str, str]) -> str:
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name


def blip2_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EVA's names -> BLIP-2's of transformers; its fused bias is q's, zeros for k, v's."""
    whole = {"cls_token": "class_embedding", "pos_embed": "position_embedding"}
    parts = {"patch_embed.proj": "patch_embedding", "attn.": "self_attn.", "attn.proj.": "attn.projection."}
    parts |= {"norm1": "layer_norm1", "norm2": "layer_norm2"}
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        name = whole.get(name, renamed(name, parts))
        prefix = "encoder.layers." if name.startswith("blocks.") else "embeddings."
        out[prefix + name.removeprefix("blocks.")] = tensor
    for layer in {n.split("q_bias")[0] for n in out if n.endswith("q_bias")}:
        q, v = out.pop(f"{layer}q_bias"), out.pop(f"{layer}v_bias")
        out[f"{layer}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return out


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_causal_q_former_is_transformers_under_a_causal_mask(attention: str) -> None:
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    config = Blip2QFormerConfig(
        hidden_size=16,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=32,
        encoder_hidden_size=SEED.vit_width,
        cross_attention_frequency=2,
        layer_norm_eps=1e-12,
        attn_implementation=attention,
    )
    theirs, ours = Blip2QFormerModel(config).eval(), lively(SeedNetwork(replace(SEED, vit_depth=1)))
    state = {k.removeprefix("bert."): v for k, v in ours.Qformer.state_dict().items() if "position_ids" not in k}
    state = {
        k.replace(".self.", ".attention.").replace("embeddings.LayerNorm", "layernorm"): v for k, v in state.items()
    }
    theirs.load_state_dict(state)
    context = torch.randn(2, 5, SEED.vit_width)
    queries = ours.query_tokens.expand(2, -1, -1)
    mask = torch.full((2, 1, 32, 32), float("-inf")).triu(1)  # additive; a mask of ones and zeros is misread
    expected = theirs(queries, attention_mask=mask, encoder_hidden_states=context).last_hidden_state
    assert_close(ours.Qformer(ours.query_tokens, context), expected, atol=1e-5, rtol=1e-5)
