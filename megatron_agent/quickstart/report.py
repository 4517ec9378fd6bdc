"""The quickstart's results: a table, summary.json and a loss curve."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from megatron_agent.files import atomic_write, read_json_lines_tolerating_cut_tail
from megatron_agent.quickstart.steps import console


def write_report(folder: Path, seconds: float) -> dict[str, Any]:
    """Gather the results below `folder`, print them, write summary.json and loss_curve.png; return the summary."""
    metrics = read_json_lines_tolerating_cut_tail(folder / "train" / "metrics.jsonl")
    validation = read_json_lines_tolerating_cut_tail(folder / "train" / "validation.jsonl")
    scores = {
        name: json.loads((folder / f"evaluation_{name}" / "summary.json").read_text()) for name in ("before", "after")
    }
    first, last = validation[0]["loss"], validation[-1]["loss"]
    train_seconds = sum(record["seconds"] for record in metrics)
    summary = {
        "loss_first": first["agent"],
        "loss_last": last["agent"],
        "general_loss_first": first["general"],
        "general_loss_last": last["general"],
        "general_loss_change": last["general"] / first["general"] - 1,
        "tasks": scores["after"]["tasks"],
        "success_before": scores["before"]["success_rate"],
        "success_after": scores["after"]["success_rate"],
        "success_after_95": scores["after"]["success_rate_95"],
        "steps": len(metrics),
        "tokens": sum(record["tokens"] for record in metrics),
        "trained_tokens": sum(record["trained_tokens"] for record in metrics),
        "tokens_per_second": sum(record["tokens"] for record in metrics) / train_seconds,
        "train_seconds": train_seconds,
        "seconds": seconds,
        "hf_checkpoint": str(folder / "hf"),
    }
    with atomic_write(folder / "summary.json") as handle:
        json.dump(summary, handle, indent=2)
        handle.write("\n")
    draw_loss_curve(metrics, validation, folder / "loss_curve.png")
    _print_table(folder, summary)
    return summary


def draw_loss_curve(metrics: list[dict[str, Any]], validation: list[dict[str, Any]], path: Path) -> None:
    """Draw the training loss of each source and the held-out losses as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for color, source in zip(("tab:blue", "tab:orange"), ("agent", "general"), strict=True):
        points = [
            (record["step"], record["source_loss"][source]) for record in metrics if source in record["source_loss"]
        ]
        axes.plot(*zip(*points, strict=True), ".-", color=color, alpha=0.6, label=f"{source}, training")
        held_out = [(record["step"], record["loss"][source]) for record in validation]
        axes.plot(*zip(*held_out, strict=True), "o--", color=color, label=f"{source}, held out")
    axes.set(xlabel="step", ylabel="loss per trained token", ylim=(0, None), title="Quickstart")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_write(path, "wb") as handle:
        figure.savefig(handle, dpi=120, format="png")
    plt.close(figure)


def _print_table(folder: Path, summary: dict[str, Any]) -> None:
    table = Table("", "before", "after")
    table.add_row(
        f"unseen database tasks solved (of {summary['tasks']})",
        f"{summary['success_before']:.0%}",
        f"{summary['success_after']:.0%}",
    )
    table.add_row("loss, held-out trajectories", f"{summary['loss_first']:.3f}", f"{summary['loss_last']:.3f}")
    table.add_row(
        "loss, held-out general conversations",
        f"{summary['general_loss_first']:.3f}",
        f"{summary['general_loss_last']:.3f} ({summary['general_loss_change']:+.1%})",
    )
    console.print(table)
    console.print(
        f"{summary['steps']} steps, {summary['tokens']:,} tokens at {summary['tokens_per_second']:.0f} tokens/s; "
        f"all steps together {summary['seconds']:.0f} s"
    )
    for name, what in (
        ("hf", "the tuned model, for transformers.AutoModelForCausalLM"),
        ("summary.json", "these figures"),
        ("loss_curve.png", "the loss"),
        ("masked_examples.html", "which tokens are trained"),
        ("evaluation_after/results.jsonl", "every episode, with its messages"),
    ):
        console.print(f"  {folder / name}  [dim]{what}")
