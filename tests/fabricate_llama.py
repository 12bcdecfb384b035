"""Hugging Face folders of the Llama family with random weights, as `transformers` and older tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mio.models.backbone import Backbone, BackboneConfig

SMALL = BackboneConfig(50, 2, 64, 4, 2, 16, 96, 10_000.0, 1e-6, positions=64)
VARIANTS = [SMALL, replace(SMALL, tied=True), replace(SMALL, bias=True), replace(SMALL, qk_norm=True, tied=True)]


def settings_of(c: BackboneConfig) -> dict[str, Any]:
    """A config.json for `c`, as transformers 4 wrote it."""
    kind, name = ("qwen2", "Qwen2") if c.bias else ("qwen3", "Qwen3") if c.qk_norm else ("llama", "Llama")
    return {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": kind,
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "intermediate_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.positions,
        "tie_word_embeddings": c.tied,
    }


def write_settings(folder: Path, settings: Mapping[str, Any], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**settings, **changes}))
    return folder


Write = Callable[[dict[str, Tensor], Path], None]
KINDS: dict[str, tuple[str, str, Write]] = {
    "bin": ("pytorch_model", "bin", torch.save),
    "safetensors": ("model", "safetensors", save_file),
}


def write_weights(folder: Path, state: Mapping[str, Tensor], kind: str = "bin", files: int = 3) -> Path:
    """Shards with their index, or a single file. Every tensor is written out by itself, tied or not."""
    stem, suffix, write = KINDS[kind]
    folder.mkdir(exist_ok=True)
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    if files == 1:
        write(state, folder / f"{stem}.{suffix}")
        return folder
    names = {name: f"{stem}-{n % files + 1:05}-of-{files:05}.{suffix}" for n, name in enumerate(state)}
    for file in set(names.values()):
        write({name: tensor for name, tensor in state.items() if names[name] == file}, folder / file)
    total = {"total_size": sum(tensor.nbytes for tensor in state.values())}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": total, "weight_map": names}))
    return folder


def fresh(c: BackboneConfig = SMALL) -> Backbone:
    """Random in every tensor, norms and biases too."""
    torch.manual_seed(0)
    model = Backbone(c)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def state_of(c: BackboneConfig = SMALL, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in fresh(c).state_dict().items()}


def folder_of(path: Path, c: BackboneConfig = SMALL, kind: str = "bin", files: int = 3) -> Path:
    return write_settings(write_weights(path / "model", state_of(c), kind, files), settings_of(c))
