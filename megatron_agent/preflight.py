"""`srun python -m megatron_agent.preflight --config C.yaml`: can these nodes train this configuration together?"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from megatron_agent.errors import UserError, run_command
from megatron_agent.training.config import TrainConfig, parse_sections, training_parser

EXIT_FAILED = 1
DESCRIPTION = """\
Check the nodes of a job before training: one task a rank, with the variables that training gets (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Looks at GPUs, driver, free GPU memory, library versions, the run's folder, free
space, hashes of data and checkpoint (divided over the ranks), clocks, the port, whether code and configuration are the
same on all nodes and divide over the ranks, and runs an all-reduce over all ranks. Rank 0 prints one line a node and a
verdict. Exit status, on every rank: 0 all is well, 1 it is not. The port is free again afterwards.

Examples: srun python -m megatron_agent.preflight --config launch/configs/agentlm_7b.yaml
python -m megatron_agent.preflight --config launch/configs/agentlm_7b.yaml --world-size 8    (before an allocation)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with status 1 when training cannot start."""
    options, config, problem = parse_preflight(arguments)
    if options["world_size"] is not None and config is not None:
        check_before_allocation(config, options["world_size"], options["device"])
        return
    # torch writes the C++ stack of a lost connection otherwise; who was lost is told in our own line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from megatron_agent.installation.gather import CutOffError  # imports torch: only after --help
    from megatron_agent.installation.node_report import Request, config_paths
    from megatron_agent.installation.place import place_from_environment
    from megatron_agent.installation.rounds import Rounds
    from megatron_agent.installation.verdict import Demands

    try:
        place = place_from_environment()
        request = Request(config, problem, config_paths(options["config"]), options["device"])
        demands = Demands(
            device=options["device"],
            precision=config.training.precision if config is not None else "fp32",
            gpus_per_node=options["gpus_per_node"],
            min_free_gb=options["min_free_gb"],
        )
        outcome = Rounds(place, request, demands, options["timeout"]).run()
    except UserError as error:
        print(f"preflight: FAILED: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except CutOffError as error:
        # Rank 0's is the verdict; another rank's is a line of its own.
        line = f"preflight: FAILED on {place.node}: {error}" if place.rank == 0 else f"preflight: {place}: {error}"
        print(line, file=sys.stdout if place.rank == 0 else sys.stderr)
        sys.exit(EXIT_FAILED)
    status = 0 if outcome.ok else EXIT_FAILED
    if outcome.hung:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def check_before_allocation(config: TrainConfig, world_size: int, device: str) -> None:
    """Refuse what can be known to fail without the job's nodes; :class:`UserError` with all that is wrong."""
    from megatron_agent.installation.run_files import check_run, files_of_run
    from megatron_agent.installation.storage import existing_parent, size_problems, write_problem

    try:
        check_run(config, world_size, on_gpus=device == "cuda")
    except UserError as error:
        raise UserError(" ".join(str(error).split())) from error
    problems = size_problems(files_of_run(config))
    folder = existing_parent(config.training.output_dir)
    if unwritable := write_problem(folder):
        problems.append(f"--training.output_dir {config.training.output_dir}: {unwritable}")
    if problems:
        raise UserError("; ".join(problems))


def parse_preflight(arguments: Sequence[str] | None) -> tuple[dict[str, Any], TrainConfig | None, str | None]:
    """Return the command's options and the configuration, or why it cannot be read on this node.

    That is one node's finding among others: a file may be missing on one of them only.
    """
    parser = training_parser(prog="python -m megatron_agent.preflight", description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    options = {
        "device": (str, "cuda", "What training is to run on, cuda or cpu: another device than this one is refused."),
        "timeout": (float, 120.0, "Seconds for a rank to give a sign of life, and for the all-reduce."),
        "min_free_gb": (
            float,
            None,
            "Free space wanted at training.output_dir (default: room for its checkpoints).",
        ),
        "world_size": (
            int,
            None,
            "Before an allocation: look only at what can be known without its nodes, for this many ranks. Silent and "
            "status 0 when all is well, else one line and status 2.",
        ),
        "gpus_per_node": (int, None, "GPUs wanted on every node (default: one for each of its tasks)."),
    }
    for name, (kind, default, text) in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=text)
    values = {name: default for name, (_, default, _) in options.items()} | {"config": None}
    words = list(sys.argv[1:] if arguments is None else arguments)
    before_allocation = any(word.split("=")[0] == "--world-size" for word in words)
    try:
        values |= options_of_all_ranks(words)
        check_options(values)
        config, given = parse_sections(parser, arguments)
        values |= {name: given[name] for name in values}
        check_options(values)
        if not values["config"]:
            raise UserError("--config is needed: the configuration that will be trained")
        config.check()
    except UserError as error:
        if before_allocation:
            raise
        return values, None, " ".join(str(error).split())
    return values, config, None


def options_of_all_ranks(words: Sequence[str]) -> dict[str, Any]:
    """Return --timeout and --device where they are given: a rank that cannot read its configuration needs them too.

    A value that cannot be read is left to the whole parser.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--timeout", type=float, default=argparse.SUPPRESS)
    first.add_argument("--device", default=argparse.SUPPRESS)
    try:
        return vars(first.parse_known_args(words)[0])
    except argparse.ArgumentError:
        return {}


def check_options(values: dict[str, Any]) -> None:
    """Refuse options that cannot be meant; what is refused gets its default, so that the ranks still meet."""
    if values["device"] not in ("cuda", "cpu"):
        given, values["device"] = values["device"], "cuda"
        raise UserError(f"--device {given}: expected cuda or cpu")
    if not 0 < values["timeout"] < float("inf"):
        given, values["timeout"] = values["timeout"], 120.0
        raise UserError(f"--timeout must be above 0 and finite, got {given}")
    if values["min_free_gb"] is not None and not 0 <= values["min_free_gb"] < float("inf"):
        raise UserError(f"--min-free-gb must be at least 0 and finite, got {values['min_free_gb']}")
    for name in ("gpus_per_node", "world_size"):
        if values[name] is not None and values[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {values[name]}")


if __name__ == "__main__":
    run_command(main)
