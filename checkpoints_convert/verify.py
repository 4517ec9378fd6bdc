"""Check that a Hugging Face folder and a megatron-core checkpoint are the same model, by bits and by logits."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints_convert import lora, mapping
from megatron_agent.errors import UserError
from megatron_agent.model import checkpoint_folder
from megatron_agent.model.config import LlamaConfig
from megatron_agent.model.layout import ParallelConfig

if TYPE_CHECKING:
    import torch

TEXT = (
    "The Database environment answers each SQL statement with the rows it found. "
    "Think first, then act: SELECT name FROM cities WHERE population > 1000000 ORDER BY name;"
)
TOLERANCE = 1e-3  # largest accepted difference of fp32 logits


@dataclass(frozen=True)
class Result:
    """Outcome of `verify`: tensors compared, names that differ, largest logit difference (None when not computed)."""

    tensors: int
    different: list[str]
    max_logit_difference: float | None
    tokens: int


def verify(hf: str | Path, megatron: str | Path, *, text: str = TEXT, logits: bool = True) -> Result:
    """Compare every tensor bit by bit and, with `logits`, the fp32 logits of transformers and megatron-core on `text`.

    Tensors are read one layer at a time; logits need both models in memory in fp32. Without a tokenizer in `hf`, fixed
    pseudo-random ids take the place of the text. Raises `UserError` for damaged or different-sized checkpoints.
    """
    folder = checkpoint_folder.resolve_checkpoint(megatron)
    checkpoint_folder.verify_checkpoint(folder)
    if lora.read_lora(folder) is not None:
        raise UserError(f"{folder} holds LoRA adapters, no whole model; compare its base checkpoint, or its export")
    tensors, different = compare_tensors(hf, folder)
    if not logits:
        return Result(tensors, different, None, 0)
    ids = _token_ids(Path(hf), text)
    difference = (hf_logits(hf, ids) - megatron_logits(folder, LlamaConfig.from_hf(hf), ids)).abs().max().item()
    return Result(tensors, different, difference, ids.numel())


def compare_tensors(hf: str | Path, folder: Path) -> tuple[int, list[str]]:
    """Return (number of tensors compared, names whose dtype or bits differ)."""
    from tqdm import tqdm

    from checkpoints_convert.megatron_to_hf import check_keys, read_hf_tensors
    from checkpoints_convert.safetensors_folder import SafetensorsFolder
    from checkpoints_convert.torch_dist import TensorReader

    config = LlamaConfig.from_hf(hf)
    source, reader = SafetensorsFolder(hf), TensorReader(folder)
    check_keys(reader, config, folder)
    absent = sorted(set(mapping.hf_shapes(config)) - source.names())
    if absent:
        raise UserError(f"{hf}: expected tensors that are missing: {', '.join(absent[:5])}")
    different, compared = [], 0
    for rule, layer in tqdm(list(mapping.units(config)), desc="comparing tensors", unit="tensor"):
        for name, tensor in read_hf_tensors(reader, config, rule, layer).items():
            compared += 1
            if not same_bits(source.tensor(name), tensor):
                different.append(name)
    return compared, different


def same_bits(left: "torch.Tensor", right: "torch.Tensor") -> bool:
    """Equal dtype, shape and bytes (so that NaN equals NaN and 0.0 differs from -0.0)."""
    import torch

    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def hf_logits(hf: str | Path, ids: "torch.Tensor") -> "torch.Tensor":
    """fp32 logits `[1, s, vocabulary]` of transformers' own model on ids `[1, s]`."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(ids).logits


def megatron_logits(folder: Path, config: LlamaConfig, ids: "torch.Tensor") -> "torch.Tensor":
    """fp32 logits `[1, s, vocabulary]` of the megatron-core model on ids `[1, s]`, padding columns cut off."""
    import torch

    from megatron_agent.model.parallel import initialize_model_parallel

    parallel = ParallelConfig()
    initialize_model_parallel(parallel, seed=0)

    from megatron_agent.model.builder import build_gpt_model, transformer_config
    from megatron_agent.model.checkpoint_tensors import load_model_weights

    settings = transformer_config(config, parallel, params_dtype=torch.float32, perform_initialization=False)
    torch.set_float32_matmul_precision("highest")  # NGC images default to TF32, which differs by more than TOLERANCE
    model = build_gpt_model(config, settings)
    load_model_weights(model, folder)
    model.eval()
    device = next(model.parameters()).device
    positions = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        logits = model(ids.to(device), positions.to(device), None)
    return logits[..., : config.vocab_size].cpu()


def _token_ids(hf: Path, text: str) -> "torch.Tensor":
    import torch

    if any((hf / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        from transformers import AutoTokenizer

        ids = AutoTokenizer.from_pretrained(hf)(text, return_tensors="pt").input_ids
        if ids.numel() == 0:
            raise UserError("--text: expected at least one token, got an empty text")
        return ids
    print(f"{hf} has no tokenizer: comparing logits on 64 fixed pseudo-random token ids")
    return torch.randint(LlamaConfig.from_hf(hf).vocab_size, (1, 64), generator=torch.Generator().manual_seed(0))


def main(argv: list[str] | None = None) -> None:
    """Command line of the check; exits with status 2 when the two differ."""
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints_convert.verify",
        description="Compare a Hugging Face folder with a megatron-core checkpoint: every tensor bit by bit, and the "
        f"fp32 logits of transformers and megatron-core on a text (largest difference allowed: {TOLERANCE}).",
        epilog="example: python -m checkpoints_convert.verify --hf models/Llama-2-7b --megatron megatron/llama-2-7b",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--hf", required=True, help="Hugging Face folder")
    parser.add_argument("--megatron", required=True, help="a checkpoint folder (iter_*), or its parent for the newest")
    parser.add_argument("--text", default=TEXT, help="text for the logits")
    parser.add_argument(
        "--no-logits", action="store_true", help="compare tensors only (both fp32 models need not fit in memory)"
    )
    arguments = parser.parse_args(argv)
    result = verify(arguments.hf, arguments.megatron, text=arguments.text, logits=not arguments.no_logits)
    print(f"tensors: {result.tensors} compared bit by bit, {len(result.different)} different")
    if result.max_logit_difference is not None:
        print(f"logits: {result.tokens} tokens, largest difference {result.max_logit_difference:.3g}")
    problems = [f"{len(result.different)} tensors differ, first {result.different[0]}"] if result.different else []
    if result.max_logit_difference is not None and not result.max_logit_difference <= TOLERANCE:  # catches NaN too
        problems.append(f"logits differ by {result.max_logit_difference:.3g}, expected at most {TOLERANCE}")
    if problems:
        raise UserError(f"{arguments.hf} and {arguments.megatron} are not the same model: " + "; ".join(problems))


if __name__ == "__main__":
    from megatron_agent.errors import run_command

    run_command(main)
