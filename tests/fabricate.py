"""A model folder with random weights, made by the real classes in a moment: it speaks everything, and says nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from mio.checkpoint import commit, compact, save_module, write_json
from mio.config import to_dict
from mio.decoding.sampling import GREEDY, Sampling
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.decoders import PixelDecoder, PixelDecoderConfig
from mio.pipeline import ModelConfig, load_processor, save
from mio.tokenizers.seed import SeedConfig, SeedNetwork
from mio.tokenizers.speech import SpeechConfig, SpeechNetwork
from mio.tokenizers.text import TextTokenizer
from mio.types import Modality

SEED = SeedConfig(
    image_size=16,
    patch=8,
    vit_width=16,
    vit_depth=1,
    vit_heads=2,
    vit_hidden=32,
    width=16,
    layers=2,
    heads=2,
    hidden=32,
    queries=8,
    codebook_size=64,
    code_dim=8,
    reverse_depth=1,
    image_down=(8, 4),
    embedding=16,
)
PIXELS = PixelDecoderConfig(image_size=16, patch=8, width=16, depth=1, heads=2, latents=16, embedding=16, smooth=4)
SPEECH = SpeechConfig(filters=4, dimension=16, semantic_dimension=16, codebook_size=32, levels=4, lstm_layers=1)
ROWS = (
    Modality("image", 1, 64, 8, "<image>", "</image>", "<img{}>"),
    Modality("speech", 4, 32, 0, "<spch>", "</spch>", "<spch{}>", "content", "sequential", rate=50.0),
    Modality("video", spans_of="image", rate=4.0),
)
SYSTEMS = {"std": "You are MIO.", "voice": "You are MIO. Answer with speech."}
TEXTS = ["a red apple", "the cat sat on the mat", "Draw a house. Say seven.", "1 2 3 4 5"]


def fabricate_parts(folder: Path) -> Path:
    """The text, image and speech folders of a run."""
    torch.manual_seed(0)
    text = TextTokenizer.train(TEXTS, 300)
    image, pixels, speech = SeedNetwork(SEED), PixelDecoder(PIXELS), SpeechNetwork(SPEECH)

    def write_text(staging: Path) -> None:
        (staging / "tokenizer.json").write_text(text.to_json(), encoding="utf-8")
        write_json(staging / "config.json", {"size": text.size})

    def write_image(staging: Path) -> None:
        save_module(staging, to_dict(SEED), compact(image.state_dict()))
        (staging / "pixels").mkdir()
        save_module(staging / "pixels", to_dict(PIXELS), compact(pixels.state_dict()))

    commit(folder / "text", write_text)
    commit(folder / "image", write_image)
    commit(folder / "speech", lambda staging: save_module(staging, to_dict(SPEECH), compact(speech.state_dict())))
    return folder


def fabricate_model(folder: Path, systems: dict[str, str] | None = None) -> Path:
    """A model folder at `folder`, as `mio.pipeline.load` reads it; its parts lie beside it."""
    parts = fabricate_parts(folder.with_name(f"{folder.name}-parts"))
    systems = systems or SYSTEMS
    processor = load_processor(parts, ROWS, systems, 2)
    backbone = BackboneConfig(
        vocabulary=len(processor.vocab),
        layers=2,
        width=32,
        heads=2,
        kv_heads=1,
        head_dim=16,
        hidden=64,
        rope_theta=10_000.0,
        positions=512,
        tied=True,
    )
    decoding = {"text": GREEDY, "image": GREEDY, "speech": Sampling(0.7, 0.7)}
    config = ModelConfig("fabricated", backbone, ROWS, systems, decoding, 2, processor.fingerprint)
    save(folder, config, Backbone(backbone), parts, {"README.md": "# Random weights\n"})
    return folder
