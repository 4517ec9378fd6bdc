"""Play tasks with a served model and score it as the paper does."""

import argparse
import contextlib
import functools
import math
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_agent.environments.registry import HELD_IN, get_task_kinds
from megatron_agent.environments.task_kind import TaskKind, WorldOptions
from megatron_agent.errors import EXIT_INTERRUPTED, UserError, run_command

if TYPE_CHECKING:
    from megatron_agent.evaluation.players import Player

EXIT_NOTHING_MEASURED = 1
EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells count

_DESCRIPTION = """\
Play tasks with a model behind an OpenAI-compatible server and score it as AgentBench and the paper do.
"""
_EPILOG = """\
examples:
  a model served on this machine, on the tasks shipped with the six environments:
    transformers serve runs/hf --device cpu --host 127.0.0.1 --port 8000 &
    python -m megatron_agent.evaluate --task held-in --output runs/scores \\
        --base-url http://127.0.0.1:8000/v1 --model runs/hf
  AgentBench's own tasks of two environments:
    python -m megatron_agent.evaluate --task database os --tasks AgentBench/data --split std \\
        --base-url http://127.0.0.1:8000/v1 --model agentlm-7b --output runs/scores
  are the environments installed as they should be? Their gold solutions must score 100; no model is needed:
    python -m megatron_agent.evaluate --task held-in --expert --output runs/expert

The output folder holds results.jsonl (one line an episode, with its messages), transcripts.jsonl (every message as it
comes), summary.json and transcripts.html (to read in a browser); with several tasks each has a folder of its own in it.
A run that was stopped goes on where it was when the same command is given again.

exit status: 0; 1 when every episode of a task ended in a task error (a broken server or sandbox: nothing was measured);
2 for bad input or when the server cannot be reached; 130 or 143 when stopped by Ctrl-C or SIGTERM.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, play, print the scores."""
    from megatron_agent.evaluation.overall import print_scores

    kinds = _chosen_kinds(argv)
    arguments = _parser(kinds).parse_args(argv)
    with _stoppable():
        summary = evaluate(kinds, arguments)
        several = "of_tasks" in summary
        (print_scores if several else print_summary)(summary)
        played = [summary["of_tasks"][kind.name] if several else summary for kind in kinds]
        if any(set(of_task["statuses"]) == {"task error"} for of_task in played):
            sys.exit(EXIT_NOTHING_MEASURED)


def _chosen_kinds(argv: Sequence[str] | None) -> list[TaskKind]:
    """Return the kinds that `--task` names; none when it is not there, which the parser then says."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--task", nargs="+", action="extend", default=[])
    return get_task_kinds(first.parse_known_args(argv)[0].task)


def _parser(kinds: Sequence[TaskKind]) -> argparse.ArgumentParser:
    from megatron_agent.evaluation.world_options import add_world_options

    more = "" if kinds else "\nWith --task T --help the options of that task are shown as well.\n"
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.evaluate",
        description=_DESCRIPTION + more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    names = f"held-in for the paper's six, or of {', '.join(HELD_IN)}; or a task of your own: my_task.py, my_package.x"
    add("--task", nargs="+", action="extend", required=True, metavar="T", help=names)
    add("--output", required=True, type=Path, metavar="DIR", help="folder for results, transcripts and scores")
    add("--concurrency", type=int, default=8, help="episodes played at once (default: 8)")
    add("--limit", type=int, help="play only the first LIMIT tasks (of each kind)")
    add("--system-prompt", help="system message before every conversation (default: with --prompt-style fixed the one "
        "of training, else none, as the released evaluator)")  # fmt: skip
    add("--repetition-limit", type=int, metavar="N",
        help="identical replies in a row that end an episode, 0 for never (default: the benchmark's)")  # fmt: skip
    model = parser.add_argument_group("who plays")
    add = model.add_argument
    add("--base-url", help="address of the server, usually ending in /v1")
    add("--model", help="model name the server knows")
    add("--endpoint", type=Path, help="file of launch/serve.sbatch, in place of --base-url, --model and --api-key")
    add("--api-key", help="key for servers that ask for one (default: none)")
    add("--expert", action="store_true", help="play the gold solutions of the tasks instead; no server is needed")
    add("--replay", type=Path, metavar="DIR", help="play the recorded replies of an evaluation's folder instead")
    sampling = parser.add_argument_group("requests")
    add = functools.partial(sampling.add_argument, default=argparse.SUPPRESS)  # those that are given can be told
    add("--max-tokens", type=int, help="new tokens a reply, as in the paper (default: 128)")
    add("--temperature", type=number_or_none,
        help="0 is greedy, as in the paper (default: 0); none: not sent, the server's default holds")  # fmt: skip
    add("--top-p", type=float, help="nucleus of sampling, above 0 to 1 (default: the server's)")
    add("--seed", type=int, help="seed of sampling; every episode derives its own from it (default: none)")
    add("--timeout", type=float, help="seconds to wait for one reply (default: 120)")
    add("--retries", type=int, help="further tries of a failed request (default: 3)")
    add("--price-prompt", type=float, metavar="P", help="price of a million prompt tokens, for the cost in the summary")
    add("--price-completion", type=float, metavar="P", help="price of a million completion tokens")
    add_world_options(parser, kinds)
    return parser


def evaluate(kinds: Sequence[TaskKind], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the evaluation the command line describes; return the summary of its task, or of all tasks in the folder.

    All worlds are opened before the first request, so that a missing package, file or service is told at once.
    """
    from megatron_agent.evaluation.output import claim_output, in_order
    from megatron_agent.evaluation.overall import summarize_tasks
    from megatron_agent.evaluation.players import make_player
    from megatron_agent.evaluation.runner import check_tasks, evaluate_tasks, make_settings, write_json
    from megatron_agent.evaluation.viewer import write_viewer
    from megatron_agent.evaluation.world_options import read_world_options

    _check_numbers(arguments)
    options = read_world_options(kinds, arguments)
    player = make_player(arguments)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(claim_output(arguments.output, [kind.name for kind in kinds]))
        clients = [player.clients(kind) for kind in kinds]
        worlds = [stack.enter_context(kind.open(chosen)) for kind, chosen in zip(kinds, options, strict=True)]
        for kind, world in zip(kinds, worlds, strict=True):
            check_tasks(kind, world.tasks)
        settings = [
            make_settings(kind, chosen, world, **_fixed_settings(kind, chosen, player, arguments))
            for kind, chosen, world in zip(kinds, options, worlds, strict=True)
        ]
        output.check_shared(settings[0])
        earlier, unfinished = output.read_earlier()
        summaries = {
            kind.name: evaluate_tasks(
                kind, world, world.tasks[: arguments.limit], client_for, held, output.folders[kind.name],
                arguments.concurrency,
            )
            for kind, world, client_for, held in zip(kinds, worlds, clients, settings, strict=True)
        }  # fmt: skip
        summary = summaries[kinds[0].name]
        if output.several:
            summary = summarize_tasks(in_order({**earlier, **summaries}), list(earlier), unfinished)
            write_json(output.root / "summary.json", summary)
        write_viewer(output.all_folders(), output.root / "transcripts.html")
        return summary


