"""The small files of a stock Hugging Face folder: configuration, tokenizer, chat template. Opens none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from mio.decoding.sampling import BeamSearch, Sampling
from mio.models.backbone import Backbone, BackboneConfig
from mio.pretrained.llama import FAMILIES
from mio.sequence import ChatTemplate
from mio.tokenizers.text import TextCodec
from mio.types import DataError, MioError
from mio.vocab import Vocabulary

DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


TOKENIZERS = ("image", "speech", "seed-tokenizer-2", "SpeechTokenizer")  # folders of ours, and of MIO's


@dataclass(frozen=True)
class Outgoing:
    """A model that leaves the house: its parts, and the folder where its media tokenizers and its card lie.

    `sampling`: of text, since a stock process knows of one kind of output only. `stop`: the token that ends answers,
    where it is not either of the end of a turn and that of the text: a base model knows no turns.
    """

    name: str
    backbone: Backbone
    vocab: Vocabulary
    text: TextCodec
    template: ChatTemplate
    sampling: Sampling
    folder: Path
    stop: str = ""

    @property
    def tokenizers(self) -> list[Path]:
        """Folders of its media tokenizers."""
        return [self.folder / name for name in TOKENIZERS if (self.folder / name).is_dir()]

    @property
    def code_ids(self) -> frozenset[int]:
        """Ids of all codes: tokens, but not special ones, so that decoding keeps them."""
        vocab = self.vocab
        return frozenset(int(i) for r in vocab.rows if r.size for i in vocab.level_ids(r.name).ravel())

    @property
    def special_ids(self) -> frozenset[int]:
        """Control tokens, wherever they are, and all beyond text that are no codes: begin and end tokens."""
        return self.vocab.control_ids | frozenset(range(self.vocab.text_size, len(self.vocab))) - self.code_ids


def architecture(c: BackboneConfig) -> tuple[str, str]:
    """Model type and class: Llama, with biases Qwen2, with norms of queries and keys Qwen3.

    Raises:
        MioError: both of them, for which there is no stock class.
    """
    for kind, family in FAMILIES.items():
        if (family.bias, family.qk_norm, family.window) == (c.bias, c.qk_norm, None):
            return kind, family.architecture
    raise MioError("No stock class has both biases and norms of queries and keys.", fix="Drop one of them.")


def config(outgoing: Outgoing, dtype: str) -> dict[str, Any]:
    """config.json, in keys that transformers of today and of years ago understand alike."""
    c, (kind, name) = outgoing.backbone.config, architecture(outgoing.backbone.config)
    shape = {
        "vocab_size": c.vocabulary,
        "hidden_size": c.width,
        "intermediate_size": c.hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.positions,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied,
    }
    fixed = {"hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "use_cache": True}
    head = {"architectures": [name], "model_type": kind, "torch_dtype": str(DTYPES[dtype]).removeprefix("torch.")}
    return head | shape | fixed | _ends(outgoing.vocab) | _sizes(outgoing.vocab)


def _sizes(vocab: Vocabulary) -> dict[str, int]:
    """Numbers of text ids and of codes in the keys of MIO's config.json, by which mio reads a released folder."""
    names = {"image": "visual_vocab_size", "speech": "speech_vocab_size"}
    codes = {names[row.name]: row.size for row in vocab.rows if row.name in names}
    return {"text_vocab_size": vocab.text_size} | codes


def _ends(vocab: Vocabulary) -> dict[str, int]:
    s = vocab.specials
    return {"bos_token_id": vocab.id(s.bos), "eos_token_id": vocab.id(s.eos), "pad_token_id": vocab.id(s.pad)}


def generation(outgoing: Outgoing) -> dict[str, Any]:
    """generation_config.json: our defaults for text; an answer ends with its turn, a document with its end."""
    s, vocab = outgoing.sampling, outgoing.vocab
    eos, im_end = vocab.specials.eos, vocab.specials.im_end
    stops = {"eos_token_id": [vocab.id(token) for token in ((eos,) if outgoing.stop == eos else (im_end, eos))]}
    how: dict[str, Any] = {"do_sample": s.temperature > 0, "repetition_penalty": s.repetition_penalty}
    if s.temperature > 0:
        how |= {"temperature": s.temperature, "top_p": s.top_p, "top_k": s.top_k}
    if isinstance(s, BeamSearch):
        how |= {"num_beams": s.beams, "length_penalty": s.length_penalty}
    return _ends(vocab) | stops | how


