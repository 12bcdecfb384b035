"""A model as one GGUF file for llama.cpp and its relatives, written by the `gguf` package and read back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mio.models.backbone import BackboneConfig
from mio.pretrained import stock
from mio.pretrained.export import narrowest, plain, vacant
from mio.pretrained.gguf_vocabulary import write_vocabulary
from mio.pretrained.stock import DTYPES, Outgoing
from mio.types import DataError, MioError, MissingError


@dataclass(frozen=True)
class Written:
    """What is in the file: `tensors` equal the model's bit for bit, as read back."""

    dtype: str
    tensors: int
    tokens: int
    bytes: int


def export_gguf(outgoing: Outgoing, out: Path, dtype: str = "") -> Written:
    """Write the language model, its vocabulary and its chat template; media tokenizers have no place in GGUF.

    Raises:
        MioError: `out` is there, or llama.cpp has no like of this shape or text tokenizer. MissingError: no `gguf`.
        DataError: the file read back is not the model.
    """
    vacant(out)
    _fits(outgoing.backbone.config)
    state = plain(outgoing.backbone)
    dtype = dtype or narrowest(state)
    staging = out.with_name(f".{out.name}.new")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(outgoing, state, dtype, staging)
        count = _read_back(staging, outgoing, state, dtype)
        os.replace(staging, out)
    finally:
        staging.unlink(missing_ok=True)
    return Written(dtype, count, len(outgoing.vocab), out.stat().st_size)


def _fits(c: BackboneConfig) -> None:
    """Raise `MioError` for a shape that llama.cpp's class of this model cannot have."""
    if stock.architecture(c)[0] == "qwen2" and c.heads * c.head_dim != c.width:
        what = f"llama.cpp's Qwen2 has heads as wide as the model: {c.heads} of {c.head_dim} are not {c.width}."
        raise MioError(what, fix="Use `mio export hf`; transformers carries this shape.")


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingError("Writing GGUF needs the gguf package.", fix="Install it: pip install 'mio[hf]'") from error
    return gguf


def _write(outgoing: Outgoing, state: Mapping[str, Tensor], dtype: str, path: Path) -> None:
    gguf, kind = _gguf(), stock.architecture(outgoing.backbone.config)[0]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name(outgoing.name)
    writer.add_file_type(_file_type(gguf, dtype))
    _shape(writer, outgoing.backbone.config)
    write_vocabulary(gguf, writer, outgoing)
    for name, tensor in _tensors(state, outgoing.backbone.config, dtype):
        raw = None if tensor.dtype != torch.bfloat16 else gguf.GGMLQuantizationType.BF16
        writer.add_tensor_info(name, tensor.shape, _array(tensor).dtype, tensor.nbytes, raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, tensor in _tensors(state, outgoing.backbone.config, dtype):
        writer.write_tensor_data(_array(tensor))
    writer.flush()
    writer.close()


def _file_type(gguf: Any, dtype: str) -> int:
    kinds = gguf.LlamaFileType
    return int({"bf16": kinds.MOSTLY_BF16, "fp16": kinds.MOSTLY_F16, "fp32": kinds.ALL_F32}[dtype])


def _shape(writer: Any, c: BackboneConfig) -> None:
    writer.add_vocab_size(c.vocabulary)
    writer.add_context_length(c.positions)
    writer.add_embedding_length(c.width)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.norm_eps)


def _tensors(state: Mapping[str, Tensor], c: BackboneConfig, dtype: str) -> Iterator[tuple[str, Tensor]]:
    """GGUF names and tensors, one at a time; vectors are fp32, as llama.cpp computes with them."""
    gguf, kind = _gguf(), stock.architecture(c)[0]
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, c.layers)
    for name, tensor in state.items():
        wide = DTYPES[dtype] if tensor.ndim > 1 else torch.float32
        if kind == "llama":
            tensor = paired(tensor, heads_of(name, c))
        yield names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.to(wide).contiguous()


def heads_of(name: str, c: BackboneConfig) -> int:
    """Number of heads whose rows turn with their position; 0 for all but queries and keys."""
    return {"q_proj": c.heads, "k_proj": c.kv_heads}.get(name.split(".")[-2], 0)


def paired(rows: Tensor, heads: int) -> Tensor:
    """Rows of each head from halves to pairs: llama.cpp turns neighbours, (heads * Dh, width) as before."""
    if not heads:
        return rows
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def halved(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `paired`."""
    if not heads:
        return rows
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _array(tensor: Tensor) -> NDArray[Any]:
    """numpy has no bf16: its bits go as int16."""
    array: NDArray[Any] = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
    return array


def _read_back(path: Path, outgoing: Outgoing, state: Mapping[str, Tensor], dtype: str) -> int:
    """Number of tensors in a file, all the model's.

    Raises:
        DataError: one differs, or there are others.
    """
    found = {t.name: t.data for t in _gguf().GGUFReader(path).tensors}
    for name, tensor in _tensors(state, outgoing.backbone.config, dtype):
        own = _array(tensor)
        if name not in found or not np.array_equal(found.pop(name).view(own.dtype).reshape(own.shape), own):
            raise DataError(f"{name} was not written as it is.", at=str(path), fix="Try again on another disk.")
    if found:
        raise DataError(f"The file has tensors of no one: {', '.join(found)}.", at=str(path))
    return len(state)
