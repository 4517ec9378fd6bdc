"""Trained tokens per second of our loop beside transformers' Trainer: same model, conversations, steps and losses.

    python -m tests.benchmarks.train_speed [--precision bf16|fp32] [--tokens N] [--json F]

SmolLM2-135M on a CPU. Contestants run one after the other in fresh processes, `--rounds` times in alternating order;
the median of the steps after the warm-up counts, and the losses of each step must agree.

* ours: `python -m megatron_agent.train`, packed rows.
* padded: Trainer with its defaults (micro-batches of about 8 conversations, padded; sdpa attention; fused AdamW).
* padding_free: Trainer with `DataCollatorWithFlattening`, the conversations of one of our rows a micro-batch.

In bf16 Trainer autocasts a model of fp32 weights (`bf16=True`, its way); ours has bf16 weights beside the optimizer's
fp32 ones. Where the processor has no bf16 units, torch emulates Trainer's products at a hundredth of the fp32 speed
while ours go through fp32 (model/cpu_products.py): the bf16 ratios say little there, read those of `--precision fp32`.
With a GPU the same command measures MFU: see tests/gpu/mfu.py.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from megatron_agent.model.cpu_products import bf16_products_reason
from megatron_agent.processes import available_cores
from tests.benchmarks.train_inputs import prepare, read_lines, write_config

CONTESTANTS = ("ours", "padded", "padding_free")
WANTED = {"padded": 1.5, "padding_free": 1.0}
"""Least ratio of our speed to theirs."""
MOST_OVERHEAD = 0.02
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}
"""Largest relative difference of the loss of a step between contestants."""
DEFAULT_TOKENS = {"fp32": 8192, "bf16": 2048}  # a step of the emulated peer takes minutes
PACKAGES = ("torch", "transformers", "accelerate", "megatron-core")


def processor_name() -> str:
    """The processor's model name, with its instructions as torch sees them."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}, {available_cores()} cores)"


