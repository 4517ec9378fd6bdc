"""Convert a Hugging Face Llama folder into a megatron-core checkpoint that any layout can load."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints_convert import mapping
from megatron_agent.errors import UserError
from megatron_agent.model import checkpoint_folder
from megatron_agent.model.config import LlamaConfig, padded_vocab_size

if TYPE_CHECKING:
    from checkpoints_convert.safetensors_folder import SafetensorsFolder
    from checkpoints_convert.torch_dist import Piece

ITERATION = 0


def convert(hf: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write `output/iter_0000000` from the Hugging Face folder `hf` and return that folder.

    Every tensor keeps its dtype and bits; the vocabulary is padded with zero rows to a multiple of 128. Tensors are
    read through memory maps and written piece by piece: no model is built, memory stays near the largest tensor. The
    folder appears whole or not at all. Raises `UserError` before writing when the output exists (unless `overwrite`),
    the configuration is no Llama, or tensors are missing, unexpected, misshapen or cut short.
    """
    hf, output = Path(hf), Path(output)
    config = LlamaConfig.from_hf(hf)
    _check_output(output, overwrite)

    from tqdm import tqdm

    from checkpoints_convert.safetensors_folder import SafetensorsFolder
    from checkpoints_convert.torch_dist import write_pieces

    source = SafetensorsFolder(hf)
    _check_tensors(source, config)
    pieces = _pieces(source, config)
    temporary = checkpoint_folder.begin_checkpoint(output, ITERATION)
    try:
        with tqdm(total=len(pieces), desc="Hugging Face -> Megatron", unit="tensor") as bar:
            write_pieces(temporary, pieces, written=bar.update)
        checkpoint_folder.copy_hf_files(hf, temporary / checkpoint_folder.HF_FOLDER)
        checkpoint_folder.write_run_file(
            temporary,
            {"kind": "converted", "iteration": ITERATION, "source": hf.resolve().name, "model": config.to_hf()},
        )
        return checkpoint_folder.commit_checkpoint(temporary, output, ITERATION)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _check_output(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"expected a folder to write to, got the file {output}")
    present = sorted(path.name for path in output.glob("iter_*")) if output.is_dir() else []
    ours = checkpoint_folder.iteration_folder(ITERATION)
    if any(name != ours for name in present):
        raise UserError(f"{output} holds training checkpoints ({present[-1]}); choose another --output")
    if present and not overwrite:
        raise UserError(f"{output / ours} exists already; choose another --output or pass --overwrite")


def _check_tensors(source: "SafetensorsFolder", config: LlamaConfig) -> None:
    """Compare the files with what the configuration implies, and collect every difference in one message."""
    wanted = mapping.hf_shapes(config)
    names = {name for name in source.names() if not name.endswith(mapping.DERIVED_SUFFIX)}
    problems = [f"missing: {name} {shape}" for name, shape in wanted.items() if name not in names]
    for name in sorted(names):
        if name not in wanted:
            if not (config.tie_word_embeddings and name == mapping.OUTPUT_LAYER):
                problems.append(f"unexpected: {name} {source.shape(name)}")
        elif source.shape(name) != wanted[name]:
            problems.append(f"shape of {name}: expected {wanted[name]}, got {source.shape(name)}")
    if not problems and config.tie_word_embeddings and mapping.OUTPUT_LAYER in names:
        embedding = source.tensor("model.embed_tokens.weight")
        if not embedding.equal(source.tensor(mapping.OUTPUT_LAYER)):
            problems.append(
                f'{mapping.OUTPUT_LAYER} differs from the embeddings though "tie_word_embeddings" is true; '
                "set it to false in config.json"
            )
    if not problems:
        for rule in mapping.rules_for(config):
            layers = range(config.num_hidden_layers) if rule.per_layer else (None,)
            dtypes = {source.dtype(name) for layer in layers for name in mapping.hf_names(rule, layer)}
            if len(dtypes) > 1:
                problems.append(f"{rule.megatron} would join tensors of several dtypes: {sorted(map(str, dtypes))}")
    if problems:
        shown = problems[:8] + ([f"... and {len(problems) - 8} more"] if len(problems) > 8 else [])
        raise UserError(
            f"{source.folder}: the tensors do not fit config.json:\n  " + "\n  ".join(shown) + "\n"
            "use a complete, unmodified Llama checkpoint"
        )


def _pieces(source: "SafetensorsFolder", config: LlamaConfig) -> "list[Piece]":
    return [piece for rule, layer in mapping.units(config) for piece in _unit_pieces(source, config, rule, layer)]


def _unit_pieces(
    source: "SafetensorsFolder", config: LlamaConfig, rule: mapping.Rule, layer: int | None
) -> "list[Piece]":
    """Pieces of one key (of one layer): joined where rows interleave, otherwise laid one below the other."""
    import torch

    from checkpoints_convert.torch_dist import Piece

    names = mapping.hf_names(rule, layer)
    shape = mapping.megatron_shape(rule, config)
    dtype = source.dtype(names[0])
    parts: list[tuple[tuple[int, ...], Callable[[], torch.Tensor]]]
    if rule.kind == "qkv":
        parts = [(shape[1:], lambda: mapping.join_qkv([source.tensor(name) for name in names], config))]
    else:
        parts = [(source.shape(name), lambda name=name: source.tensor(name)) for name in names]  # type: ignore[misc]
    if rule.kind == "vocabulary" and (padding := padded_vocab_size(config.vocab_size) - config.vocab_size):
        rows = (padding, shape[-1])
        parts.append((rows, lambda: torch.zeros(rows, dtype=dtype)))

    pieces, row = [], 0
    for part_shape, produce in parts:
        offset = (row, *[0] * (len(part_shape) - 1))
        stacked = ((layer,), (1,)) if layer is not None else ((), ())
        pieces.append(Piece(rule.megatron, shape, (*stacked[0], *offset), (*stacked[1], *part_shape), dtype, produce))
        row += part_shape[0]
    return pieces


def main(argv: list[str] | None = None) -> None:
    """Command line of the converter."""
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints_convert.hf_to_megatron",
        description="Convert a Hugging Face Llama folder (safetensors) into a megatron-core checkpoint. Bits and "
        "dtypes are kept; the result loads in every tensor, pipeline and data-parallel layout. No GPU is needed.",
        epilog="example: python -m checkpoints_convert.hf_to_megatron --hf Llama-2-7b --output megatron/llama-2-7b",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--hf", required=True, help="folder with config.json and *.safetensors")
    parser.add_argument("--output", required=True, help="folder to make; the checkpoint becomes OUTPUT/iter_0000000")
    parser.add_argument("--overwrite", action="store_true", help="replace a converted checkpoint that is there already")
    arguments = parser.parse_args(argv)
    print(f"wrote {convert(arguments.hf, arguments.output, overwrite=arguments.overwrite)}")


if __name__ == "__main__":
    from megatron_agent.errors import run_command

    run_command(main)
