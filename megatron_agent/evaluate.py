"""Play a task file with a served model and score it."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable, read_json_object

_EPILOG = """\
example, with a model served on this machine:
  transformers serve runs/hf --device cpu --host 127.0.0.1 --port 8000 &
  python -m megatron_agent.evaluate --task database --tasks runs/db/test.jsonl \\
      --base-url http://127.0.0.1:8000/v1 --model runs/hf --output runs/db/scores --instruction short

The output folder holds results.jsonl (one line a task, with its messages) and summary.json. A run that was
stopped goes on where it was when the same command is given again.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, play, print the summary."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.evaluate",
        description="Play tasks with a model behind an OpenAI-compatible server and score it as AgentBench does.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("--task", default="database", help="kind of task (default: database)")
    add("--tasks", required=True, type=Path, help="task file; for database: AgentBench's dbbench JSONL")
    add("--base-url", help="address of the server, usually ending in /v1")
    add("--model", help="model name the server knows")
    add("--endpoint", type=Path, help="file of launch/serve.sbatch, in place of --base-url, --model and --api-key")
    add("--output", required=True, type=Path, help="folder for results.jsonl and summary.json")
    add("--api-key", help="key for servers that ask for one (default: none)")
    add("--concurrency", type=int, default=8, help="episodes played at once (default: 8)")
    add("--max-tokens", type=int, default=128, help="new tokens a reply, as in the paper (default: 128)")
    add("--temperature", type=float, default=0.0, help="0 is greedy, as in the paper (default: 0)")
    add("--timeout", type=float, default=120.0, help="seconds to wait for one reply (default: 120)")
    add("--retries", type=int, default=3, help="further tries of a failed request (default: 3)")
    add("--instruction", help="instruction text by name; for database: agentbench (default) or short")
    add("--system-prompt", help="system message sent before every conversation (default: none)")
    add(
        "--repetition-limit",
        type=int,
        help="identical replies in a row that end an episode, 0 for never (default: the benchmark's; for database 0)",
    )
    add("--limit", type=int, help="play only the first LIMIT tasks")
    print_summary(evaluate(parser.parse_args(argv)))


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the evaluation the command line describes and return its summary."""
    from megatron_agent.agents.client import OpenAIChatClient
    from megatron_agent.evaluation.fingerprint import model_fingerprint
    from megatron_agent.evaluation.runner import evaluate_tasks, make_settings
    from megatron_agent.evaluation.tasks import get_task_kind

    _check_numbers(arguments)
    server = _server(arguments)
    kind = get_task_kind(arguments.task)
    instruction = arguments.instruction or kind.instructions[0]
    if instruction not in kind.instructions:
        raise UserError(f"--instruction: expected one of {', '.join(kind.instructions)}, got {instruction!r}")
    check_writable(arguments.output / "results.jsonl", "--output")
    tasks = kind.read_tasks(arguments.tasks)[: arguments.limit]
    settings = make_settings(
        kind,
        arguments.tasks,
        model=server.model,
        model_sha256=model_fingerprint(server.folder) if server.folder and Path(server.folder).is_dir() else None,
        instruction=instruction,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        system_prompt=arguments.system_prompt,
        repetition_limit=kind.repetition_limit if arguments.repetition_limit is None else arguments.repetition_limit,
    )
    client = OpenAIChatClient(
        base_url=server.base_url,
        model=server.model,
        api_key=server.api_key,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        timeout=arguments.timeout,
        retries=arguments.retries,
    )
    return evaluate_tasks(kind, tasks, client, settings, arguments.output, arguments.concurrency)


@dataclass(frozen=True)
class Server:
    """Where a model is served; `folder` holds its weights, where they can be seen from here."""

    base_url: str
    model: str
    api_key: str = "none"
    folder: str = ""
    job_id: str = ""


def _server(arguments: argparse.Namespace) -> Server:
    """Return the server that --base-url and --model, or --endpoint, describe."""
    given = {name: getattr(arguments, name) for name in ("base_url", "model", "api_key")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.endpoint is None:
        if missing := {"base_url", "model"} - set(given):
            flag = "--" + missing.pop().replace("_", "-")
            raise UserError(f"{flag} is missing: give --base-url and --model, or --endpoint FILE")
        return Server(**given, folder=given["model"])
    if given:
        flag = "--" + next(iter(given)).replace("_", "-")
        raise UserError(f"--endpoint and {flag} both say where the model is served: give one of them")
    described = read_json_object(arguments.endpoint, "start launch/serve.sbatch again, which writes it")
    if not all(isinstance(value, str) for value in described.values()):
        raise UserError(
            f"--endpoint {arguments.endpoint}: expected text in every field; start launch/serve.sbatch again"
        )
    try:
        return Server(**described)
    except TypeError as error:
        wanted, got = ", ".join(field.name for field in fields(Server)), ", ".join(described)  # no values: a key is one
        raise UserError(f"--endpoint {arguments.endpoint}: expected the fields {wanted}, got {got}") from error


def _check_numbers(arguments: argparse.Namespace) -> None:
    at_least = {"concurrency": 1, "max_tokens": 1, "limit": 1, "repetition_limit": 0, "retries": 0, "temperature": 0}
    for name, smallest in at_least.items():
        value = getattr(arguments, name)
        if value is not None and not smallest <= value < math.inf:  # refuses NaN too
            raise UserError(f"--{name.replace('_', '-')}: expected at least {smallest}, got {value}")
    if not 0 < arguments.timeout < math.inf:
        raise UserError(f"--timeout: expected seconds above 0, got {arguments.timeout}")


def print_summary(summary: dict[str, Any]) -> None:
    """Print a summary as a short table."""
    low, high = summary["success_rate_95"]
    print(
        f"success {summary['successes']}/{summary['tasks']} = {summary['success_rate']:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}), mean reward {summary['mean_reward']:.3f}, "
        f"{summary['mean_rounds']:.1f} rounds a task"
    )
    for name, category in summary["categories"].items():
        print(f"  {name:<18} {category['successes']:>4} of {category['tasks']:<4}")
    for name, value in summary["metrics"].items():
        print(f"  {name:<28} {value:.3f}")
    print("endings: " + ", ".join(f"{name} {count}" for name, count in summary["statuses"].items()))


if __name__ == "__main__":
    run_command(main)
