"""`make quickstart`: data, conversion, training, conversion back, evaluation before and after, on a CPU.

Every step is a command of this project, shown before it runs. A stopped quickstart goes on where it was.
"""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_agent.configuration import read_yaml
from megatron_agent.errors import UserError, run_command
from megatron_agent.processes import available_cores
from megatron_agent.quickstart import assets
from megatron_agent.quickstart.report import write_report
from megatron_agent.quickstart.serve import serve
from megatron_agent.quickstart.steps import StepRunner, console, run_module

CONFIG = Path("launch/configs/quickstart.yaml")
FOLDER = Path("runs/quickstart")
SYSTEM_PROMPT = "You are a helpful, respectful and honest assistant."  # the paper's
TRAIN_TASKS = 110
TEST_TASKS = 36
CONCURRENCY = 12  # episodes at once: more would not be faster on two cores
GENERAL_CONVERSATIONS = 300
GENERAL_CHARACTERS = 900


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all steps, then print and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.quickstart",
        description="The whole method in miniature on a CPU: a small real Llama model (SmolLM2-135M-Instruct) learns "
        "to operate a database through ReAct turns. Results: runs/quickstart/summary.json. A second call reuses what "
        "is there; remove the folder runs/quickstart to start afresh.",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp32"),
        default="auto",
        help="auto: bf16 where the processor has AMX or AVX512-BF16, else fp32 (default: auto)",
    )
    precision = parser.parse_args(arguments).precision
    if precision == "auto":
        from megatron_agent.model.cpu_products import has_bf16_units  # imports torch

        precision = "bf16" if has_bf16_units() else "fp32"
    if not CONFIG.is_file():
        parser.error(f"run this in the root of the repository: {CONFIG} is not here")
    if sys.version_info < (3, 11):
        raise UserError(
            f"the quickstart serves its model with transformers 5, which needs Python 3.11 or newer; this is Python "
            f"{platform.python_version()}. Run: make clean && make quickstart PYTHON=python3.11"
        )
    cores = available_cores()
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # the model is served on loopback
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    started = time.monotonic()
    runner = StepRunner(FOLDER, total=12)
    console.print(f"precision {precision}, {cores} processor cores, results in {FOLDER}/")
    prepare(runner, precision)
    train(runner, precision)
    evaluate(runner, precision)
    console.rule("[bold]Result", align="left")
    write_report(FOLDER, seconds=runner.seconds())
    console.print(f"this call took {time.monotonic() - started:.0f} s")


def prepare(runner: StepRunner, precision: str) -> None:
    """Model, conversations, indexed datasets, mixture."""
    model, data = FOLDER / "model", FOLDER / "data"
    dtype = "bfloat16" if precision == "bf16" else "float32"
    runner.function("A small real Llama model", lambda: assets.convert_smollm2(model, dtype), [model], key=dtype)
    for split, count in (("train", TRAIN_TASKS), ("test", TEST_TASKS)):
        tasks, trajectories = data / f"{split}_tasks.jsonl", data / "agent.jsonl"
        command = ["data_prep.generate_database_tasks", "--split", split, "--count", str(count), "--output", str(tasks)]
        if split == "train":
            command += ["--trajectories", str(trajectories)]
        runner.command(
            "Agent trajectories from a scripted expert" if split == "train" else "Test tasks over unseen tables",
            command,
            [tasks, trajectories] if split == "train" else [tasks],
        )
    clean, general = data / "general_clean.jsonl", data / "general.jsonl"

    def clean_general() -> None:
        raw = assets.sharegpt_file()
        report = data / "general_report.json"
        command = ["data_prep.clean_sharegpt", "--input", str(raw), "--output", str(clean), "--report", str(report)]
        run_module([*command, "--skip-rule", "near_duplicate"])  # 20 of 30 seconds, for a few hundred conversations
        assets.select_short(clean, general, GENERAL_CHARACTERS, GENERAL_CONVERSATIONS)

    key = f"{GENERAL_CHARACTERS} {GENERAL_CONVERSATIONS}"
    runner.function("General conversations", clean_general, [general], key=key)
    for name in ("agent", "general"):
        prefix = data / name
        command = ["data_prep.build_indexed_dataset", "--input", str(prefix.with_suffix(".jsonl"))]
        command += ["--tokenizer", str(model), "--template", "chatml", "--system-prompt", SYSTEM_PROMPT]
        command += ["--seq-length", str(data_settings()["seq_length"]), "--output-prefix", str(prefix)]
        outputs = [prefix.with_name(f"{name}{ending}") for ending in (".manifest.json", ".bin", ".idx")]
        runner.command(f"Indexed dataset: {name}", command, outputs)


def train(runner: StepRunner, precision: str) -> None:
    """Mixture, conversion to Megatron, training, conversion back."""
    page = FOLDER / "masked_examples.html"
    command = ["data_prep.inspect_dataset", "--prefix", str(FOLDER / "data" / "agent"), "--html", str(page)]
    runner.command("What is trained, in colour", [*command, "--index", "0", "1", "2", "3"], [page])

    def mix_and_convert() -> None:
        console.print(
            f"[yellow]eta here is {data_settings()['eta']}, not the paper's 0.2: the miniature has minutes, and its "
            "general conversations serve only to show that general ability stays"
        )
        run_module(["megatron_agent.dataset.mixture", "--config", str(CONFIG)])
        command = ["checkpoints_convert.hf_to_megatron", "--hf", str(FOLDER / "model")]
        run_module([*command, "--output", str(FOLDER / "megatron")])

    key = CONFIG.read_text(encoding="utf-8")  # a changed configuration trains anew
    runner.function("Mixture; Hugging Face to Megatron", mix_and_convert, [FOLDER / "megatron"], key=key)
    runner.command(
        "Training on Megatron-core",
        ["megatron_agent.train", "--config", str(CONFIG), "--training.precision", precision],
        [FOLDER / "train"],
        resumable=True,
    )
    command = ["checkpoints_convert.megatron_to_hf", "--megatron", str(FOLDER / "train" / "checkpoints")]
    runner.command("Megatron to Hugging Face", [*command, "--output", str(FOLDER / "hf")], [FOLDER / "hf"])


def evaluate(runner: StepRunner, precision: str) -> None:
    """Play the unseen tasks with the model before and after training, through an OpenAI-compatible server."""
    for name, folder in (("before", FOLDER / "model"), ("after", FOLDER / "hf")):
        output = FOLDER / f"evaluation_{name}"

        def play(folder: Path = folder, output: Path = output) -> None:
            output.mkdir(parents=True, exist_ok=True)
            dtype = "bfloat16" if precision == "bf16" else "float32"
            with serve(folder, dtype, output / "server.log") as base_url:
                command = ["megatron_agent.evaluate", "--task", "database", "--prompt-style", "short"]
                command += ["--tasks", str(FOLDER / "data" / "test_tasks.jsonl"), "--output", str(output)]
                command += ["--base-url", base_url, "--model", str(folder), "--system-prompt", SYSTEM_PROMPT]
                # twelve at once on a busy machine may each wait for minutes
                options = ["--concurrency", str(CONCURRENCY), "--timeout", "600", "--repetition-limit", "3"]
                run_module([*command, *options])

        runner.function(f"Unseen tasks, {name} training", play, [output], resumable=True)


def data_settings() -> dict[str, Any]:
    """The `data` section of the training configuration."""
    return dict(read_yaml(CONFIG)["data"])


if __name__ == "__main__":
    run_command(main)
