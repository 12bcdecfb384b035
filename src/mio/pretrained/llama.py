"""A Hugging Face folder of the Llama family as our backbone: config.json, then the weights, one tensor at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mio.checkpoint import CONFIG, read_json
from mio.config import suggest
from mio.models.backbone import Backbone, BackboneConfig
from mio.models.quantized import Bits, QuantizedLinear, quantize_linears
from mio.pretrained.fill import refuse
from mio.pretrained.weights import shapes, shards, tensors
from mio.types import DataError, MioError, MissingError

Start = Literal["mean", "normal"]

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IGNORED = "rotary_emb.inv_freq"  # a table that older files carry; ours is computed
SPREAD = 0.1  # of the old rows' standard deviation, around their mean


@dataclass(frozen=True)
class Family:
    """What a `model_type` implies that its config.json need not say, as in transformers 5."""

    architecture: str
    bias: bool = False
    qk_norm: bool = False
    window: int | None = None  # sliding, unless config.json says otherwise


FAMILIES = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family("MistralForCausalLM", window=4096),
    "qwen2": Family("Qwen2ForCausalLM", bias=True),
    "qwen3": Family("Qwen3ForCausalLM", qk_norm=True),
}


def read_config(folder: Path) -> BackboneConfig:
    """The numbers of a folder's config.json; keys that change nothing here, such as MIO's own, are ignored.

    Raises:
        MissingError: no config.json. DataError: a number is missing or impossible, or the model needs what our backbone
        does not carry: another family, scaled RoPE, sliding windows, other biases, quantized weights.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise MissingError(f"No {CONFIG} in {folder}.", at=str(path), fix="Point to a Hugging Face model folder.")
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{CONFIG} is not a JSON object.", at=str(path))
    family, rope = _family(found, path), _rope(found, path)
    config = _numbers(found, family, rope, path)
    obstacles = [*_scaling(rope), *_obstacles(found, family, config.positions)]
    if obstacles:
        fix = "Choose a base without these."
        raise DataError(f"Our backbone does not carry {'; '.join(obstacles)}.", at=str(path), fix=fix)
    return config


def _family(found: Mapping[str, Any], path: Path) -> Family:
    kind = str(found.get("model_type"))
    if kind not in FAMILIES:
        raise DataError(f"Model type {kind!r} is not of the Llama family.", at=str(path), fix=suggest(kind, FAMILIES))
    classes = found.get("architectures") or [FAMILIES[kind].architecture]
    if FAMILIES[kind].architecture not in classes:
        fix = f"Expected {FAMILIES[kind].architecture}: a language model with its head."
        raise DataError(f"Architecture {', '.join(map(str, classes))} is no such model.", at=str(path), fix=fix)
    return FAMILIES[kind]


