"""`python -m megatron_agent.plan --config C.yaml --world-size W`: memory, time and layout of a run before it runs."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError, run_command
from megatron_agent.files import atomic_write, check_writable
from megatron_agent.model.config import PRESETS, LlamaConfig, load_llama_config
from megatron_agent.training.config import TrainConfig, parse_sections, training_parser
from megatron_agent.training.planner.plan import DEFAULT_RESERVE_GB, Hardware, laid_out, make_plan

EXIT_DOES_NOT_FIT = 1
DESCRIPTION = """\
Say what a training configuration needs on --world-size GPUs, without any: the model of one rank of each pipeline
stage is built as training builds it, but without memory. Prints parameters and peak memory of each of these ranks, the
pipeline bubble, tokens and model FLOPs a step, hours and GPU-hours, the size of a checkpoint and, when a rank does not
fit, the nearest layout that does. Neither the data nor the weights are opened. The sizes of the model come from
`hf/config.json` in --model.checkpoint; where the checkpoint is not at hand, --model.config (a preset such as
llama-2-7b, or a folder with config.json) takes its place. Exit status: 0 fits, 1 does not, 2 bad configuration.

Example: python -m megatron_agent.plan --config launch/configs/agentlm_70b.yaml --world-size 64
--model.config llama-2-70b --plot plan.png
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the configuration, plan, report; exits with status 1 when a rank does not fit."""
    config, options = parse_plan(arguments)
    for flag in ("json", "plot"):
        if options[flag] not in (None, "-"):
            check_writable(options[flag], f"--{flag}")
    llama = model_sizes(config)
    world_size = options["world_size"]
    hardware = Hardware(
        gpu_memory_gb=options["gpu_memory_gb"],
        reserve_gb=options["reserve_gb"],
        peak_tflops=options["peak_tflops"] or config.telemetry.peak_tflops or Hardware.peak_tflops,
        mfu=options["mfu"],
        gpus_per_node=options["gpus_per_node"],
    )
    from megatron_agent.training.planner import report
    from megatron_agent.training.planner.suggest import suggest

    try:
        laid_out(config, llama, world_size)
    except UserError as error:
        nearest = report.suggestion_text(suggest(config, llama, world_size, hardware))
        raise UserError(f"{error}\n{nearest}") from error
    plan = make_plan(config, llama, world_size, hardware, options["conversation_tokens"])
    suggestion = None if plan.fits else suggest(config, llama, world_size, hardware)
    if options["plot"]:
        report.plot_plan(plan, options["plot"])
    if options["json"] != "-":
        report.print_plan(plan, suggestion)
    if options["json"]:
        text = json.dumps(report.plan_as_json(plan, suggestion), indent=1)
        if options["json"] == "-":
            print(text)
        else:
            with atomic_write(options["json"]) as file:
                file.write(text + "\n")
    if not plan.fits:
        sys.exit(EXIT_DOES_NOT_FIT)


def parse_plan(arguments: Sequence[str] | None) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the checked configuration, in which `model.config` replaces `model.checkpoint`, and the plan's options."""
    parser = training_parser(prog="python -m megatron_agent.plan", description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = {
        "world_size": (int, None, "GPUs of the run."),
        "gpu_memory_gb": (float, Hardware.gpu_memory_gb, "Memory of one GPU in units of 2**30 bytes."),
        "reserve_gb": (
            float,
            DEFAULT_RESERVE_GB,
            "Of it, kept for what is not estimated: CUDA context, NCCL buffers, cuBLAS workspaces, fragmentation.",
        ),
        "mfu": (float, Hardware.mfu, "Model FLOPs utilisation of whole steps, bubble and recomputation included."),
        "peak_tflops": (
            float,
            None,
            "Peak dense TFLOP/s of one GPU (default: telemetry.peak_tflops, else "
            f"{Hardware.peak_tflops:g}: H100 SXM, bf16).",
        ),
        "gpus_per_node": (int, Hardware.gpus_per_node, "Largest tensor parallelism that is suggested."),
        "conversation_tokens": (
            int,
            None,
            "Mean length of a conversation, for the FLOPs of attention (default: a whole row, the most it can be).",
        ),
        "json": (str, None, "Write the plan as JSON into this file; `-` prints it instead of the tables."),
        "plot": (str, None, "Draw the memory of each stage into this PNG."),
    }
    for name, (kind, default, text) in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=text)
    config, values = parse_sections(parser, arguments)
    sizes_from = config.model.config
    if config.model.checkpoint is not None:
        config.model.config = None  # the checks are those of the run, which starts from its checkpoint
    config.check()
    if sizes_from is not None:
        config.model.checkpoint, config.model.config = None, sizes_from
    if values["world_size"] is None:
        raise UserError("--world-size is needed: the number of GPUs to plan for")
    for name in ("world_size", "gpus_per_node", "conversation_tokens"):
        if values[name] is not None and values[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {values[name]}")
    for name in ("gpu_memory_gb", "peak_tflops"):
        if values[name] is not None and not 0 < values[name] < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be above 0 and finite, got {values[name]}")
    if not 0 <= values["reserve_gb"] < values["gpu_memory_gb"]:
        raise UserError(f"--reserve-gb must lie in [0, --gpu-memory-gb), got {values['reserve_gb']}")
    if not 0 < values["mfu"] <= 1:
        raise UserError(f"--mfu must lie in (0, 1], got {values['mfu']}")
    return config, values


def model_sizes(config: TrainConfig) -> LlamaConfig:
    """Read the model's sizes from `model.config` or from beside the checkpoint's weights, which may be absent."""
    if config.model.config is not None:
        return load_llama_config(config.model.config)
    from megatron_agent.model.checkpoint_folder import HF_FOLDER, latest_checkpoint

    checkpoint = Path(str(config.model.checkpoint))
    newest = latest_checkpoint(checkpoint) if checkpoint.is_dir() else None
    for folder in (checkpoint, newest):
        if folder is not None and (folder / HF_FOLDER / "config.json").is_file():
            return LlamaConfig.from_hf(folder / HF_FOLDER)
    raise UserError(
        f"model.checkpoint: no {HF_FOLDER}/config.json at {checkpoint}. To plan without the checkpoint, say which "
        f"model it is: --model.config {' | '.join(PRESETS)} | a folder with config.json"
    )


if __name__ == "__main__":
    run_command(main)
