"""Where a process stands in a run: its rank and node, and which node every rank is expected on."""

import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from megatron_agent.errors import UserError
from megatron_agent.training.config import world_size_from_environment

VARIABLES = "start every task by launch/rank.sh, which sets RANK, WORLD_SIZE and LOCAL_RANK"


@dataclass(frozen=True)
class Place:
    """One rank, as srun's or torchrun's variables say."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    address: str
    """Where rank 0 can be reached."""
    port: int
    """0: any free one, for a run of one rank."""

    def __str__(self) -> str:
        return f"{self.node}, rank {self.rank}"


def place_from_environment() -> Place:
    """Read RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and the node's name (SLURMD_NODENAME, else hostname).

    Raises :class:`UserError` for variables that are missing or do not fit together.
    """
    world_size = world_size_from_environment()
    rank, local_rank = _number("RANK", "0" if world_size == 1 else None), _number("LOCAL_RANK", "0")
    port = _number("MASTER_PORT", "0" if world_size == 1 else None)
    if not 0 <= rank < world_size:
        raise UserError(f"RANK={rank} does not lie in [0, WORLD_SIZE={world_size}); check what starts the ranks")
    if port > 65535:
        raise UserError(f"MASTER_PORT={port}: expected a number up to 65535")
    address = os.environ.get("MASTER_ADDR", "127.0.0.1" if world_size == 1 else "")
    if not address:
        raise UserError(f"WORLD_SIZE={world_size} needs MASTER_ADDR, the address of rank 0's node; it is not set")
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]
    return Place(rank, world_size, local_rank, node, address, port)


def _number(name: str, default: str | None) -> int:
    text = os.environ.get(name, default)
    if text is None or not text.isdigit():
        raise UserError(f"{name}: expected a number, got {text!r}; see launch/rank.sh for what sets it")
    return int(text)


@dataclass(frozen=True)
class Arrival:
    """How a rank says that it is there."""

    node: str
    local_rank: int
    world_size: int
    process: str
    """A name that no other task has."""


def problems_of_arrivals(arrivals: Mapping[int, Arrival], world_size: int) -> dict[str, list[str]]:
    """Return, by node, what is wrong with the variables of its ranks: each local rank once from 0, one world size."""
    problems: dict[str, list[str]] = {}
    for rank, arrival in arrivals.items():
        if arrival.world_size != world_size:
            text = f"rank {rank} has WORLD_SIZE={arrival.world_size}, rank 0 has {world_size}: {VARIABLES}"
            problems.setdefault(arrival.node, []).append(text)
    for node in dict.fromkeys(arrival.node for arrival in arrivals.values()):
        local_ranks = sorted(arrival.local_rank for arrival in arrivals.values() if arrival.node == node)
        if len(arrivals) == world_size and local_ranks != list(range(len(local_ranks))):
            found = ", ".join(map(str, local_ranks))
            text = f"its ranks have LOCAL_RANK {found}, expected each number from 0 once: {VARIABLES}"
            problems.setdefault(node, []).append(text)
    return problems


def expected_nodes(environment: Mapping[str, str], world_size: int) -> list[str] | None:
    """Return the node of every rank as srun lays them out in blocks; None where SLURM's variables do not say."""
    names = expand_node_list(environment.get("SLURM_STEP_NODELIST", ""))
    tasks = expand_counts(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if not names or len(names) != len(tasks) or sum(tasks) != world_size:
        return None
    return [name for name, count in zip(names, tasks, strict=True) for _ in range(count)]


def expand_node_list(text: str) -> list[str]:
    """Return the names in SLURM's short form: `node[1-3,07],login` is node1, node2, node3, node07, login."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        made = [""]
        for literal, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", part):
            endings = [literal] if literal else [number for item in ranges.split(",") for number in _numbers(item)]
            made = [name + ending for name in made for ending in endings]
        names += made
    return names


def _numbers(item: str) -> list[str]:
    first, _, last = item.partition("-")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]


def expand_counts(text: str) -> list[int]:
    """Return the numbers in SLURM's short form: `8(x2),4` is 8, 8, 4."""
    return [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text) for _ in range(int(times or 1))]


def ranges_text(numbers: Iterable[int]) -> str:
    """Return `0-7, 12` for the numbers 0 to 7 and 12."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def ranks_text(ranks: Sequence[int]) -> str:
    """Return `rank 3` or `ranks 0-7`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {ranges_text(ranks)}"