def run_contestant(name: str, folder: Path, config: Path) -> list[dict[str, Any]]:
    """Run one contestant in a fresh process; return its steps."""
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    if name == "ours":
        command, records = ["megatron_agent.train", "--config", str(config)], output / "metrics.jsonl"
    else:
        records = output / "steps.jsonl"
        command = ["tests.benchmarks.train_peer", name, "--config", str(config)]
        command += ["--model", str(folder / "model"), "--output", str(records)]
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as handle:
        result = subprocess.run([sys.executable, "-m", *command], stdout=handle, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        sys.exit(f"{name} ended with status {result.returncode}; the end of {log}:\n{log.read_text()[-3000:]}")
    steps = read_lines(records)
    shutil.rmtree(output)
    return steps


def trained_tokens_per_second(steps: list[dict[str, Any]]) -> float:
    """Trained tokens of the steps over their seconds."""
    return float(sum(step["trained_tokens"] for step in steps) / sum(step["seconds"] for step in steps))


def overhead(steps: list[dict[str, Any]]) -> float:
    """Share of our steps that is neither forward and backward passes, nor reduction, nor optimizer.

    Logging of a step is reported with the step after it.
    """
    computing = sum(step["time"][part] for step in steps for part in ("forward_backward", "reduce", "optimizer"))
    everything = sum(step["seconds"] + step["time"].get("logging", 0.0) for step in steps)
    return float(1 - computing / everything)


def check_losses(runs: dict[str, list[dict[str, Any]]], tolerance: float) -> float:
    """Return the largest relative difference from our losses; end with a message when it is above `tolerance`."""
    worst = 0.0
    for name, steps in runs.items():
        for ours, theirs in zip(runs["ours"], steps, strict=True):
            if ours["trained_tokens"] != theirs["trained_tokens"]:
                sys.exit(f"step {ours['step']}: {name} trained other tokens: {ours} and {theirs}")
            difference = abs(theirs["loss"] - ours["loss"]) / ours["loss"]
            if difference > tolerance:
                sys.exit(f"step {ours['step']}: loss {ours['loss']} of ours, {theirs['loss']} of {name}: not one task")
            worst = max(worst, difference)
    return worst


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; return the result."""
    folder = arguments.folder
    inputs = prepare(folder, arguments.seq_length)
    tokens = arguments.tokens or DEFAULT_TOKENS[arguments.precision]
    per_step = min(arguments.rows_per_step, max(1, tokens // arguments.seq_length))
    counted = max(1, round(tokens / (per_step * arguments.seq_length)))
    config = write_config(folder, inputs, arguments.warmup + counted, per_step, arguments.precision)
    speeds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    overheads: list[float] = []
    worst = 0.0
    load = []
    filled: dict[str, float] = {}
    for number in range(arguments.rounds):
        runs: dict[str, list[dict[str, Any]]] = {}
        order = CONTESTANTS if number % 2 == 0 else tuple(reversed(CONTESTANTS))
        for name in order:
            load.append(round(os.getloadavg()[0], 1))
            steps = runs[name] = run_contestant(name, folder, config)
            speeds[name].append(trained_tokens_per_second(steps[arguments.warmup :]))
            print(f"round {number + 1}: {name} {speeds[name][-1]:.1f} trained tokens/s", file=sys.stderr, flush=True)
        overheads.append(overhead(runs["ours"][arguments.warmup :]))
        worst = max(worst, check_losses(runs, LOSS_TOLERANCE[arguments.precision]))
        for name in ("padded", "padding_free"):
            useful = sum(step["tokens"] for step in runs["ours"])
            filled[name] = round(useful / sum(step["positions"] for step in runs[name]), 3)
    median = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {name: median["ours"] / median[name] for name in WANTED}
    on, reason = bf16_products_reason()
    return {
        "what": "SmolLM2-135M, trained tokens per second",
        "date": datetime.date.today().isoformat(),
        "hardware": processor_name(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "precision": arguments.precision,
        "bf16_products_in_fp32": f"{'on' if on else 'off'}: {reason}" if arguments.precision == "bf16" else "not used",
        "data": inputs["sources"],
        "seq_length": arguments.seq_length,
        "rows_per_step": per_step,
        "steps_counted": counted,
        "warmup_steps": arguments.warmup,
        "rounds": arguments.rounds,
        "trained_tokens_per_second": {name: [round(v, 2) for v in values] for name, values in speeds.items()},
        "median": {name: round(value, 2) for name, value in median.items()},
        "ours_is_faster_by": {name: round(value, 3) for name, value in ratios.items()},
        "wanted": WANTED,
        "overhead_of_the_loop": round(statistics.median(overheads), 5),
        "largest_overhead_wanted": MOST_OVERHEAD,
        "met": all(ratios[name] >= WANTED[name] for name in WANTED) and statistics.median(overheads) < MOST_OVERHEAD,
        "row_positions_per_position_computed": filled,
        "largest_loss_difference": worst,
        "load_average_before_each_run": load,
    }


def print_table(result: dict[str, Any]) -> None:
    """Show the result to a reader."""
    print(f"{result['what']}, {result['precision']}, {result['date']}")
    print(f"{result['hardware']}; {', '.join(f'{name} {version}' for name, version in result['versions'].items())}")
    if result["precision"] == "bf16":
        print(f"bf16 products through fp32 (ours only) {result['bf16_products_in_fp32']}")
    for name, speed in sorted(result["median"].items(), key=lambda item: -item[1]):
        ratio = result["ours_is_faster_by"].get(name)
        note = f"   ours is {ratio:.2f} x as fast (wanted {WANTED[name]:g})" if ratio else ""
        print(f"{name:<14}{speed:>9.1f} trained tokens/s{note}")
    print(f"the loop's own overhead: {result['overhead_of_the_loop']:.2%} of a step (wanted below {MOST_OVERHEAD:.0%})")
    print(f"largest difference of a step's loss: {result['largest_loss_difference']:.1e}")


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="fp32")
    help_tokens = "tokens of packed rows a contestant trains in a round, after the warm-up (default: 8192; bf16: 2048)"
    parser.add_argument("--tokens", type=int, help=help_tokens)
    parser.add_argument("--seq-length", type=int, default=2048, help="tokens of a row (default: 2048)")
    parser.add_argument("--rows-per-step", type=int, default=2, help="rows of a step, at most (default: 2)")
    parser.add_argument("--warmup", type=int, help="steps before the counted ones (default: 1; bf16: 0)")
    parser.add_argument("--rounds", type=int, help="(default: 3; bf16: 1)")
    default = Path("runs/benchmarks/train_speed")
    parser.add_argument("--folder", type=Path, default=default, help=f"inputs, made once (default: {default})")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    slow = arguments.precision == "bf16" and bf16_products_reason()[0]
    arguments.warmup = (0 if slow else 1) if arguments.warmup is None else arguments.warmup
    arguments.rounds = arguments.rounds or (1 if slow else 3)
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    if torch.cuda.is_available():
        from tests.gpu.__main__ import main as gpu_check

        gpu_check(["mfu", *(["--json", str(arguments.json)] if arguments.json else [])])
    result = measure(arguments)
    print_table(result)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
