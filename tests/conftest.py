"""What tests share: one thread, fixed seeds, a small tokenizer, vocabulary and backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from mio.models.backbone import Backbone, BackboneConfig
from mio.tokenizers.text import TextTokenizer
from mio.types import Modality
from mio.vocab import Vocabulary

SPEC = Path(__file__).parents[2] / "shared" / "specs" / "compat_keys.json"

torch.set_num_threads(1)
settings.register_profile("mio", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("mio")

SENTENCES = [
    "Please describe the following picture of a small fox.",
    "You are MIO, an AI assistant capable of understanding images, text, videos, and speech.",
    "The caption of this image is: four foxes on a blue background.",
    "system user assistant 0 1 2 3 4 5 6 7 8 9",
]
ROWS = (
    Modality("image", 1, 16, 4, "<image>", "</image>", "<img{}>"),
    Modality("speech", 3, 8, 0, "<spch>", "</spch>", "<spch{}>", "content", "sequential", rate=50.0),
    Modality("video", spans_of="image", rate=4.0),
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def text() -> TextTokenizer:
    return TextTokenizer.train(SENTENCES, 300)


@pytest.fixture(scope="session")
def text_tokens(text: TextTokenizer) -> list[str]:
    """Its vocabulary by id."""
    return [text._tokenizer.id_to_token(i) for i in range(text.size)]


@pytest.fixture(scope="session")
def vocab(text_tokens: list[str]) -> Vocabulary:
    return Vocabulary.build(text_tokens, ROWS)


@pytest.fixture(scope="session")
def backbone(vocab: Vocabulary) -> Backbone:
    """Random weights, large enough that predictions differ; never changed by a test."""
    torch.manual_seed(1)
    model = Backbone(BackboneConfig(len(vocab), 2, 32, 4, 2, 8, 48, 10_000.0, positions=512)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.mul_(8)
    return model


@pytest.fixture(scope="session")
def released() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the released checkpoints, by part; beside the repository, where it is developed."""
    if not SPEC.is_file():
        pytest.skip("no list of released tensors beside the repository; the golden digest stands in")
    out: dict[str, dict[str, list[int]]] = json.loads(SPEC.read_text())
    return out


def digest(shapes: Mapping[str, list[int]]) -> str:
    """One SHA-256 over the sorted lines "name 3x4" of a state dict."""
    lines = sorted(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
