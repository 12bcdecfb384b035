"""pretrained/llama.py, config.json: the numbers of the Llama family; what we do not carry is refused by its key."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricate_llama import SMALL, VARIANTS, settings_of, write_settings

from mio.models.backbone import Backbone, BackboneConfig
from mio.pretrained.llama import read_config
from mio.types import DataError, MissingError

MIO = {  # config.json of MIO-7B, with its own keys
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "image_bos_id": 64005,
    "image_eos_id": 64004,
    "image_newline_id": 64002,
    "image_placeholder_id": 64002,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "is_decoder": True,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 4,
    "num_new_special_tokens": 6,
    "packing_mask": False,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "speech_bos_id": 64003,
    "speech_eos_id": 64001,
    "speech_placeholder_id": 64000,
    "speech_vocab_size": 4096,
    "text_vocab_size": 64000,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.34.0",
    "use_cache": True,
    "visual_vocab_size": 8192,
    "vocab_size": 76294,
}


def test_mio_7bs_config_is_our_default(tmp_path: Path) -> None:
    assert read_config(write_settings(tmp_path, MIO)) == BackboneConfig()


def test_the_full_size_module_has_the_released_names_and_shapes(tmp_path: Path) -> None:
    layer = {
        "self_attn.q_proj": (4096, 4096),
        "self_attn.k_proj": (512, 4096),
        "self_attn.v_proj": (512, 4096),
        "self_attn.o_proj": (4096, 4096),
        "mlp.gate_proj": (11008, 4096),
        "mlp.up_proj": (11008, 4096),
        "mlp.down_proj": (4096, 11008),
        "input_layernorm": (4096,),
        "post_attention_layernorm": (4096,),
    }
    ends = {"model.embed_tokens": (76294, 4096), "model.norm": (4096,), "lm_head": (76294, 4096)}
    inner = {f"model.layers.{n}.{name}": shape for n in range(32) for name, shape in layer.items()}
    with torch.device("meta"):
        model = Backbone(read_config(write_settings(tmp_path, MIO)))
    expected = {f"{name}.weight": shape for name, shape in (ends | inner).items()}
    assert len(expected) == 291
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
    assert sum(p.numel() for p in model.parameters()) == 6_161_747_968


def test_the_released_list_of_tensors_is_ours(released: dict[str, dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        state = Backbone(BackboneConfig()).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == released["mio_lm"]


@pytest.mark.parametrize("c", VARIANTS)
def test_a_config_written_is_the_config_read(tmp_path: Path, c: BackboneConfig) -> None:
    assert read_config(write_settings(tmp_path, settings_of(c))) == c


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_configs_written_by_transformers_are_read(tmp_path: Path, family: str) -> None:
    transformers = importlib.import_module("transformers")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 77.0},
        max_position_embeddings=64,
        tie_word_embeddings=True,
        architectures=[f"{family}ForCausalLM"],
    )
    config.save_pretrained(tmp_path)
    expected = BackboneConfig(50, 2, 64, 4, 2, 32, 96, 77.0, 1e-5, 64, True, family == "Qwen2", family == "Qwen3")
    assert read_config(tmp_path) == expected


def test_what_a_config_may_leave_out_is_what_transformers_fills_in(tmp_path: Path) -> None:
    settings = settings_of(SMALL)
    for key in (
        "head_dim",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_theta",
        "tie_word_embeddings",
        "architectures",
    ):
        del settings[key]
    assert read_config(write_settings(tmp_path, settings)) == replace(SMALL, kv_heads=4)


@pytest.mark.parametrize("settings", [{"rope_scaling": {"type": "default"}}, {"sliding_window": 16}, {"mystery": [1]}])
def test_keys_that_change_nothing_are_ignored(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert read_config(write_settings(tmp_path, settings_of(SMALL), **settings)) == SMALL


MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}


@pytest.mark.parametrize("window", [{"sliding_window": None}, {"sliding_window": 64}, {}])
def test_mistral_without_a_window_inside_its_positions_is_carried(tmp_path: Path, window: dict[str, Any]) -> None:
    assert read_config(write_settings(tmp_path, {**settings_of(SMALL), **MISTRAL, **window})) == SMALL


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "RoPE scaled as 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "RoPE scaled as 'llama3'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "RoPE scaled as 'yarn'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "from layer to layer"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
        ({**MISTRAL, "sliding_window": 16}, "sliding window of 16"),
        ({**MISTRAL, "max_position_embeddings": 32768}, "sliding window of 4096"),
        ({**QWEN, "use_sliding_window": True, "sliding_window": 32}, "sliding window of 32"),
        ({**QWEN, "layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"model_type": "gemma"}, "Model type 'gemma' is not of the Llama family"),
        ({"model_type": None}, "Model type 'None'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"vocab_size": None}, "vocab_size must be a whole number"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number above zero, got '64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"max_position_embeddings": 4096.0}, "max_position_embeddings"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"num_key_value_heads": 3}, "cannot share 3"),
        ({"head_dim": 15}, "4 heads of 15"),
    ],
)
def test_what_we_do_not_carry_is_refused_by_its_key(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_config(write_settings(tmp_path, settings_of(SMALL), **changes))
    assert caught.value.at.endswith("config.json")


def test_all_obstacles_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"linear.*attention_bias.*mlp_bias"):
        changes = {"rope_scaling": {"type": "linear"}, "attention_bias": True, "mlp_bias": True}
        read_config(write_settings(tmp_path, settings_of(SMALL), **changes))


@pytest.mark.parametrize("text", ["[]", "{", "3"])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json is not"):
        read_config(tmp_path)


def test_a_folder_without_config_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"No config\.json") as caught:
        read_config(tmp_path)
    assert "Hugging Face" in caught.value.fix
