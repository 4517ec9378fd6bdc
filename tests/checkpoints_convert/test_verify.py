"""`checkpoints_convert.verify`: sees one changed bit, and compares logits."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints_convert import hf_to_megatron, verify
from megatron_agent.errors import UserError
from tests.model.tiny import save_tiny_llama


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    save_tiny_llama(tmp_path / "hf")
    return tmp_path / "hf", hf_to_megatron.convert(tmp_path / "hf", tmp_path / "megatron")


def test_equal_models_agree(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    verify.main(["--hf", str(pair[0]), "--megatron", str(pair[1].parent)])
    printed = capsys.readouterr().out
    assert "39 compared bit by bit, 0 different" in printed
    assert "64 fixed pseudo-random token ids" in printed
    assert float(printed.split("largest difference ")[1]) < 1e-4


def test_one_changed_bit_is_found(pair: tuple[Path, Path]) -> None:
    hf, megatron = pair
    tensors = load_file(hf / "model.safetensors")
    tensors["model.layers.3.self_attn.v_proj.weight"].view(torch.int32)[5, 5] ^= 1
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    assert verify.verify(hf, megatron, logits=False).different == ["model.layers.3.self_attn.v_proj.weight"]
    with pytest.raises(UserError, match=r"not the same model: 1 tensors differ, first model\.layers\.3"):
        verify.main(["--hf", str(hf), "--megatron", str(megatron), "--no-logits"])


def test_another_rotary_base_is_found_by_the_logits(pair: tuple[Path, Path]) -> None:
    """The tensors are the same, the models are not."""
    hf, megatron = pair
    config = hf / "config.json"
    ids = torch.arange(64)[None]
    from megatron_agent.model.config import LlamaConfig

    before = verify.megatron_logits(megatron, LlamaConfig.from_hf(hf), ids)
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 20000.0'))
    assert (verify.hf_logits(hf, ids) - before).abs().max() > verify.TOLERANCE
