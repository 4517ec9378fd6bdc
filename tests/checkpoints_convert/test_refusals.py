"""Bad input to the converters: one clear message, exit status 2, nothing half-written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import hf_to_megatron, megatron_to_hf, verify
from megatron_agent.errors import UserError
from megatron_agent.model.checkpoint_folder import latest_checkpoint
from tests.model.tiny import save_tiny_llama

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    save_tiny_llama(tmp_path / "hf")
    return tmp_path / "hf"


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refuse_import(hf: Path, output: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        hf_to_megatron.convert(hf, output, **options)
    return str(caught.value)


def test_missing_unexpected_and_misshapen_tensors_are_named_together(hf: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.2.mlp.up_proj.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)
        tensors["model.norm.weight"] = torch.ones(32)

    change_tensors(hf, change)
    message = refuse_import(hf, tmp_path / "out")
    assert "missing: model.layers.2.mlp.up_proj.weight (96, 64)" in message
    assert "unexpected: model.layers.0.self_attn.q_proj.bias (64,)" in message
    assert "shape of model.norm.weight: expected (64,), got (32,)" in message
    assert not (tmp_path / "out").exists()


def test_mixed_and_foreign_dtypes_are_named(hf: Path, tmp_path: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    change_tensors(hf, lambda tensors: tensors.update({name: tensors[name].half()}))
    assert "linear_qkv.weight would join tensors of several dtypes" in refuse_import(hf, tmp_path / "out")
    change_tensors(hf, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    assert f"tensor {name} has dtype I8" in refuse_import(hf, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_layer_that_contradicts_tied_embeddings(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path / "hf", tie_word_embeddings=True)
    change_tensors(tmp_path / "hf", lambda tensors: tensors.update({"lm_head.weight": torch.zeros(301, 64)}))
    assert '"tie_word_embeddings" is true' in refuse_import(tmp_path / "hf", tmp_path / "out")


@pytest.mark.parametrize("size", [0, 4, 2000, -1])
def test_a_file_that_is_cut_short_is_named(size: int, hf: Path, tmp_path: Path) -> None:
    file = hf / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    message = refuse_import(hf, tmp_path / "out")
    assert "model.safetensors is not a whole safetensors file" in message
    assert not (tmp_path / "out").exists()


def test_folders_without_safetensors(hf: Path, tmp_path: Path) -> None:
    (hf / "model.safetensors").rename(hf / "model.safetensors.gone")
    assert "found neither; give a model folder" in refuse_import(hf, tmp_path / "out")
    (hf / "pytorch_model.bin").write_bytes(b"")
    assert "pytorch_model.bin (a pickle, never read here)" in refuse_import(hf, tmp_path / "out")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (hf / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "the index names 1 files that are missing: model-00001-of-00002" in refuse_import(hf, tmp_path / "out")
    assert "config.json" in refuse_import(tmp_path / "nowhere", tmp_path / "out")


def test_existing_output_is_kept_unless_asked(hf: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    hf_to_megatron.convert(hf, output)
    assert "exists already; choose another --output or pass --overwrite" in refuse_import(hf, output)
    hf_to_megatron.convert(hf, output, overwrite=True)
    (output / "iter_0000100").mkdir()
    assert "holds training checkpoints (iter_0000100)" in refuse_import(hf, output, overwrite=True)
    (tmp_path / "file").write_text("")
    assert "got the file" in refuse_import(hf, tmp_path / "file")

    megatron_to_hf.convert(output, tmp_path / "back")
    with pytest.raises(UserError, match="back exists already"):
        megatron_to_hf.convert(output, tmp_path / "back")


def test_an_interrupted_conversion_leaves_nothing(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checkpoints_convert import mapping

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mapping, "join_qkv", die)
    with pytest.raises(KeyboardInterrupt):
        hf_to_megatron.convert(hf, tmp_path / "out")
    assert latest_checkpoint(tmp_path / "out") is None
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    hf_to_megatron.convert(hf, tmp_path / "out")
    monkeypatch.setattr(mapping, "split_qkv", die)
    with pytest.raises(KeyboardInterrupt):
        megatron_to_hf.convert(tmp_path / "out", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "out"]


def test_export_refuses_damage_and_other_sizes(hf: Path, tmp_path: Path) -> None:
    folder = hf_to_megatron.convert(hf, tmp_path / "out")
    with pytest.raises(UserError, match="keep, float32, bfloat16, float16, got 'int8'"):
        megatron_to_hf.convert(folder, tmp_path / "back", dtype="int8")
    file = folder / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"__0_0\.distcp: altered"):
        megatron_to_hf.convert(folder, tmp_path / "back")
    save_tiny_llama(tmp_path / "longer", num_hidden_layers=5)
    healthy = hf_to_megatron.convert(hf, tmp_path / "healthy")
    with pytest.raises(UserError, match=r"linear_proj\.weight: expected \(5, 64, 64\), got \(4, 64, 64\)"):
        verify.verify(tmp_path / "longer", healthy, logits=False)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("command", ["hf_to_megatron", "megatron_to_hf", "verify"])
def test_commands_exit_with_status_2_and_help_is_instant(command: str, tmp_path: Path) -> None:
    arguments = {
        "hf_to_megatron": ["--hf", "nowhere", "--output", "out"],
        "megatron_to_hf": ["--megatron", "nowhere", "--output", "out"],
        "verify": ["--hf", "nowhere", "--megatron", "nowhere"],
    }[command]
    run = [sys.executable, "-m", f"checkpoints_convert.{command}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run([*run, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("error: expected a ")
    assert "nowhere" in process.stderr
    assert list(tmp_path.iterdir()) == []
    script = f"import sys, checkpoints_convert.{command} as c\ntry:\n c.main(['--help'])\nexcept SystemExit: pass\n"
    script += "assert 'torch' not in sys.modules"
    process = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "example: python -m" in process.stdout
