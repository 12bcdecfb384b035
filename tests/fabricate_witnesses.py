"""CLIP, Whisper and a speaker network of a few random weights, as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForXVector,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

TOKENS = ["<|endoftext|>", "a", "b", "c", "Ġa", "Ġb", "Ġc"]


def fabricate_witnesses(folder: Path) -> Path:
    torch.manual_seed(0)
    _clip(folder / "clip")
    _whisper(folder / "whisper")
    _speaker(folder / "speaker")
    (folder / "aesthetic").mkdir()
    save_file({"weight": torch.ones(1, 8), "bias": torch.full((1,), 5.0)}, folder / "aesthetic" / "model.safetensors")
    return folder


def _clip(folder: Path) -> None:
    sizes = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**layers, "image_size": 16, "patch_size": 8}
    CLIPModel(
        CLIPConfig(
            text_config=layers | sizes,
            vision_config=vision,
            projection_dim=8,
        )
    ).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    names = ["<pad>", "<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", *"ab"]
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def _whisper(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    words = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    config = WhisperConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_source_positions=50,
        max_target_positions=12, num_mel_bins=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=0, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config.max_length = 8
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=16, chunk_length=1), words).save_pretrained(folder)


def _speaker(folder: Path) -> None:
    config = WavLMConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, tdnn_dim=(8, 8), tdnn_kernel=(3, 1), tdnn_dilation=(1, 1),
        xvector_output_dim=8,
    )  # fmt: skip
    WavLMForXVector(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
