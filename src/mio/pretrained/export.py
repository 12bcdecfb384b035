"""A model as a stock Hugging Face folder, which loads anywhere without our code; nothing unproved is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mio.checkpoint import MANIFEST, commit, write_json
from mio.models.backbone import Backbone
from mio.pretrained import stock
from mio.pretrained.card import card
from mio.pretrained.llama import HEAD
from mio.pretrained.proof import Proof, prove
from mio.pretrained.stock import DTYPES, Outgoing
from mio.pretrained.weights import INDEXES
from mio.types import MioError

SHARD = 4 * 10**9  # bytes of one file
TEXT_FILES = ("tokenizer.model", "special_tokens_map.json")  # of MIO's: with them, mio loads the export again


def export(outgoing: Outgoing, out: Path, dtype: str = "", shard: int = SHARD, load: bool = True) -> Proof:
    """Write a folder that stock `transformers` loads, check it against the model, then put it in place.

    `dtype`: bf16, fp16 or fp32; by default the narrowest that keeps every weight as it is. `shard`: most bytes of
    a file of weights, as long as every tensor is smaller. `load`: try the result with transformers, where installed.

    Raises:
        MioError: `out` is there and not empty, or the weights are not plain ones. DataError: the result is not the
        model. ResourceError: the disk is full.
    """
    vacant(out)
    proofs: list[Proof] = []
    commit(out, lambda folder: proofs.append(write_folder(outgoing, folder, dtype, shard, load)))
    return proofs[0]


def write_folder(outgoing: Outgoing, folder: Path, dtype: str, shard: int, load: bool) -> Proof:
    """All files of an export, checked. Arguments and errors as `export`."""
    state = plain(outgoing.backbone)
    dtype = dtype or narrowest(state)
    write_weights(state, folder, DTYPES[dtype], shard)
    write_words(outgoing, folder, dtype)
    proof = prove(outgoing, folder, dtype, load)
    (folder / "README.md").write_text(card(outgoing, proof), encoding="utf-8")
    return proof


def vacant(out: Path) -> None:
    """Raise `MioError` where something is that an export would replace."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise MioError("Something is there already.", at=str(out), fix="Give another place, or remove it first.")


def plain(backbone: Backbone) -> dict[str, Tensor]:
    """The weights under their stock names; a tied head is left out, as it is one tensor with the embedding.

    Raises:
        MioError: other names or shapes than the configuration has, as in a quantized model.
    """
    with torch.device("meta"):
        expected = {k: v.shape for k, v in Backbone(backbone.config).state_dict().items()}
    state: dict[str, Tensor] = backbone.state_dict()
    if {k: v.shape for k, v in state.items()} != expected or not all(v.is_floating_point() for v in state.values()):
        raise MioError("The weights are quantized or changed, and cannot leave as they are.", fix="Load them in bf16.")
    return {k: v for k, v in state.items() if not (backbone.config.tied and k == HEAD)}


def narrowest(state: Mapping[str, Tensor]) -> str:
    """The first of bf16, fp16 and fp32 that holds every weight exactly: the dtype in which a model was stored."""
    for name in ("bf16", "fp16"):
        if all(torch.equal(v.to(DTYPES[name]).to(v.dtype), v) for v in state.values()):
            return name
    return "fp32"


def write_weights(state: Mapping[str, Tensor], folder: Path, dtype: torch.dtype, limit: int) -> None:
    """Shards of at most `limit` bytes with their index; one shard at a time is converted."""
    groups = list(_groups({k: v.numel() * dtype.itemsize for k, v in state.items()}, limit))
    where: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        path = folder / f"model-{number:05}-of-{len(groups):05}.safetensors"
        save_file({n: state[n].to(dtype).contiguous() for n in names}, path, metadata={"format": "pt"})
        where |= dict.fromkeys(names, path.name)
    total = sum(v.numel() for v in state.values()) * dtype.itemsize
    write_json(folder / INDEXES[0], {"metadata": {"total_size": total}, "weight_map": where})


def _groups(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Names in their order, in runs of at most `limit` bytes; what is larger stands alone."""
    run: list[str] = []
    held = 0
    for name, count in sizes.items():
        if run and held + count > limit:
            yield run
            run, held = [], 0
        run.append(name)
        held += count
    yield run


def write_words(outgoing: Outgoing, folder: Path, dtype: str) -> None:
    """All that is not weights: configuration, text tokenizer, template; and the media tokenizers, as they are."""
    write_json(folder / "config.json", stock.config(outgoing, dtype))
    write_json(folder / "generation_config.json", stock.generation(outgoing))
    write_json(folder / "tokenizer.json", stock.tokenizer(outgoing))
    write_json(folder / "tokenizer_config.json", stock.tokenizer_config(outgoing))
    (folder / "chat_template.jinja").write_text(stock.chat_template(outgoing), encoding="utf-8")
    for path in outgoing.tokenizers:
        shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns(MANIFEST))
    for name in TEXT_FILES:
        if (outgoing.folder / name).is_file():
            shutil.copy(outgoing.folder / name, folder / name)
