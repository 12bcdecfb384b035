"""Text tokenizer, special tokens and codes as llama.cpp wants them: byte-level BPE, or SentencePiece's BPE."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mio.pretrained import stock
from mio.pretrained.stock import Outgoing
from mio.types import MioError

SPLITS = {  # llama.cpp's names (llama-vocab.cpp) for the ways to cut text before byte-level BPE
    ("Digits", "ByteLevel"): "smollm",
    ("ByteLevel",): "gpt-2",
}
PLAIN: Mapping[str, Mapping[str, bool]] = {
    "Digits": {"individual_digits": True},
    "ByteLevel": {"add_prefix_space": False, "use_regex": True},
}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREFIX = {"type": "Prepend", "prepend": "▁"}
UNREACHED = -1e9  # score of a piece that no merge makes


def write_vocabulary(gguf: Any, writer: Any, outgoing: Outgoing) -> None:
    """Every id as a token, with its kind; the ends of answers; the chat template.

    Raises:
        MioError: llama.cpp has no tokenizer that gives the same ids.
    """
    data = stock.tokenizer(outgoing)
    ids: dict[str, int] = data["model"]["vocab"] | {t["content"]: t["id"] for t in data["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([int(kind) for kind in _kinds(gguf, tokens, data)])
    if data["model"].get("byte_fallback"):
        _write_sentencepiece(writer, data, tokens)
    else:
        _write_byte_level(writer, data)
    _write_ends(writer, outgoing)
    writer.add_chat_template(stock.chat_template(outgoing))


def _kinds(gguf: Any, tokens: list[str], data: Mapping[str, Any]) -> Iterator[Any]:
    """Special tokens are control tokens; codes, and pieces that cut a text, are user-defined. The rest is text."""
    kinds, model = gguf.TokenType, data["model"]
    special = {token["content"]: token["special"] for token in data["added_tokens"]}
    for token in tokens:
        if token == model.get("unk_token"):
            yield kinds.UNKNOWN
        elif token in special:
            yield kinds.CONTROL if special[token] else kinds.USER_DEFINED
        else:
            byte = model.get("byte_fallback") and re.fullmatch("<0x[0-9A-F]{2}>", token)
            yield kinds.BYTE if byte else kinds.NORMAL


def _write_byte_level(writer: Any, data: Mapping[str, Any]) -> None:
    first = data.get("pre_tokenizer") or {}
    steps = first.get("pretokenizers", [first])
    fits = all(step.items() >= PLAIN.get(step.get("type"), {"": True}).items() for step in steps)
    name = SPLITS.get(tuple(step.get("type") for step in steps))
    if name is None or not fits or data.get("normalizer"):
        raise _unknown("cuts text in a way that llama.cpp has no name for")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_merges([" ".join(pair) for pair in data["model"]["merges"]])


def _write_sentencepiece(writer: Any, data: Mapping[str, Any], tokens: list[str]) -> None:
    """llama.cpp merges by the score of the piece that results: the higher, the sooner. Ours is the merge's rank."""
    first = data.get("normalizer") or {}
    steps = first.get("normalizers", [first])
    if data.get("pre_tokenizer") or steps not in ([SPACES], [PREFIX, SPACES]):
        raise _unknown("normalizes text otherwise than SentencePiece in llama.cpp")
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(data["model"]["merges"]):
        ranks.setdefault(left + right, rank)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([-float(ranks[t]) if t in ranks else UNREACHED for t in tokens])
    writer.add_add_space_prefix(PREFIX in steps)


def _unknown(what: str) -> MioError:
    fix = "Use llama.cpp's own convert_hf_to_gguf.py on the folder that `mio export hf` writes."
    return MioError(f"This model's text tokenizer {what}.", fix=fix)


def _write_ends(writer: Any, outgoing: Outgoing) -> None:
    s, id = outgoing.vocab.specials, outgoing.vocab.id
    writer.add_bos_token_id(id(s.bos))
    writer.add_eos_token_id(id(s.eos))
    if outgoing.stop != s.eos:
        writer.add_eot_token_id(id(s.im_end))
    writer.add_pad_token_id(id(s.pad))
    writer.add_add_bos_token(False)  # the chat template writes it
    writer.add_add_eos_token(False)
