"""Convert a megatron-core checkpoint, converted or trained, into a Hugging Face Llama folder."""

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints_convert import lora, mapping
from megatron_agent.errors import UserError
from megatron_agent.files import fsync_directory
from megatron_agent.model import checkpoint_folder
from megatron_agent.model.config import LlamaConfig

if TYPE_CHECKING:
    import torch

    from checkpoints_convert.torch_dist import TensorReader

DTYPES = ("keep", "float32", "bfloat16", "float16")


def convert(
    megatron: str | Path,
    output: str | Path,
    *,
    dtype: str = "keep",
    base: str | Path | None = None,
    max_shard_bytes: int | None = None,
) -> Path:
    """Write the Hugging Face folder `output` from a checkpoint (its folder, or a root: the newest) and return it.

    Vocabulary padding is cut off, configuration and tokenizer files come from the checkpoint. `dtype` other than "keep"
    casts the weights. Layers are read one at a time and written in shards of at most 5 GB: memory stays near one shard
    plus one layer. The checkpoint is verified first; the folder appears whole or not at all.
    LoRA adapters are merged in fp32 into the weights of the base checkpoint that `run.json` names, or of `base`.
    Raises `UserError` when the checkpoint is damaged or not the model its config.json says, or the output exists.
    """
    if dtype not in DTYPES:
        raise UserError(f"--dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    folder, config = _open_checkpoint(megatron, output)

    import torch
    from tqdm import tqdm

    from checkpoints_convert.safetensors_folder import MAX_SHARD_BYTES, set_config_dtype, write_safetensors

    reader = _weights_reader(folder, config, base)

    units = list(mapping.units(config))
    names = [mapping.hf_names(rule, layer) for rule, layer in units]
    dtypes = {
        name: reader.dtype(rule.megatron) if dtype == "keep" else getattr(torch, dtype)
        for (rule, _), unit in zip(units, names, strict=True)
        for name in unit
    }
    shapes = mapping.hf_shapes(config)
    sizes = {name: torch.Size(shapes[name]).numel() * dtypes[name].itemsize for name in shapes}

    with _whole_folder(Path(output)) as temporary:
        with tqdm(total=len(units), desc="Megatron -> Hugging Face", unit="tensor") as bar:

            def produce(number: int) -> dict[str, torch.Tensor]:
                rule, layer = units[number]
                parts = read_hf_tensors(reader, config, rule, layer)
                bar.update()
                return {name: part.to(dtypes[name]) for name, part in parts.items()}

            write_safetensors(temporary, sizes, names, produce, max_shard_bytes or MAX_SHARD_BYTES)
        checkpoint_folder.copy_hf_files(folder / checkpoint_folder.HF_FOLDER, temporary)
        written = {str(value).removeprefix("torch.") for value in dtypes.values()}
        if len(written) == 1:
            set_config_dtype(temporary / "config.json", written.pop())
    return Path(output)


def convert_adapter(megatron: str | Path, output: str | Path, *, dtype: str = "keep") -> Path:
    """Write the adapters of a LoRA checkpoint as a PEFT adapter folder `output` and return it.

    `adapter_config.json` and `adapter_model.safetensors`; the base checkpoint is not read. Raises `UserError` as
    :func:`convert`, and for a checkpoint without adapters.
    """
    folder, config = _open_checkpoint(megatron, output)
    settings = lora.read_lora(folder)
    if settings is None:
        raise UserError(f"--adapter: {folder} holds a whole model, no LoRA adapters; leave the flag out")

    import torch
    from safetensors.torch import save_file

    from checkpoints_convert.torch_dist import TensorReader

    reader = TensorReader(folder)
    lora.check_adapter_shapes(reader, config, settings, folder)
    tensors = {
        name: tensor if dtype == "keep" else tensor.to(getattr(torch, dtype))
        for name, tensor in lora.peft_tensors(reader, config, settings)
    }
    with _whole_folder(Path(output)) as temporary:
        save_file(tensors, temporary / lora.ADAPTER_FILE, metadata={"format": "pt"})
        checkpoint_folder.write_json(temporary / lora.ADAPTER_CONFIG, lora.peft_config(settings))
    return Path(output)


def _open_checkpoint(megatron: str | Path, output: str | Path) -> tuple[Path, LlamaConfig]:
    """Return the verified checkpoint folder meant by `megatron` and its model; refuse an `output` that exists."""
    folder = checkpoint_folder.resolve_checkpoint(megatron)
    if Path(output).exists():
        raise UserError(f"{output} exists already; choose another --output or remove it")
    checkpoint_folder.verify_checkpoint(folder)
    return folder, LlamaConfig.from_hf(folder / checkpoint_folder.HF_FOLDER)


def _weights_reader(
    folder: Path, config: LlamaConfig, given_base: str | Path | None
) -> "TensorReader | lora.MergedReader":
    from checkpoints_convert.torch_dist import TensorReader

    reader = TensorReader(folder)
    settings = lora.read_lora(folder)
    if settings is None:
        if given_base is not None:
            raise UserError(f"--base: {folder} holds a whole model and needs no base checkpoint; leave the flag out")
        check_keys(reader, config, folder)
        return reader
    lora.check_adapter_shapes(reader, config, settings, folder)
    base = lora.find_base(folder, given_base)
    weights = TensorReader(base)
    check_keys(weights, config, base)
    return lora.MergedReader(weights, reader, settings)


@contextlib.contextmanager
def _whole_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that takes the name `output` when the block ends well, and goes when it does not."""
    temporary = output.parent / f".{output.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.iterdir():
            _publish(file)
        os.rename(temporary, output)
        fsync_directory(output.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


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
    reader: "TensorReader | lora.MergedReader", config: LlamaConfig, rule: mapping.Rule, layer: int | None
) -> "dict[str, torch.Tensor]":
    """Read one (rule, layer) unit of a checkpoint as Hugging Face tensors, in the dtype the reader gives."""
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
        "loads. LoRA adapters are merged into their base model, or written alone for PEFT. No GPU is needed.",
        epilog="example: python -m checkpoints_convert.megatron_to_hf --megatron runs/7b --output hf/agentlm-7b",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--megatron", required=True, help="a checkpoint folder (iter_*), or its parent for the newest")
    parser.add_argument("--output", required=True, help="folder to make")
    parser.add_argument("--dtype", choices=DTYPES, default="keep", help="dtype of the written weights")
    parser.add_argument(
        "--adapter", action="store_true", help="write the LoRA adapters as a PEFT folder, not the merged model"
    )
    parser.add_argument("--base", help="base checkpoint of a LoRA checkpoint, where it is not at its recorded place")
    arguments = parser.parse_args(argv)
    if arguments.adapter and arguments.base:
        raise UserError("--adapter writes the adapters alone and reads no --base; leave one of the two out")
    if arguments.adapter:
        written = convert_adapter(arguments.megatron, arguments.output, dtype=arguments.dtype)
    else:
        written = convert(arguments.megatron, arguments.output, dtype=arguments.dtype, base=arguments.base)
    print(f"wrote {written}")


if __name__ == "__main__":
    from megatron_agent.errors import run_command

    run_command(main)
