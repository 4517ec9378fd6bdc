"""Sizes, configuration files and layouts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_agent.errors import UserError
from megatron_agent.model.config import (
    PRESETS,
    LlamaConfig,
    load_llama_config,
    padded_vocab_size,
)
from megatron_agent.model.layout import ParallelConfig, check_layout, layers_per_stage
from tests.model.tiny import LLAMA3_ROPE, VARIANTS

BASE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 301,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
}


def write(folder: Path, **changes: Any) -> Path:
    record = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
    ],
)
def test_presets_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert load_llama_config(name) is PRESETS[name]
    assert PRESETS[name].num_parameters() == parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_configuration_written_by_transformers_is_read(variant: str, tmp_path: Path) -> None:
    from transformers import LlamaConfig as HfConfig
    from transformers import LlamaForCausalLM

    hf = HfConfig(**{**{k: v for k, v in BASE.items() if k != "model_type"}, **VARIANTS[variant]})
    hf.save_pretrained(tmp_path)
    config = LlamaConfig.from_hf(tmp_path)
    with torch.device("meta"):
        assert config.num_parameters() == LlamaForCausalLM(hf).num_parameters()
    assert config.head_dim == (VARIANTS[variant].get("head_dim") or 16)
    assert config.rope_theta == VARIANTS[variant].get("rope_parameters", {}).get("rope_theta", 10000.0)


def test_both_spellings_of_the_rotary_settings_mean_the_same(tmp_path: Path) -> None:
    new = LlamaConfig.from_hf(write(tmp_path, rope_parameters=LLAMA3_ROPE))
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    old = LlamaConfig.from_hf(write(tmp_path, rope_theta=500000.0, rope_scaling=scaling))
    assert new == old
    assert (new.rope_theta, new.rope_scaling) == (500000.0, scaling)
    linear = LlamaConfig.from_hf(write(tmp_path, rope_scaling={"type": "linear", "factor": 2.0}))
    assert linear.rope_scaling == {"rope_type": "linear", "factor": 2.0}
    assert LlamaConfig.from_hf(write(tmp_path, rope_scaling=None)).rope_scaling is None


def test_written_configuration_is_read_back(tmp_path: Path) -> None:
    for config in PRESETS.values():
        (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
        assert LlamaConfig.from_hf(tmp_path) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "only Llama-architecture"),
        ({"attention_bias": True}, '"attention_bias": False, got True'),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "'silu', got 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "default, linear, llama3, got 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor, high_freq_factor"),
        ({"vocab_size": None}, '"vocab_size", got None'),
        ({"num_hidden_layers": 0}, '"num_hidden_layers", got 0'),
        ({"hidden_size": "64"}, "\"hidden_size\", got '64'"),
        ({"num_key_value_heads": 3}, "not a multiple of num_key_value_heads 3"),
        ({"hidden_size": 66}, "hidden_size 66 is not a multiple"),
        ({"hidden_size": float("inf")}, '"hidden_size", got inf'),
        ({"tie_word_embeddings": "false"}, "\"tie_word_embeddings\", got 'false'"),
        ({"rope_scaling": "linear"}, "expected a JSON object under rope_parameters or rope_scaling, got 'linear'"),
        ({"rope_parameters": {"rope_theta": "abc"}}, "\"rope_theta\", got 'abc'"),
        ({"rope_parameters": {"rope_theta": -1.0}}, '"rope_theta", got -1.0'),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "needs a positive number under factor"),
    ],
)
def test_other_models_are_refused_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        LlamaConfig.from_hf(write(tmp_path, **changes))
    assert message in str(caught.value)
    assert "config.json" in str(caught.value)


def test_missing_and_broken_configurations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preset .*llama-2-7b.* or a Hugging Face model folder, got 'llama-9'"):
        load_llama_config("llama-9")
    with pytest.raises(UserError, match=r"config\.json at"):
        load_llama_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_llama_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object, got list"):
        load_llama_config(tmp_path)


def test_vocabulary_padding_does_not_depend_on_the_layout() -> None:
    assert [padded_vocab_size(size) for size in (1, 128, 129, 32000, 128256)] == [128, 128, 256, 32000, 128256]


def test_layouts_that_fit() -> None:
    config = PRESETS["llama-2-70b"]
    assert check_layout(config, ParallelConfig(8, 4, True), 64) == 2
    assert check_layout(config, ParallelConfig(), 1) == 1
    assert check_layout(config, ParallelConfig(8, 1, True), 8, seq_length=4096) == 1


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [
        (ParallelConfig(1, 4), [20, 20, 20, 20]),
        (ParallelConfig(1, 4, num_layers_in_first_pipeline_stage=17), [17, 21, 21, 21]),
        (
            ParallelConfig(1, 4, num_layers_in_first_pipeline_stage=19, num_layers_in_last_pipeline_stage=17),
            [19, 22, 22, 17],
        ),
    ],
)
def test_layers_of_the_pipeline_ranks(parallel: ParallelConfig, expected: list[int]) -> None:
    check_layout(PRESETS["llama-2-70b"], parallel, 4)
    assert layers_per_stage(80, parallel) == expected


def test_rows_that_sequence_parallelism_cannot_divide() -> None:
    with pytest.raises(UserError, match="divides each row over 8 ranks, which do not divide seq_length=4090"):
        check_layout(PRESETS["llama-2-70b"], ParallelConfig(8, 1, True), 8, seq_length=4090)


@pytest.mark.parametrize(
    ("parallel", "world_size", "messages"),
    [
        (ParallelConfig(16), 16, ["tensor_model_parallel_size=16 does not divide num_key_value_heads=8"]),
        (ParallelConfig(3), 3, ["num_attention_heads=64", "num_key_value_heads=8", "padded vocabulary=32000"]),
        (ParallelConfig(1, 3), 3, ["pipeline_model_parallel_size=3 does not divide num_hidden_layers=80"]),
        (ParallelConfig(4, 2), 12, ["world size 12", "4 x 2 = 8"]),
        (ParallelConfig(1, 1, True), 1, ["sequence_parallel=true needs tensor_model_parallel_size > 1"]),
        (ParallelConfig(0), 1, ["tensor_model_parallel_size", "1 or more, got 0"]),
        (ParallelConfig(4, context_parallel_size=2), 12, ["context_parallel_size = 4 x 1 x 2 = 8"]),
        (ParallelConfig(virtual_pipeline_model_parallel_size=2), 1, ["needs pipeline_model_parallel_size > 1"]),
        (ParallelConfig(num_layers_in_first_pipeline_stage=2), 1, ["num_layers_in_first_pipeline_stage=2 needs"]),
        (ParallelConfig(1, 4, virtual_pipeline_model_parallel_size=3), 4, ["=3 does not divide the 20 layers"]),
        (ParallelConfig(1, 4, num_layers_in_first_pipeline_stage=18), 4, ["leave 62 of num_hidden_layers=80 to 3"]),
        (
            ParallelConfig(1, 2, num_layers_in_first_pipeline_stage=39, num_layers_in_last_pipeline_stage=40),
            2,
            ["leave 1 of num_hidden_layers=80 to 0"],
        ),
        (ParallelConfig(3, 3, False), 4, ["num_attention_heads", "num_hidden_layers", "world size 4"]),
    ],
)
def test_layouts_that_do_not_divide_name_every_flag(
    parallel: ParallelConfig, world_size: int, messages: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        check_layout(PRESETS["llama-2-70b"], parallel, world_size)
    for message in messages:
        assert message in str(caught.value)
