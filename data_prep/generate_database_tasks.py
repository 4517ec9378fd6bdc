"""Generate Database tasks over tables of our own, and a scripted expert's trajectories for them."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.errors import UserError, run_command


def generate_database_tasks(
    split: str,
    count: int,
    seed: int,
    output: str | Path,
    trajectories: str | Path | None = None,
    prompt_style: str = "short",
) -> dict[str, int]:
    """Write `count` tasks in AgentBench's dbbench schema, and expert trajectories in AgentInstruct's.

    Labels come from running the gold SQL; trajectories from playing the environment, kept when the reward
    is 1. Returns counts: `tasks`, `trajectories`, and `dropped` (reward below 1). Raises UserError for an
    unknown split or prompt_style.
    """
    from tqdm import tqdm

    from data_prep.database_tasks.expert import play_expert
    from data_prep.database_tasks.generator import generate_tasks, task_to_record
    from megatron_agent.agents.trajectory import trajectory_to_conversation
    from megatron_agent.chat.conversation import write_conversations
    from megatron_agent.environments.database import INSTRUCTIONS
    from megatron_agent.files import atomic_write, check_writable

    if prompt_style not in INSTRUCTIONS:
        raise UserError(f"--prompt-style: expected one of {', '.join(INSTRUCTIONS)}, got {prompt_style!r}")
    for flag, path in (("--output", output), ("--trajectories", trajectories)):
        if path is not None:
            check_writable(path, flag)
    tasks = generate_tasks(split, count, seed)
    with atomic_write(output) as handle:
        for generated in tasks:
            handle.write(json.dumps(task_to_record(generated.task), ensure_ascii=False) + "\n")
    counts = {"tasks": len(tasks)}
    if trajectories is not None:
        played = list(tqdm(play_expert(tasks, prompt_style), total=len(tasks), desc="expert", unit="task"))
        kept = [trajectory_to_conversation(t, model="scripted expert") for t in played if t.reward == 1]
        counts["trajectories"] = write_conversations(trajectories, kept)
        counts["dropped"] = len(played) - len(kept)
    counts.update(sorted(Counter(generated.task.category for generated in tasks).items()))
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.generate_database_tasks",
        description="Generate Database tasks (AgentBench's dbbench schema) over invented tables. Training and "
        "test tasks use different table families: no table or column name is shared. A scripted expert can "
        "play them in the real environment; its trajectories (AgentInstruct's schema) train a model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="example: python -m data_prep.generate_database_tasks --split train --count 120 --seed 1 "
        "--output runs/db/train.jsonl --trajectories runs/db/train_trajectories.jsonl",
    )
    parser.add_argument("--split", required=True, choices=("train", "test"), help="which table families")
    parser.add_argument("--count", required=True, type=int, help="number of tasks")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same files")
    parser.add_argument("--output", required=True, type=Path, help="tasks, JSONL")
    parser.add_argument("--trajectories", type=Path, help="also play the expert and write its trajectories here")
    parser.add_argument(
        "--prompt-style",
        default="short",
        help="prompt_style text of the trajectories: short, or paper (the long MySQL prompt)",
    )
    arguments = parser.parse_args(argv)
    counts = generate_database_tasks(
        arguments.split,
        arguments.count,
        arguments.seed,
        arguments.output,
        arguments.trajectories,
        arguments.prompt_style,
    )
    print("  ".join(f"{name} {number}" for name, number in counts.items()))


if __name__ == "__main__":
    run_command(main)
