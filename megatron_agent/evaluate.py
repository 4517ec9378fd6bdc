"""Play a task file with a served model and score it."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from megatron_agent.environments.registry import HELD_IN, get_task_kind
from megatron_agent.environments.task_kind import TaskKind
from megatron_agent.errors import UserError, run_command
from megatron_agent.files import check_writable, read_json_object

_EPILOG = """\
example, with a model served on this machine:
  transformers serve runs/hf --device cpu --host 127.0.0.1 --port 8000 &
  python -m megatron_agent.evaluate --task database --tasks runs/db/test.jsonl \\
      --base-url http://127.0.0.1:8000/v1 --model runs/hf --output runs/db/scores --prompt-style short

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
    add("--task", required=True, help=f"{', '.join(HELD_IN)}; or a task of your own: my_task.py, my_package.my_task")
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
    add("--system-prompt", help="system message sent before every conversation (default: none)")
    add(
        "--repetition-limit",
        type=int,
        help="identical replies in a row that end an episode, 0 for never (default: the benchmark's)",
    )
    add("--limit", type=int, help="play only the first LIMIT tasks")
    kind = _add_world_options(parser, argv)
    print_summary(evaluate(kind, parser.parse_args(argv)))


def _add_world_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> TaskKind:
    """Add the flags of the kind of task that `--task` names, and return it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task", default="database")
    kind = get_task_kind(first.parse_known_args(argv)[0].task)
    group = parser.add_argument_group(f"options of {kind.name}")
    types = get_type_hints(kind.options)
    for option in fields(kind.options):
        (kept,) = [t for t in get_args(types[option.name]) or (types[option.name],) if t is not type(None)]
        flag = "--" + option.name.replace("_", "-")
        group.add_argument(flag, type=kept, default=option.default, help=option.metadata["help"])
    return kind


def evaluate(kind: TaskKind, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the evaluation the command line describes and return its summary."""
    from megatron_agent.agents.client import OpenAIChatClient
    from megatron_agent.evaluation.fingerprint import model_fingerprint
    from megatron_agent.evaluation.runner import evaluate_tasks, make_settings

    _check_numbers(arguments)
    server = _server(arguments)
    options = kind.options(**{option.name: getattr(arguments, option.name) for option in fields(kind.options)})
    if options.prompt_style not in kind.prompt_styles:
        raise UserError(
            f"--prompt-style: expected one of {', '.join(kind.prompt_styles)}, got {options.prompt_style!r}"
        )
    check_writable(arguments.output / "results.jsonl", "--output")
    fixed = {
        "model": server.model,
        "model_sha256": model_fingerprint(server.folder) if server.folder and Path(server.folder).is_dir() else None,
        "max_tokens": arguments.max_tokens,
        "temperature": arguments.temperature,
        "system_prompt": arguments.system_prompt,
        "repetition_limit": kind.repetition_limit if arguments.repetition_limit is None else arguments.repetition_limit,
    }
    client = OpenAIChatClient(
        base_url=server.base_url,
        model=server.model,
        api_key=server.api_key,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        timeout=arguments.timeout,
        retries=arguments.retries,
    )
    with kind.open(options) as world:
        tasks = world.tasks[: arguments.limit]
        settings = make_settings(kind, options, world, **fixed)
        output, concurrency = arguments.output, arguments.concurrency
        return evaluate_tasks(kind, world, tasks, lambda _: client, settings, output, concurrency)


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
