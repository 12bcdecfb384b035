"""A folder as m-a-p/MIO-7B-Base or -Instruct is published, at reduced width: its names, ids and files, random weights.

Every code has its token: 8192 of images, 4096 of speech, and six begin, end and placeholder tokens, after a few hundred
text pieces that stand where the release has 64,000.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from fabricate_llama import write_weights
from fabricate_media import SEED, SPEECH, fabricate_seed, fabricate_speech, fabricate_unclip

from mio.checkpoint import write_json
from mio.models.backbone import Backbone, BackboneConfig
from mio.tokenizers.sentencepiece_file import pieces

YI = ("<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>")  # ids 3 to 8
TEXTS = (
    "You are MIO, an AI assistant capable of understanding images, text, videos, and speech.",
    "The caption of this image is: four foxes on a blue background,  two  spaces\n\tand lines.",
    "system user assistant 0 1 2 3 4 5 6 7 8 9 2024 <b>bold</b> | pipes | im start im_end",
    "naïve café 你好，世界 こんにちは",
)
ADDED = ("[SPCH]", "</spch>", "[IMG]", "<spch>", "</image>", "<image>")  # in the release's order
IMAGES, SPEECHES = tuple(f"<img{n}>" for n in range(8192)), tuple(f"<spch{n}>" for n in range(4096))
LAYOUTS = ("A", "B", "permuted")  # images first, speech first, neither


def train_text(**changes: Any) -> bytes:
    """A tokenizer.model as Yi's: BPE, digits apart, byte fallback, no dummy prefix, nothing normalised."""
    options: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 500,
        "hard_vocab_limit": False,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "bos_piece": "<|startoftext|>",
        "eos_piece": "<|endoftext|>",
        "user_defined_symbols": list(YI),
        "byte_fallback": True,
        "split_digits": True,
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "character_coverage": 1.0,
        "num_threads": 1,
        "minloglevel": 2,
    }
    out = BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS * 5), model_writer=out, **options | changes)
    return out.getvalue()


def codes(layout: str) -> tuple[str, ...]:
    """All codes in the order of their ids."""
    if layout == "permuted":
        return tuple(np.random.default_rng(0).permutation(IMAGES + SPEECHES).tolist())
    return IMAGES + SPEECHES if layout == "A" else SPEECHES + IMAGES


def fabricate_release(folder: Path, layout: str = "A", instruct: bool = False, unclip: bool = False) -> Path:
    """Everything but, unless `unclip` (which needs diffusers), the pixel decoder."""
    fabricate_language(folder, layout, instruct)
    fabricate_seed(folder / "seed-tokenizer-2", replace(SEED, codebook_size=len(IMAGES)))
    fabricate_speech(folder / "SpeechTokenizer", replace(SPEECH, codebook_size=len(SPEECHES) // 4))
    if unclip:
        fabricate_unclip(folder / "stable-diffusion-2-1-unclip")
    return folder


def fabricate_language(folder: Path, layout: str = "A", instruct: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = train_text()
    (folder / "tokenizer.model").write_bytes(model)
    text = len(pieces(model))
    write_names(folder, {text + n: token for n, token in enumerate((*ADDED, *codes(layout)))})
    backbone = BackboneConfig(text + len(ADDED) + len(codes(layout)), 2, 64, 8, 1, 8, 96)
    write_json(folder / "config.json", settings(backbone, text))
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    (folder / "README.md").write_text(f"---\nlicense: apache-2.0\n---\n# MIO, fabricated ({instruct=})\n")
    write_weights(folder, lively(backbone).state_dict(), "bin", 6)
    return folder


def write_names(folder: Path, added: dict[int, str]) -> None:
    """tokenizer_config.json and special_tokens_map.json of these added tokens."""
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<unk>", "unk_token": "<unk>"}
    first = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>"}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special = {*first.values(), *ADDED}
    names = {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(id): {"content": token} | flags | {"special": token in special} for id, token in (first | added).items()
        },
        "additional_special_tokens": list(ADDED),
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 4096,
        "tokenizer_class": "LlamaTokenizer",
    }
    write_json(folder / "tokenizer_config.json", names | ends)
    write_json(folder / "special_tokens_map.json", {"additional_special_tokens": list(ADDED)} | ends)


def settings(c: BackboneConfig, text: int) -> dict[str, Any]:
    """config.json with MIO's own keys. Both releases name 2 as the end, Instruct's answers end with 7."""
    own = {name: text + ADDED.index(token) for name, token in PLACES.items()}
    return own | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": c.width,
        "initializer_range": 0.02,
        "intermediate_size": c.hidden,
        "max_position_embeddings": c.positions,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
        "num_new_special_tokens": len(ADDED),
        "packing_mask": False,
        "pretraining_tp": 1,
        "is_decoder": True,
        "rms_norm_eps": c.norm_eps,
        "rope_scaling": None,
        "rope_theta": c.rope_theta,
        "speech_vocab_size": len(SPEECHES),
        "text_vocab_size": text,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.34.0",
        "use_cache": True,
        "visual_vocab_size": len(IMAGES),
        "vocab_size": c.vocabulary,
    }


PLACES = {
    "speech_placeholder_id": "[SPCH]",
    "speech_eos_id": "</spch>",
    "image_placeholder_id": "[IMG]",
    "image_newline_id": "[IMG]",
    "speech_bos_id": "<spch>",
    "image_eos_id": "</image>",
    "image_bos_id": "<image>",
}


def lively(c: BackboneConfig) -> Backbone:
    """Random weights, large enough that predictions differ."""
    torch.manual_seed(0)
    model = Backbone(c).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)
    return model