def _rope(found: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """RoPE's settings: loose keys and `rope_scaling` up to transformers 4, `rope_parameters` since 5."""
    rope = {key: found[key] for key in ("rope_theta", "partial_rotary_factor") if key in found}
    for key in ("rope_scaling", "rope_parameters"):
        settings = found.get(key) or {}
        if not isinstance(settings, dict):
            raise DataError(f"{key} must be an object, got {settings!r}.", at=str(path))
        rope.update(settings)
    return rope


def _scaling(rope: Mapping[str, Any]) -> Iterator[str]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        yield f"RoPE scaled as {kind!r}"
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        yield "RoPE on a part of each head (partial_rotary_factor)"
    if any(isinstance(value, dict) for value in rope.values()):
        yield "RoPE that differs from layer to layer (rope_parameters)"


def _obstacles(found: Mapping[str, Any], family: Family, positions: int) -> Iterator[str]:
    """What else in a config.json would change the numbers that come out, by its key."""
    window = found.get("sliding_window", family.window)
    if found.get("use_sliding_window", family.window) and isinstance(window, int) and window < positions:
        yield f"a sliding window of {window} (sliding_window)"
    if any(kind != "full_attention" for kind in found.get("layer_types") or ()):
        yield "layers without full attention (layer_types)"
    if found.get("attention_bias") and not family.bias:
        yield "a bias on the attention's output (attention_bias)"
    if found.get("mlp_bias"):
        yield "biases in the MLP (mlp_bias)"
    if found.get("hidden_act", "silu") != "silu":
        yield f"another activation than silu (hidden_act {found['hidden_act']!r})"
    if found.get("quantization_config"):
        yield "weights that are quantized already (quantization_config)"


def _numbers(found: Mapping[str, Any], family: Family, rope: Mapping[str, Any], path: Path) -> BackboneConfig:
    heads, width = (_whole(found, key, path) for key in ("num_attention_heads", "hidden_size"))
    config = BackboneConfig(
        vocabulary=_whole(found, "vocab_size", path),
        layers=_whole(found, "num_hidden_layers", path),
        width=width,
        heads=heads,
        kv_heads=_whole(found, "num_key_value_heads", path, heads),
        head_dim=_whole(found, "head_dim", path, width // heads),
        hidden=_whole(found, "intermediate_size", path),
        rope_theta=_positive(rope, "rope_theta", path, 10_000.0),
        norm_eps=_positive(found, "rms_norm_eps", path, 1e-6),
        positions=_whole(found, "max_position_embeddings", path),
        tied=found.get("tie_word_embeddings") is True,
        bias=family.bias,
        qk_norm=family.qk_norm,
    )
    if config.heads % config.kv_heads or config.head_dim % 2:
        reason = f"{heads} heads of {config.head_dim} dimensions cannot share {config.kv_heads} key-value heads."
        raise DataError(reason, at=str(path))
    return config


def _whole(found: Mapping[str, Any], key: str, path: Path, default: int | None = None) -> int:
    value = default if found.get(key) is None else found[key]
    if type(value) is not int or value < 1:
        raise DataError(f"{key} must be a whole number above zero, got {value!r}.", at=str(path))
    return value


def _positive(found: Mapping[str, Any], key: str, path: Path, default: float) -> float:
    value = default if found.get(key) is None else found[key]
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise DataError(f"{key} must be a number above zero, got {value!r}.", at=str(path))
    return float(value)


def read_backbone(folder: Path, dtype: torch.dtype, bits: Bits | None = None) -> Backbone:
    """A folder's model with floats in `dtype`, and with linear layers but the head in 4 or 8 `bits` if so asked.

    Names and shapes of all files are checked before a weight is read. Then each tensor is converted as it is read, so
    that beside the finished weights only one is held.

    Raises:
        MissingError: a file is not there. DataError: a file is damaged or would run code; a tensor is missing, not
        expected, there twice or of another shape; config.json describes a model that we do not carry.
    """
    config, paths = read_config(folder), shards(folder)
    with torch.device("meta"):
        model = Backbone(config)
    _check(model, [shapes(path) for path in paths], folder)
    if bits is not None:
        quantize_linears(model, bits)
    for path in paths:
        for name, tensor in tensors(path):
            if not name.endswith(IGNORED):
                _place(model, name, tensor, dtype)
    if config.tied:
        _tie(model, folder)
    return model


def _check(model: Backbone, files: Sequence[Mapping[str, tuple[int, ...]]], folder: Path) -> None:
    """Refuse files whose names and shapes are not exactly the model's. A tied head may be left out."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: shape for file in files for name, shape in file.items() if not name.endswith(IGNORED)}
    needed = own.keys() - ({HEAD} if model.config.tied else set())
    faults = [f"{name} {own[name]} missing" for name in needed - found.keys()]
    faults += [f"{name} {found[name]} not expected" for name in found.keys() - own.keys()]
    faults += [f"{k} is {found[k]} instead of {own[k]}" for k in own.keys() & found.keys() if own[k] != found[k]]
    counts = Counter(name for file in files for name in file if name in own)
    faults += [f"{name} {own[name]} is in {count} files" for name, count in counts.items() if count > 1]
    refuse(faults, str(folder))


def _place(model: Backbone, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Put a copy of a mapped tensor into the module that was built empty."""
    if not tensor.is_floating_point():
        raise DataError(f"{name} holds {tensor.dtype}, not floats.", at=name)
    owner, _, field = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, QuantizedLinear) and field == "weight":
        module.fill(tensor)
    else:
        copy = tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
        setattr(module, field, nn.Parameter(copy))


def _tie(model: Backbone, folder: Path) -> None:
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    if not head.is_meta and not torch.equal(head, embedding):
        raise DataError(f"{HEAD} differs from {EMBEDDING}, yet {CONFIG} ties them.", at=str(folder))
    model.lm_head.weight = embedding


@torch.no_grad()
def extend_vocabulary(backbone: Backbone, size: int, how: Start, seed: int) -> Backbone:
    """Append rows to embedding and head up to `size` ids; changes and returns `backbone`. Old rows keep every bit.

    `how`: "mean" starts new rows near the old rows' mean, so that no new id is likely before it is learnt (Hewitt,
    2021); "normal" draws them from N(0, 0.02), as the first ones were.

    Raises:
        MioError: the model has more ids than `size` already.
    """
    if size < backbone.config.vocabulary:
        raise MioError(f"Cannot shrink a vocabulary of {backbone.config.vocabulary} ids to {size}.")
    generator = torch.Generator().manual_seed(seed)
    embedding, head = backbone.model.embed_tokens, backbone.lm_head
    embedding.weight = nn.Parameter(_grown(embedding.weight, size, how, generator))
    tied = backbone.config.tied
    head.weight = embedding.weight if tied else nn.Parameter(_grown(head.weight, size, how, generator))
    embedding.num_embeddings = head.out_features = size
    backbone.config = replace(backbone.config, vocabulary=size)
    return backbone


def _grown(old: Tensor, size: int, how: Start, generator: torch.Generator) -> Tensor:
    """(vocabulary, D) -> (size, D), the first rows unchanged."""
    noise = torch.randn(size - len(old), old.shape[1], generator=generator).to(old.device)
    if how == "normal":
        new = 0.02 * noise
    else:
        spread, mean = torch.std_mean(old.float(), dim=0)
        new = mean + SPREAD * spread * noise
    return torch.cat([old, new.to(old.dtype)])
