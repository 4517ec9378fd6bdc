"""What happens before the model is built: find the start, open the data, refuse what cannot work."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from megatron_agent.dataset.rows import PackedRows
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from megatron_agent.model.checkpoint_folder import HF_FOLDER, remove_leftovers
from megatron_agent.model.collective import on_rank_0, raised_on_all
from megatron_agent.model.config import LlamaConfig
from megatron_agent.training.config import TrainConfig


def prepare_output(config: TrainConfig) -> None:
    """Make the folders of the run and remove what interrupted saves left; refuse a place that cannot be written.

    Collective: rank 0 does it, an error is raised on all.
    """

    def prepare() -> None:
        config.checkpoint_root.mkdir(parents=True, exist_ok=True)
        probe = config.checkpoint_root / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
        remove_leftovers(config.checkpoint_root)

    on_rank_0(prepare)


def check_same_start(start: Path | None) -> None:
    """Refuse a start where ranks see different newest checkpoints. Collective."""
    seen: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(seen, str(start) if start else None)
    if len(set(seen)) > 1:
        other = next(rank for rank, path in enumerate(seen) if path != seen[0])
        ours, theirs = seen[0] or "random weights", seen[other] or "random weights"
        raise UserError(
            f"rank 0 would start from {ours}, rank {other} from {theirs}: "
            "--training.output_dir and --model.checkpoint must be on a file system that all nodes share"
        )


def open_rows(config: TrainConfig) -> PackedRows:
    """Open the data on every rank; its hashes are checked, and its plan is made, by one rank of each node.

    Collective: an error on any rank is raised on all. Ranks are told apart by LOCAL_RANK; without it all check.
    """
    first_of_node = int(os.environ.get("LOCAL_RANK", "0")) == 0
    rows = None
    if first_of_node:
        rows = raised_on_all(lambda: PackedRows(config.data, config.num_rows))
    else:
        raised_on_all(lambda: None)
    # The plan is now in data.cache_dir, where there is one.
    trusted = replace(config.data, verify=False)
    return raised_on_all(lambda: rows or PackedRows(trusted, config.num_rows))


def find_hf_folder(config: TrainConfig, start: Path | None) -> Path | None:
    """Return the folder with config.json and tokenizer of the model; None for a preset, which has no files."""
    if start is not None:
        return start / HF_FOLDER
    folder = Path(str(config.model.config))
    return folder if folder.is_dir() else None


def check_tokenizer(rows: PackedRows, llama: LlamaConfig, hf_folder: Path | None) -> None:
    """Refuse data tokenized for another model: its ids would be read as other words, or fall outside the embedding.

    Vocabularies of equal size (Llama-2's and Mistral's have 32,000 pieces each) are told apart by the hash of the
    tokenizer file, where the checkpoint brings one along.
    """
    if rows.vocab_size > llama.vocab_size:
        raise UserError(
            f"the data was tokenized with a vocabulary of {rows.vocab_size:,} ids, the model has {llama.vocab_size:,}: "
            "build it again with data_prep.build_indexed_dataset --tokenizer of this model"
        )
    files = [hf_folder / name for name in ("tokenizer.model", "tokenizer.json")] if hf_folder else []
    hashes = {sha256_file(file): file for file in files if file.is_file()}
    if hashes and rows.tokenizer_sha256 not in hashes:
        raise UserError(
            f"the data was tokenized with another tokenizer (sha256 {rows.tokenizer_sha256[:12]}...) than the model's "
            f"({', '.join(f'{file} {digest[:12]}...' for digest, file in hashes.items())}): build it again with "
            "data_prep.build_indexed_dataset --tokenizer of this model"
        )
