"""The plan as a table for the terminal, as JSON and as a picture."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_agent.files import atomic_write
from megatron_agent.model.config import padded_vocab_size
from megatron_agent.training.planner.activations import total
from megatron_agent.training.planner.memory import RankMemory
from megatron_agent.training.planner.plan import GIB, Plan
from megatron_agent.training.planner.suggest import Suggestion

if TYPE_CHECKING:
    from rich.console import Console

PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer_state": "optimizer",
    "activations": "activations",
    "temporaries": "temporary",
}
"""Fields of a rank's memory and their headings."""
COLORS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677")  # Paul Tol's bright scheme: told apart by all eyes
NAMED_TERMS = 4


def part_bytes(memory: RankMemory) -> dict[str, int]:
    """Return the bytes of each of `PARTS` at the peak; they sum to it."""
    sizes = {name: getattr(memory, name) for name in PARTS}
    return {name: size if isinstance(size, int) else total(size) for name, size in sizes.items()}


def largest_terms(memory: RankMemory) -> dict[str, int]:
    """Return the bytes of the largest terms by name."""
    return dict(list(memory.terms().items())[:NAMED_TERMS])


def plan_as_json(plan: Plan, suggestion: Suggestion | None) -> dict[str, Any]:
    """Return the whole plan in plain values; the unit is the end of every key."""
    config, cost, hardware = plan.config, plan.cost, plan.hardware
    ranks = [
        {
            "pipeline_stage": rank.stage,
            "layers_per_chunk": list(rank.chunk_layers),
            "parameters": rank.parameters,
            "trainable_parameters": rank.trainable_parameters,
            "microbatches_in_flight_per_chunk": list(memory.microbatches_in_flight),
            **{f"{name}_bytes": size for name, size in part_bytes(memory).items()},
            "peak_bytes": memory.peak,
            "peak_phase": memory.phase,
            "fits": memory.peak <= hardware.usable_bytes,
            "terms_bytes": memory.terms(),
        }
        for rank, memory in zip(plan.ranks, plan.memory, strict=True)
    ]
    return {
        "model": {
            "parameters": plan.parameters,
            "padding_parameters": plan.padding_parameters,
            "adapter_parameters": plan.adapter_parameters,
            "vocabulary_rows": plan.llama.vocab_size,
            "padded_vocabulary_rows": padded_vocab_size(plan.llama.vocab_size),
        },
        "layout": {
            "world_size": plan.world_size,
            "data_parallel_size": plan.data_parallel_size,
            "num_microbatches": plan.num_microbatches,
            "micro_batch_size_rows": config.training.micro_batch_size,
            "seq_length_tokens": config.data.seq_length,
            "precision": config.training.precision,
            "recompute_granularity": config.training.recompute_granularity,
            **dataclasses.asdict(config.parallel),
        },
        "kernels": dataclasses.asdict(plan.workload.backend),
        "memory": {
            "gpu_memory_bytes": int(hardware.gpu_memory_gb * GIB),
            "reserve_bytes": int(hardware.reserve_gb * GIB),
            "usable_bytes": hardware.usable_bytes,
            "fits": plan.fits,
            "ranks": ranks,
        },
        "time": {
            "assumed_mfu": hardware.mfu,
            "peak_tflops_per_gpu": hardware.peak_tflops,
            "pipeline_bubble_fraction": plan.bubble,
            **dataclasses.asdict(cost),
        },
        "checkpoint": {
            "weights_bytes": plan.weights_checkpoint_bytes,
            "weights_and_optimizer_bytes": plan.full_checkpoint_bytes,
        },
        "suggestion": suggestion_as_json(suggestion),
    }


def suggestion_as_json(suggestion: Suggestion | None) -> dict[str, Any] | None:
    """Return the nearest layout that fits, in plain values."""
    if suggestion is None:
        return None
    return {
        "world_size": suggestion.world_size,
        "flags": suggestion.flags,
        "peak_bytes": suggestion.peak_bytes,
        "pipeline_bubble_fraction": suggestion.bubble,
    }


