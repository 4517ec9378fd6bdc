"""Hugging Face -> Megatron -> Hugging Face gives the same bytes (bar 4)."""

import filecmp
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints_convert import hf_to_megatron, mapping, megatron_to_hf
from checkpoints_convert.safetensors_folder import INDEX_FILE, SafetensorsFolder, plan_shards
from checkpoints_convert.torch_dist import TensorReader
from checkpoints_convert.verify import same_bits
from megatron_agent.model.checkpoint_folder import latest_checkpoint, read_run_file, verify_checkpoint
from megatron_agent.model.config import LlamaConfig
from tests.model.tiny import VARIANTS, save_tiny_llama


def round_trip(hf: Path, folder: Path, **options: Any) -> Path:
    hf_to_megatron.convert(hf, folder / "megatron")
    return megatron_to_hf.convert(folder / "megatron", folder / "back", **options)


def assert_same_tensors(left: Path, right: Path) -> None:
    one, two = SafetensorsFolder(left), SafetensorsFolder(right)
    assert one.names() == two.names()
    assert all(same_bits(one.tensor(name), two.tensor(name)) for name in one.names())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "variant", ["multi_head_untied", "grouped_tied", "wide_heads", "vocabulary_fits", "rope_llama3"]
)
def test_every_file_comes_back_with_the_same_bytes(variant: str, dtype: torch.dtype, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "hf", dtype=dtype, **VARIANTS[variant])
    back = round_trip(tmp_path / "hf", tmp_path)
    names = sorted(path.name for path in (tmp_path / "hf").iterdir())
    assert sorted(path.name for path in back.iterdir()) == names
    for name in names:
        assert filecmp.cmp(tmp_path / "hf" / name, back / name, shallow=False), name
        assert (back / name).stat().st_mode == (back / "config.json").stat().st_mode
    assert not list(tmp_path.glob(".*"))


def test_odd_values_keep_their_bits(tmp_path: Path) -> None:
    """NaN with a payload, infinities, minus zero and subnormal numbers."""
    model = save_tiny_llama(tmp_path / "hf")
    odd = torch.tensor([0x7FC00001, 0x7F800000, -0x80000000, 1], dtype=torch.int32).view(torch.float32)
    for parameter in model.parameters():
        parameter.data.view(-1)[:4] = odd
    model.save_pretrained(tmp_path / "hf")
    assert_same_tensors(tmp_path / "hf", round_trip(tmp_path / "hf", tmp_path))


def test_sharded_folders_in_and_out(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "hf", shard="100KB")
    back = round_trip(tmp_path / "hf", tmp_path, max_shard_bytes=100_000)
    assert_same_tensors(tmp_path / "hf", back)
    theirs, ours = (json.loads((folder / INDEX_FILE).read_text()) for folder in (tmp_path / "hf", back))
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    files = sorted(set(ours["weight_map"].values()))
    assert files == sorted(path.name for path in back.glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((back / file).stat().st_size < 120_000 for file in files)

    from transformers import AutoModelForCausalLM

    reloaded = AutoModelForCausalLM.from_pretrained(back).state_dict()
    source = SafetensorsFolder(tmp_path / "hf")
    assert all(torch.equal(reloaded[name], source.tensor(name)) for name in source.names())


def test_shards_are_filled_in_order() -> None:
    sizes = {"a": 40, "b": 60, "c": 1, "d": 200, "e": 5}
    assert plan_shards(list(sizes), sizes, 100) == [["a", "b"], ["c"], ["d"], ["e"]]


@pytest.mark.parametrize(("written", "expected"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_export_in_another_dtype_casts_and_says_so(written: str, expected: torch.dtype, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "hf")
    back = round_trip(tmp_path / "hf", tmp_path, dtype=written)
    one, two = SafetensorsFolder(tmp_path / "hf"), SafetensorsFolder(back)
    assert all(torch.equal(one.tensor(name).to(expected), two.tensor(name)) for name in one.names())
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "hf", back))
    assert after == {**before, "dtype": written}


def test_checkpoint_holds_what_megatron_core_expects(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "hf", tie_word_embeddings=True)
    folder = hf_to_megatron.convert(tmp_path / "hf", tmp_path / "megatron")
    assert latest_checkpoint(tmp_path / "megatron") == folder
    verify_checkpoint(folder)
    reader, source = TensorReader(folder), SafetensorsFolder(tmp_path / "hf")
    assert reader.shapes() == {
        "embedding.word_embeddings.weight": (384, 64),
        "decoder.final_layernorm.weight": (64,),
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight": (4, 64),
        "decoder.layers.self_attention.linear_qkv.weight": (4, 128, 64),
        "decoder.layers.self_attention.linear_proj.weight": (4, 64, 64),
        "decoder.layers.mlp.linear_fc1.layer_norm_weight": (4, 64),
        "decoder.layers.mlp.linear_fc1.weight": (4, 192, 64),
        "decoder.layers.mlp.linear_fc2.weight": (4, 64, 96),
    }
    embedding = reader.read("embedding.word_embeddings.weight", None)
    assert torch.equal(embedding[:301], source.tensor("model.embed_tokens.weight"))
    assert not embedding[301:].any()
    gate_up = reader.read("decoder.layers.mlp.linear_fc1.weight", 2)
    assert torch.equal(gate_up[:96], source.tensor("model.layers.2.mlp.gate_proj.weight"))
    qkv = reader.read("decoder.layers.self_attention.linear_qkv.weight", 3)
    for group in range(2):  # each group: two query heads, one key head, one value head of 16 rows
        for row, part in enumerate(("q", "q", "k", "v")):
            head = group * 2 + row if part == "q" else group
            expected = source.tensor(f"model.layers.3.self_attn.{part}_proj.weight")[head * 16 : head * 16 + 16]
            start = (group * 4 + row) * 16
            assert torch.equal(qkv[start : start + 16], expected)
    run = read_run_file(folder)
    assert (run["kind"], run["iteration"], run["model"]["hidden_size"]) == ("converted", 0, 64)
    assert str(tmp_path) not in (folder / "run.json").read_text()  # no machine's paths inside a checkpoint
    assert str(tmp_path).encode() not in (folder / ".metadata").read_bytes()


def test_join_and_split_are_inverse() -> None:
    config = LlamaConfig(64, 96, 4, 6, 2, 16, 301)
    parts = [torch.randn(rows, 64) for rows in (96, 32, 32)]
    again = mapping.split_qkv(mapping.join_qkv(parts, config), config)
    assert all(torch.equal(one, two) for one, two in zip(parts, again, strict=True))


def test_old_files_with_stored_frequencies_and_copied_output_layers_convert(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_tiny_llama(tmp_path / "hf", tie_word_embeddings=True)
    file = tmp_path / "hf" / "model.safetensors"
    plain = load_file(file)
    extra = {"lm_head.weight": plain["model.embed_tokens.weight"].clone()}
    extra |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(4)}
    save_file({**plain, **extra}, file, metadata={"format": "pt"})
    back = SafetensorsFolder(round_trip(tmp_path / "hf", tmp_path))
    assert back.names() == set(plain)
    assert all(torch.equal(back.tensor(name), plain[name]) for name in plain)