def _fixed_settings(
    kind: TaskKind, options: WorldOptions, player: "Player", arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return the settings that hold for all tasks of a kind; `fixed` prompts bring the system prompt of training."""
    system_prompt = arguments.system_prompt
    if system_prompt is None and options.prompt_style == "fixed":
        from megatron_agent.chat.template import TEMPLATES

        system_prompt = TEMPLATES["llama-2"].system_prompt
    limit = kind.repetition_limit if arguments.repetition_limit is None else arguments.repetition_limit
    return {**player.settings, "system_prompt": system_prompt or None, "repetition_limit": limit}


def number_or_none(text: str) -> float | None:
    """Read a number or the word none; argparse names this function in its error."""
    return None if text == "none" else float(text)


def _check_numbers(arguments: argparse.Namespace) -> None:
    at_least = {"concurrency": 1, "max_tokens": 1, "limit": 1, "repetition_limit": 0, "retries": 0, "temperature": 0,
                "price_prompt": 0, "price_completion": 0}  # fmt: skip
    for name, smallest in at_least.items():
        value = getattr(arguments, name, None)
        if value is not None and not smallest <= value < math.inf:  # refuses NaN too
            raise UserError(f"--{name.replace('_', '-')}: expected at least {smallest}, got {value}")
    if not 0 < (timeout := getattr(arguments, "timeout", 1)) < math.inf:
        raise UserError(f"--timeout: expected seconds above 0, got {timeout}")
    if not 0 < (top_p := getattr(arguments, "top_p", 1)) <= 1:
        raise UserError(f"--top-p: expected above 0 and at most 1, got {top_p}")


class _Terminated(BaseException):
    """SIGTERM came (SLURM, `kill`)."""


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run with one line, its worlds closed; the same command goes on."""

    def terminate(number: int, frame: Any) -> None:
        raise _Terminated

    here = threading.current_thread() is threading.main_thread()  # only there can a handler be set
    before = signal.signal(signal.SIGTERM, terminate) if here else None
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as stop:
        print("\nstopped: what is finished is kept, the same command goes on from there", file=sys.stderr)
        sys.exit(EXIT_TERMINATED if isinstance(stop, _Terminated) else EXIT_INTERRUPTED)
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary of one task as a short table, beside the paper's scores where it is one of the six."""
    from megatron_agent.evaluation.overall import endings, not_comparable, task_errors, totals
    from megatron_agent.evaluation.paper_scores import PAPER_SCORES

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
    task = summary["settings"]["task"]
    print(f"score: {summary['score']:.1f} (100 x {summary['main_metric']})")
    if paper := [f"{model} {scores[task]:.1f}" for model, scores in PAPER_SCORES.items() if task in scores]:
        print(f"the paper's, on AgentBench's std split: {', '.join(paper)}")
    if remark := not_comparable({task: summary}):
        print(remark)
    print(f"endings: {endings(summary['statuses'])}")
    print(totals(summary))
    for line in task_errors({task: summary}):
        print(line)


if __name__ == "__main__":
    run_command(main)
