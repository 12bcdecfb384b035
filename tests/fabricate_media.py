"""The released media tokenizers as their publishers' files hold them, at reduced width: true names, random numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mio.checkpoint import write_json
from mio.config import to_dict
from mio.pretrained import seed, speech
from mio.tokenizers.seed import QFormer, SeedConfig, SeedNetwork
from mio.tokenizers.speech import SpeechConfig, SpeechNetwork

SEED = SeedConfig(  # as deep as the released one, so that its 881 names are there
    image_size=28,
    vit_width=16,
    vit_heads=2,
    vit_hidden=24,
    width=16,
    heads=2,
    hidden=32,
    codebook_size=64,
    code_dim=8,
    image_down=(8, 4, 1),
    embedding=32,
)
SPEECH = SpeechConfig(filters=2, dimension=16, semantic_dimension=12, codebook_size=32)
RELEASED_SPEECH = {  # of speechtokenizer_hubert_avg, with some of its leftovers of training
    "n_filters": 64,
    "strides": [8, 5, 4, 2],
    "dimension": 1024,
    "semantic_dimension": 768,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 2,
    "activation": "ELU",
    "codebook_size": 1024,
    "n_q": 8,
    "sample_rate": 16000,
    "batch_size": 60,
    "lambda_distill": 0.15,
    "segment_size": 48000,
}


def fabricate_seed(folder: Path, config: SeedConfig = SEED) -> SeedNetwork:
    """A folder `seed-tokenizer-2`; returns the network that its files hold, whose codes differ between images."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = _lively(SeedNetwork(config)).eval().requires_grad_(False)
    vit = {k.removeprefix(seed.PREFIX): v for k, v in network.state_dict().items() if k.startswith(seed.PREFIX)}
    rest = {k: v for k, v in network.state_dict().items() if not k.startswith(seed.PREFIX)}
    last = SeedNetwork(replace(config, vit_depth=1)).visual_encoder.blocks[0]
    dropped = {f"blocks.{config.vit_depth}.{k}": v for k, v in last.state_dict().items()}
    width = config.vit_width
    head = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    head |= {"head.weight": torch.zeros(5, width), "head.bias": torch.zeros(5)}
    torch.save({k: v.half() for k, v in {**vit, **dropped, **head}.items()}, folder / seed.VIT)
    torch.save({**rest, **heads_of_training(config), **text_half(config)}, folder / seed.QUANTIZER)
    write_json(folder / "config.json", to_dict(config))
    return network


@torch.no_grad()
def _lively(network: SeedNetwork) -> SeedNetwork:
    """Weights that tell images apart, the ViT's rounded to what fp16 holds."""
    network.query_tokens.normal_()
    network.quantize.embedding.weight.normal_()
    network.encode_task_layer[2].weight.mul_(5)
    for tensor in network.visual_encoder.parameters():
        tensor.copy_((tensor + 0.02 * torch.randn_like(tensor)).half())
    return network


def heads_of_training(config: SeedConfig) -> dict[str, Tensor]:
    """The 146 tensors that seed_quantizer.pt holds beyond the network: text reconstruction and stage 1's heads."""
    width = config.width
    extra = {"pos_embed_text": torch.zeros(1, 77, width), "reverse_tokens_text": torch.zeros(1, 77, width)}
    blocks = SeedNetwork(replace(config, reverse_depth=4, vit_depth=1)).blocks
    extra |= {f"blocks_text.{k}": v for k, v in blocks.state_dict().items()}
    reverse = QFormer(replace(config, layers=4, vit_width=width)).state_dict()
    extra |= {f"Reverse_Qformer_text.{k}": v for k, v in reverse.items()}
    heads = {"distill_text_proj": width, "text_proj": 8, "vision_proj": 8, "itm_head": 2}
    for name, out in heads.items():
        extra |= {f"{name}.weight": torch.zeros(out, width), f"{name}.bias": torch.zeros(out)}
    return extra | {"temp": torch.tensor(0.07)}