def print_plan(plan: Plan, suggestion: Suggestion | None) -> None:
    """Print tables and, when the layout does not fit, what is largest and what to change."""
    from rich import box
    from rich.table import Table

    console = _console()
    for name, value in headlines(plan):
        console.print(f"{name:>19}  {value}", highlight=False)
    table = Table(
        title=f"Memory of one rank of each pipeline stage at its peak, GiB (usable: "
        f"{plan.hardware.usable_bytes / GIB:.1f} of {plan.hardware.gpu_memory_gb:g}, "
        f"{plan.hardware.reserve_gb:g} kept for CUDA, NCCL and fragmentation)",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    for heading in ("stage", "layers", "parameters", *PARTS.values(), "peak", "fits"):
        table.add_column(heading, justify="right")
    table.add_column("at the peak")
    for rank, memory in zip(plan.ranks, plan.memory, strict=True):
        fits = memory.peak <= plan.hardware.usable_bytes
        table.add_row(
            str(rank.stage),
            " + ".join(map(str, rank.chunk_layers)),
            f"{rank.parameters:,}",
            *(f"{size / GIB:.2f}" for size in part_bytes(memory).values()),
            f"{memory.peak / GIB:.2f}",
            "yes" if fits else "[bold red]no[/]",
            memory.phase,
        )
    console.print(table)
    fullest = max(plan.memory, key=lambda memory: memory.peak)
    named = ", ".join(f"{name} {size / GIB:.2f}" for name, size in largest_terms(fullest).items())
    console.print(f"largest terms of the fullest rank, GiB: {named}", highlight=False)
    if not plan.fits:
        over = fullest.peak - plan.hardware.usable_bytes
        console.print(f"does not fit: {over / GIB:.2f} GiB over. {suggestion_text(suggestion)}", highlight=False)


def headlines(plan: Plan) -> list[tuple[str, str]]:
    """Return what there is to say beside the memory of the ranks, as (name, value)."""
    config, parallel, cost, hardware = plan.config, plan.config.parallel, plan.cost, plan.hardware
    virtual = parallel.virtual_pipeline_model_parallel_size
    layout = {
        "TP": parallel.tensor_model_parallel_size,
        "PP": parallel.pipeline_model_parallel_size,
        "CP": parallel.context_parallel_size,
        "DP": plan.data_parallel_size,
    }
    sizes = " x ".join(f"{name} {size}" for name, size in layout.items() if name != "CP" or size > 1)
    notes = [f"{virtual} virtual stages"] if virtual else []
    notes += ["sequence parallel"] if parallel.sequence_parallel else []
    notes += [f"{config.training.recompute_granularity} recompute"] if config.training.recompute_granularity else []
    padding = f" + {plan.padding_parameters:,} of padding" if plan.padding_parameters else ", no padding"
    adapters = f" + {plan.adapter_parameters:,} of adapters (trained)" if plan.adapter_parameters else ""
    if cost.conversation_tokens == config.data.seq_length:
        attention = "every row taken as one conversation: an upper bound"
    else:
        attention = f"conversations of {cost.conversation_tokens:,} tokens"
    engine = "Transformer Engine" if plan.workload.backend.transformer_engine else "without Transformer Engine"
    return [
        ("parameters", f"{plan.parameters:,}{padding}{adapters}"),
        ("layout", f"{sizes} = {plan.world_size} GPUs{''.join(f', {note}' for note in notes)}; {engine}"),
        (
            "rows a step",
            f"{config.training.global_batch_size} = micro-batch {config.training.micro_batch_size} x "
            f"{plan.num_microbatches} micro-batches x DP {plan.data_parallel_size}",
        ),
        ("tokens a step", f"{cost.tokens_per_step:,} ({config.data.seq_length:,} a row)"),
        ("pipeline bubble", f"{plan.bubble:.1%} of the compute time"),
        (
            "model FLOPs a step",
            f"{cost.model_flops_per_step:.3e}, attention {cost.attention_share:.1%} of them ({attention})",
        ),
        (
            "time",
            f"{cost.hours:.1f} h, {cost.gpu_hours:,.0f} GPU-hours for {cost.steps:,} steps of "
            f"{cost.step_seconds:.2f} s at {hardware.mfu:.0%} of {hardware.peak_tflops:g} TFLOP/s",
        ),
        ("tokens a second", f"{cost.tokens_per_second_per_gpu:,.0f} a GPU"),
        (
            "checkpoint",
            f"{plan.full_checkpoint_bytes / 1e9:.1f} GB with optimizer, "
            f"{plan.weights_checkpoint_bytes / 1e9:.1f} GB weights only",
        ),
    ]


def suggestion_text(suggestion: Suggestion | None) -> str:
    """Return the nearest layout that fits, as a sentence with the flags to add."""
    if suggestion is None:
        return "No layout was found that fits: lower --data.seq_length, or train adapters with --lora.r."
    flags = " ".join(f"{flag} {_flag_value(value)}" for flag, value in suggestion.flags.items())
    changes = (
        [f"--world-size {suggestion.world_size}"] if not flags else [f"--world-size {suggestion.world_size}", flags]
    )
    return (
        f"Nearest layout that fits: {' '.join(changes)} (peak {suggestion.peak_bytes / GIB:.2f} GiB, "
        f"bubble {suggestion.bubble:.1%})"
    )


def _flag_value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=150)


def plot_plan(plan: Plan, path: str | Path) -> None:
    """Draw a stacked bar of each pipeline stage's memory under the line of what a GPU has."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    hardware = plan.hardware
    stages = [str(rank.stage) for rank in plan.ranks]
    parts = [part_bytes(memory) for memory in plan.memory]
    figure = Figure(figsize=(max(6.4, 1.9 + 0.75 * len(stages)), 4.8), layout="constrained")
    axes = figure.subplots()
    bottom = [0.0] * len(stages)
    for color, (name, label) in zip(COLORS, PARTS.items(), strict=True):
        heights = [part[name] / GIB for part in parts]
        axes.bar(stages, heights, 0.7, bottom=bottom, label=label, color=color, edgecolor="white", linewidth=0.5)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    usable = hardware.usable_bytes / GIB
    top = max(*bottom, hardware.gpu_memory_gb) * 1.06
    for position, height in enumerate(bottom):
        color = "black" if height <= usable else "#cc3311"
        axes.text(position, height + top * 0.008, f"{height:.1f}", ha="center", va="bottom", fontsize=9, color=color)
    axes.axhspan(usable, hardware.gpu_memory_gb, color="#bbbbbb", alpha=0.45, lw=0, zorder=0, label="reserve")
    axes.axhline(hardware.gpu_memory_gb, color="black", lw=1)
    axes.set(xlabel="pipeline stage", ylabel="GiB at the peak of one rank", ylim=(0, top))
    axes.set_xlim(-0.6, len(stages) - 0.4)
    axes.spines[["top", "right"]].set_visible(False)
    layout = dict(headlines(plan))["layout"]
    sizes, _, notes = layout.split(";")[0].partition(", ")
    title = "\n".join(filter(None, (f"{plan.parameters / 1e9:.1f} B parameters, {sizes}", notes)))
    axes.set_title(title, fontsize=10, loc="left")
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda number: (labels[number] != "reserve", -number))
    figure.legend(
        [handles[n] for n in order], [labels[n] for n in order], loc="outside right center", frameon=False, fontsize=9
    )
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