def tokenizer(outgoing: Outgoing) -> dict[str, Any]:
    """tokenizer.json: the text tokenizer's own, with every special token and every code as an added token.

    Raises:
        DataError: the text tokenizer has one of these strings already, or other ids than the vocabulary.
    """
    data: dict[str, Any] = json.loads(outgoing.text.to_json())
    held = {token["id"]: token for token in data["added_tokens"]}  # pieces that a text is cut at, such as Yi's
    held |= {id: {"id": id} | token for id, token in added(outgoing).items()}
    data["added_tokens"] = [held[id] for id in sorted(held)]
    stock = Tokenizer.from_str(json.dumps(data))
    tokens = {id: outgoing.vocab.tokens[id] for id in added(outgoing)}
    wrong = [token for id, token in tokens.items() if stock.token_to_id(token) != id]
    if wrong or stock.get_vocab_size() != len(outgoing.vocab):
        what = f"{len(wrong)} tokens have no id of their own ({', '.join(wrong[:3])}); {stock.get_vocab_size()} ids"
        raise DataError(f"The text tokenizer does not fit: {what} instead of {len(outgoing.vocab)}.")
    return data


def added(outgoing: Outgoing) -> dict[int, dict[str, Any]]:
    """id -> added token as the tokenizers library describes it, in order of ids."""
    codes, plain = outgoing.code_ids, {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ids = sorted(outgoing.special_ids | codes)
    return {id: {"content": outgoing.vocab.tokens[id]} | plain | {"special": id not in codes} for id in ids}


def tokenizer_config(outgoing: Outgoing) -> dict[str, Any]:
    vocab, s = outgoing.vocab, outgoing.vocab.specials
    own = {vocab.id(name) for name in (s.bos, s.eos, s.pad)}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": s.bos,
        "eos_token": s.eos,
        "pad_token": s.pad,
        "unk_token": s.pad,
        "additional_special_tokens": [vocab.tokens[id] for id in sorted(outgoing.special_ids - own)],
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": outgoing.backbone.config.positions,
        "added_tokens_decoder": {str(id): token for id, token in added(outgoing).items()},
    }


TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{- content -}}{%- else -%}
{%- for part in content -%}{%- if part.type == "text" -%}{{- part.text -}}{%- else -%}
{{- raise_exception("Only text: write media as their tokens.") -}}
{%- endif -%}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{{- BOS + START + "system\\n" -}}
{%- if messages and messages[0].role == "system" -%}{{- text(messages[0].content) -}}
{%- else -%}{{- SYSTEM -}}{%- endif -%}
{{- END -}}
{%- for message in messages -%}
{%- if message.role in ["user", "assistant"] -%}
{{- "\\n" + START + message.role + "\\n" + text(message.content) + END -}}
{%- elif message.role != "system" -%}{{- raise_exception("Roles are system, user and assistant.") -}}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{- "\\n" + START + "assistant\\n" -}}{%- endif -%}
"""


def chat_template(outgoing: Outgoing, mode: str = "std") -> str:
    """Jinja that writes what `sequence.render` does for turns of text.

    Raises:
        MioError: the model has no system prompt of that mode.
    """
    template, s = outgoing.template, outgoing.vocab.specials
    if mode not in template.systems:
        raise MioError(f"This model has no system prompt {mode!r}.", fix=f"Known: {', '.join(template.systems)}.")
    bos = s.bos if template.bos else ""
    words = {"SYSTEM": template.systems[mode], "BOS": bos, "START": s.im_start, "END": s.im_end}
    return re.sub(r"\b(SYSTEM|BOS|START|END)\b", lambda found: _literal(words[found[1]]), TEMPLATE)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # Jinja reads JSON's escapes, but no pairs of surrogates
