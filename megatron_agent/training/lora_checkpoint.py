"""What differs for a LoRA run's checkpoints: they hold adapters only and name the base checkpoint they belong to."""

from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from megatron_agent.model.checkpoint_folder import MANIFEST, read_run_file, resolve_checkpoint
from megatron_agent.model.lora_config import changed_settings, lora_from_record, lora_record
from megatron_agent.training.config import TrainConfig

# lora_dropout may change on a resume: it does not touch what the checkpoint holds.
FIXED = ("r", "lora_alpha", "target_modules")


def find_base(config: TrainConfig, own: Path | None) -> Path | None:
    """Return the checkpoint with the frozen weights of a LoRA run, None without LoRA.

    Raises :class:`UserError`, before anything is built, when it holds adapters only, or when `own`, the checkpoint to
    resume, was written with another base, other adapters, or without LoRA. Without LoRA, `own` must have none either.
    """
    if own is not None:
        return _base_of_resumed(config, own)
    if config.model.checkpoint is None:
        return None
    start = resolve_checkpoint(config.model.checkpoint)
    if "lora" in read_run_file(start):
        raise UserError(
            f"--model.checkpoint {start} holds LoRA adapters only: merge it with `python -m "
            "checkpoints_convert.megatron_to_hf`, convert the result with checkpoints_convert.hf_to_megatron, and "
            "start from that"
        )
    return start if config.lora.r else None


def _base_of_resumed(config: TrainConfig, own: Path) -> Path | None:
    saved = read_run_file(own).get("lora") or {"r": 0}
    names = FIXED if saved["r"] and config.lora.r else ("r",)
    changed = changed_settings(lora_from_record(saved), config.lora, names)
    if not changed and not config.lora.r:
        return None
    if not changed:
        base = resolve_checkpoint(str(config.model.checkpoint))
        if sha256_file(base / MANIFEST) == saved["base"]["manifest_sha256"]:
            return base
        changed = [f"--model.checkpoint was {saved['base']['checkpoint']}, is {base} with other content"]
    raise UserError(
        f"{own} holds other trained weights: {'; '.join(changed)}. Restore these values to resume, or give "
        "--training.output_dir a new folder to start afresh"
    )


def base_record(config: TrainConfig, base: Path | None) -> dict[str, Any]:
    """Return what `run.json` gains in a LoRA run: `{"lora": ...}` with the base's path and its manifest's hash."""
    if base is None:
        return {}
    return {"lora": lora_record(config.lora, str(base.resolve()), sha256_file(base / MANIFEST))}
