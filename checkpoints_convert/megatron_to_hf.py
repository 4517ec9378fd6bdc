"""Convert a megatron-core checkpoint, converted or trained, into a Hugging Face Llama folder."""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints_convert import mapping
from megatron_agent.errors import UserError
from megatron_agent.files import fsync_directory
from megatron_agent.model import checkpoint_folder
from megatron_agent.model.config import LlamaConfig

if TYPE_CHECKING:
    import torch

    from checkpoints_convert.torch_dist import TensorReader

DTYPES = ("keep", "float32", "bfloat16", "float16")


def convert(
    megatron: str | Path, output: str | Path, *, dtype: str = "keep", max_shard_bytes: int | None = None
) -> Path:
    """Write the Hugging Face folder `output` from a checkpoint (its folder, or a root: the newest) and return it.

    Vocabulary padding is cut off, configuration and tokenizer files come from the checkpoint. `dtype` other than "keep"
    casts the weights. Layers are read one at a time and written in shards of at most 5 GB: memory stays near one shard
    plus one layer. The checkpoint is verified first; the folder appears whole or not at all.
    Raises `UserError` when the checkpoint is damaged or not the model its config.json says, or the output exists.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    folder, output = checkpoint_folder.resolve_checkpoint(megatron), Path(output)
    if output.exists():
        raise UserError(f"{output} exists already; choose another --output or remove it")
    checkpoint_folder.verify_checkpoint(folder)
    hf_files = folder / checkpoint_folder.HF_FOLDER
    config = LlamaConfig.from_hf(hf_files)

    import torch
    from tqdm import tqdm

    from checkpoints_convert.safetensors_folder import MAX_SHARD_BYTES, set_config_dtype, write_safetensors
    from checkpoints_convert.torch_dist import TensorReader

    reader = TensorReader(folder)
    check_keys(reader, config, folder)

    units = list(mapping.units(config))
    names = [mapping.hf_names(rule, layer) for rule, layer in units]
    dtypes = {
        name: reader.dtype(rule.megatron) if dtype == "keep" else getattr(torch, dtype)
        for (rule, _), unit in zip(units, names, strict=True)
        for name in unit
    }
    shapes = mapping.hf_shapes(config)
    sizes = {name: torch.Size(shapes[name]).numel() * dtypes[name].itemsize for name in shapes}

    temporary = output.parent / f".{output.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        with tqdm(total=len(units), desc="Megatron -> Hugging Face", unit="tensor") as bar:

            def produce(number: int) -> dict[str, torch.Tensor]:
                rule, layer = units[number]
                parts = read_hf_tensors(reader, config, rule, layer)
                bar.update()
                return {name: part.to(dtypes[name]) for name, part in parts.items()}

            write_safetensors(temporary, sizes, names, produce, max_shard_bytes or MAX_SHARD_BYTES)
        checkpoint_folder.copy_hf_files(hf_files, temporary)
        written = {str(value).removeprefix("torch.") for value in dtypes.values()}
        if len(written) == 1:
            set_config_dtype(temporary / "config.json", written.pop())
        for file in temporary.iterdir():
            _publish(file)
        os.rename(temporary, output)
        fsync_directory(output.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return output


def check_keys(reader: "TensorReader", config: LlamaConfig, folder: Path) -> None:
    """Compare the checkpoint's tensors with what its config.json implies; `UserError` naming the differences."""
    stored = reader.shapes()
    problems = []
    for rule in mapping.rules_for(config):
        wanted = mapping.megatron_shape(rule, config)
        if rule.megatron not in stored:
            problems.append(f"missing: {rule.megatron} {wanted}")
        elif stored[rule.megatron] != wanted:
            problems.append(f"shape of {rule.megatron}: expected {wanted}, got {stored[rule.megatron]}")
    if problems:
        raise UserError(
            f"checkpoint {folder} does not fit its hf/config.json ({json.dumps(config.to_hf())}):\n  "
            + "\n  ".join(problems)
        )


def read_hf_tensors(
    reader: "TensorReader", config: LlamaConfig, rule: mapping.Rule, layer: int | None
) -> "dict[str, torch.Tensor]":
    """Read one (rule, layer) unit of a checkpoint as Hugging Face tensors, in the stored dtype."""
    tensors = mapping.split(rule, reader.read(rule.megatron, layer), config)
    return dict(zip(mapping.hf_names(rule, layer), tensors, strict=True))


def _publish(file: Path) -> None:
    """Sync a file to disk, with the usual permissions (safetensors makes its files private)."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(file, 0o666 & ~umask)
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main(argv: list[str] | None = None) -> None:
    """Command line of the converter."""
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints_convert.megatron_to_hf",
        description="Convert a megatron-core checkpoint into a Hugging Face Llama folder that plain transformers "
        "loads. No GPU is needed.",
        epilog="example: python -m checkpoints_convert.megatron_to_hf --megatron runs/7b --output hf/agentlm-7b",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--megatron", required=True, help="a checkpoint folder (iter_*), or its parent for the newest")
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--dtype", choices=DTYPES, default="keep", help="dtype of the written weights")
    arguments = parser.parse_args(argv)
    print(f"wrote {convert(arguments.megatron, arguments.output, dtype=arguments.dtype)}")


if __name__ == "__main__":
    from megatron_agent.errors import run_command

    run_command(main)