def text_half(config: SeedConfig) -> dict[str, Tensor]:
    """The 81 tensors of the Q-Former that only text passes through."""
    width, out = config.width, {}
    for layer in (f"Qformer.bert.encoder.layer.{i}." for i in range(config.layers)):
        out |= _linear(f"{layer}intermediate.dense", width, config.hidden)
        out |= _linear(f"{layer}output.dense", config.hidden, width) | _norm(f"{layer}output.LayerNorm", width)
    for name, rows in (("word", 50), ("position", 512)):
        out[f"Qformer.bert.embeddings.{name}_embeddings.weight"] = torch.zeros(rows, width)
    predictions = "Qformer.cls.predictions."
    out |= _linear(f"{predictions}transform.dense", width, width) | _norm(f"{predictions}transform.LayerNorm", width)
    return out | _linear(f"{predictions}decoder", width, 50) | {f"{predictions}bias": torch.zeros(50)}


def _linear(name: str, width: int, out: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.zeros(out, width), f"{name}.bias": torch.zeros(out)}


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


def fabricate_speech(folder: Path, config: SpeechConfig = SPEECH, newer: bool = False) -> SpeechNetwork:
    """A folder `SpeechTokenizer`; returns the network of its file. `newer`: weight norm under torch's newer names."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = SpeechNetwork(config).eval().requires_grad_(False)
    seen = network.encoder(torch.randn(1, 1, 64 * config.hop))[0].T  # (64, D)
    for codebook in network.quantizer.codebooks():
        codebook.embed.copy_(seen[torch.randint(64, (config.codebook_size,))] * torch.rand(config.codebook_size, 1))
        codebook.inited.fill_(1)
    state = network.state_dict()
    torch.save(parametrised(state) if newer else state, folder / speech.WEIGHTS)
    (folder / "config.json").write_text(json.dumps(RELEASED_SPEECH | released_names(config)), encoding="utf-8")
    return network


def parametrised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Legacy names of weight norm -> those of torch.nn.utils.parametrizations."""
    newer = {legacy: name for name, legacy in speech.PARAMETRISED.items()}
    renamed = {}
    for name, tensor in state.items():
        parent, _, leaf = name.rpartition(".")
        renamed[f"{parent}.{newer.get(leaf, leaf)}"] = tensor
    return renamed


def released_names(config: SpeechConfig) -> dict[str, object]:
    """`config` in the keys of the released config.json."""
    return {
        "n_filters": config.filters,
        "strides": list(config.strides),
        "dimension": config.dimension,
        "semantic_dimension": config.semantic_dimension,
        "codebook_size": config.codebook_size,
        "n_q": config.levels,
        "sample_rate": config.sample_rate,
        "lstm_layers": config.lstm_layers,
    }


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.mark), "w")


def fabricate_trap(path: Path, mark: Path) -> None:
    """A file of weights which makes the file `mark` when it is unpickled without care."""
    torch.save({"query_tokens": torch.zeros(1), "trap": _Trap(mark)}, path)


def fabricate_unclip(folder: Path, embedding: int = SEED.embedding) -> Path:
    """A folder `stable-diffusion-2-1-unclip` in safetensors that draws 16 x 16 pictures. Needs diffusers.

    Its index names an image encoder as the released one does; the files of that are left out.
    """
    import diffusers
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

    torch.manual_seed(0)
    diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=None,
        image_encoder=None,
        image_normalizer=StableUnCLIPImageNormalizer(embedding),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        **_text(folder.with_name(f"{folder.name}-vocabulary")),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=8,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * embedding,
            use_linear_projection=True,
        ),
        scheduler=diffusers.PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        vae=diffusers.AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=2,
            sample_size=16,
        ),
    ).save_pretrained(folder, safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text())
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    write_json(folder / "model_index.json", index)
    return folder


def _text(vocabulary: Path) -> dict[str, Any]:
    """A text encoder and its tokenizer for the empty prompt; the vocabulary's files are written beside the folder."""
    import transformers

    pieces = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    vocabulary.mkdir(parents=True)
    write_json(vocabulary / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
    (vocabulary / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = transformers.CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    tokenizer = transformers.CLIPTokenizer.from_pretrained(vocabulary, model_max_length=8)
    return {"text_encoder": transformers.CLIPTextModel(config), "tokenizer": tokenizer}
