"""From the reports of all ranks to one line a node and a verdict."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from megatron_agent.installation.clocks import LIMIT_SECONDS
from megatron_agent.installation.node_report import NodeFacts, RankReport
from megatron_agent.installation.place import ranks_text
from megatron_agent.installation.run_files import Needs
from megatron_agent.installation.storage import GIB

BF16_CAPABILITY = (8, 0)
SAME_ENVIRONMENT = "use one image or one environment on all nodes"
SAME_FILES = "put it on a file system that all nodes share"


@dataclass
class NodeVerdict:
    """One node: its ranks, what is wrong with it, and its facts."""

    name: str
    ranks: list[int]
    facts: NodeFacts | None = None
    problems: list[str] = field(default_factory=list)
    hashed_files: int = 0
    hashed_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    """Facts that are no reason to stop."""


@dataclass(frozen=True)
class Demands:
    """What is asked of every node beside what the plan of the run asks."""

    device: str
    precision: str = "bf16"
    gpus_per_node: int | None = None
    min_free_gb: float | None = None


def nodes_of(
    reports: Mapping[int, RankReport], missing: Sequence[int], node_of_missing: Callable[[int], str], timeout: float
) -> list[NodeVerdict]:
    """Return the nodes in the order of their first rank, with what their ranks found; repeated lines once."""
    nodes: dict[str, NodeVerdict] = {}
    silent: dict[str, list[int]] = {}
    for rank in sorted([*reports, *missing]):
        name = reports[rank].node if rank in reports else node_of_missing(rank)
        node = nodes.setdefault(name, NodeVerdict(name, []))
        node.ranks.append(rank)
        if rank not in reports:
            silent.setdefault(name, []).append(rank)
            continue
        report = reports[rank]
        node.facts = node.facts or report.facts
        node.problems += [problem for problem in report.problems if problem not in node.problems]
        node.hashed_files += report.hashed_files
        node.hashed_bytes += report.hashed_bytes
    for name, ranks in silent.items():
        text = f"no answer within {timeout:g} s ({ranks_text(ranks)}): see their output, and whether the node is up"
        nodes[name].problems.insert(0, text)
    return list(nodes.values())


def judge(nodes: Sequence[NodeVerdict], needs: Needs | None, demands: Demands) -> None:
    """Add to each node what is wrong with it by the plan of the run and beside the other nodes."""
    known = {node.name: node.facts for node in nodes if node.facts is not None}
    for node in nodes:
        facts = node.facts
        if facts is None:
            continue
        if demands.device == "cuda" and facts.gpu_count:
            node.problems += _gpu_problems(facts, len(node.ranks), needs, demands)
        node.problems += _room_problems(facts, needs, demands)
        if facts.clock_offset is not None and abs(facts.clock_offset) > LIMIT_SECONDS:
            way = "ahead of" if facts.clock_offset > 0 else "behind"
            node.problems.append(
                f"its clock is {abs(facts.clock_offset):.1f} s {way} rank 0's ({nodes[0].name}), more than "
                f"{LIMIT_SECONDS:g} s: have chronyd or ntpd set it"
            )
        if needs is not None and facts.gpu_bytes:
            peak = needs.gpu_peak_bytes
            if facts.gpu_bytes - needs.gpu_reserve_bytes < peak <= facts.gpu_bytes:
                node.notes.append(f"tight: the plan fills {peak / GIB:.1f} of {facts.gpu_bytes / GIB:.1f} GB")
    versions = {name: facts.versions for name, facts in known.items()}
    hashes = {name: facts.hashes for name, facts in known.items() if facts.hashes}
    hardware = {name: {"driver": facts.driver, "GPU": facts.gpu} for name, facts in known.items()}
    for table, mend in (
        (versions, SAME_ENVIRONMENT),
        (hashes, SAME_FILES),
        (hardware, "use nodes of one kind (GPU_TYPE)"),
    ):
        for name, lines in deviations(table, mend).items():
            next(node for node in nodes if node.name == name).problems += lines


def _gpu_problems(facts: NodeFacts, tasks: int, needs: Needs | None, demands: Demands) -> list[str]:
    problems = []
    wanted = max(tasks, demands.gpus_per_node or 0)
    if facts.gpu_count < wanted:
        what = f"{tasks} tasks" if wanted == tasks else f"--gpus-per-node {wanted}"
        problems.append(
            f"{facts.gpu_count} GPUs for {what}: a GPU is missing; have the node mended, or start fewer tasks a node"
        )
    if needs is not None and facts.gpu_bytes < needs.gpu_peak_bytes:
        problems.append(
            f"its GPUs have {facts.gpu_bytes / GIB:.1f} GB, this layout needs {needs.gpu_peak_bytes / GIB:.1f} GB: "
            "`python -m megatron_agent.plan` names a layout that fits"
        )
    if demands.precision == "bf16" and facts.compute_capability < BF16_CAPABILITY:
        have, need = (".".join(map(str, pair)) for pair in (facts.compute_capability, BF16_CAPABILITY))
        problems.append(f"compute capability {have}, bf16 needs {need}: use newer GPUs, or training.precision fp32")
    return problems


def _room_problems(facts: NodeFacts, needs: Needs | None, demands: Demands) -> list[str]:
    if facts.free_bytes is None:
        return []
    if demands.min_free_gb is not None:
        wanted, why = int(demands.min_free_gb * GIB), "--min-free-gb asks for"
    else:
        wanted, why = needs.disk_bytes if needs else 0, "its checkpoints need"
    if facts.free_bytes >= wanted:
        return []
    return [
        f"training.output_dir has {facts.free_bytes / GIB:,.1f} GB free, {why} {wanted / GIB:,.1f} GB: free some "
        "space, or put it on another disk"
    ]


def deviations(table: Mapping[str, Mapping[str, str]], mend: str) -> dict[str, list[str]]:
    """Return, by node, a line for each value that differs from what most nodes have (the first node's, in a draw)."""
    lines: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for values in table.values() for key in values):
        seen = {name: values.get(key, "-") for name, values in table.items()}
        usual = Counter(seen.values()).most_common(1)[0][0]
        like_usual = [name for name, value in seen.items() if value == usual]
        others = f"on {like_usual[0]}" if len(like_usual) == 1 else f"on {len(like_usual)} other nodes"
        for name, value in seen.items():
            if value != usual:
                lines.setdefault(name, []).append(f"{key} is {value} here, {usual} {others}: {mend}")
    return lines


def failed(nodes: Sequence[NodeVerdict]) -> list[NodeVerdict]:
    """Return the nodes with problems."""
    return [node for node in nodes if node.problems]


def node_lines(nodes: Sequence[NodeVerdict]) -> list[str]:
    """Return one line a node: its name, ok or FAIL, its ranks, and its facts or what is wrong."""
    width = max(len(node.name) for node in nodes)
    ranks_width = max(len(ranks_text(node.ranks)) for node in nodes)
    return [
        f"{node.name:<{width}}  {'FAIL' if node.problems else 'ok':<4}  {ranks_text(node.ranks):<{ranks_width}}  "
        + (" | ".join(node.problems) if node.problems else _facts_text(node))
        for node in nodes
    ]


def _facts_text(node: NodeVerdict) -> str:
    facts, parts = node.facts, []
    if facts is not None:
        if facts.gpu_count:
            parts.append(f"{facts.gpu_count} x {facts.gpu}, {facts.gpu_bytes / GIB:.1f} GB, driver {facts.driver}")
        else:
            parts.append(f"CPU ({facts.gpu})")
        shown = ["torch", "megatron-core", "transformer-engine", "NCCL"]
        versions = [f"{name} {facts.versions[name]}" for name in shown if facts.versions.get(name, "-") != "-"]
        parts.append(", ".join(versions))
        if facts.free_bytes is not None:
            parts.append(f"{facts.free_bytes / GIB:,.0f} GB free")
        if facts.clock_offset is not None:
            parts.append(f"clock {facts.clock_offset:+.2f} s")
    if node.hashed_files:
        parts.append(f"{node.hashed_files} files hashed, {_amount(node.hashed_bytes)}")
    return " | ".join([part for part in parts if part] + node.notes)


def _amount(size: int) -> str:
    """Return bytes in a unit that shows them: `140.2 GB`, `3.4 MB`, `12 KB`."""
    if size >= GIB:
        return f"{size / GIB:,.1f} GB"
    return f"{size / 2**20:,.1f} MB" if size >= 2**20 else f"{size / 2**10:,.0f} KB"


def verdict_line(nodes: Sequence[NodeVerdict], world_size: int, seconds: float) -> str:
    """Return the last line: ok, or the first node that failed with its first reason."""
    bad = failed(nodes)
    if not bad:
        plural = "s" if len(nodes) > 1 else ""
        ranks = f"{world_size} rank{'s' if world_size > 1 else ''}"
        return f"preflight: {len(nodes)} node{plural}, {ranks}: ok in {seconds:.0f} s"
    others = f" (and {', '.join(node.name for node in bad[1:4])}{', ...' if len(bad) > 4 else ''})" if bad[1:] else ""
    return f"preflight: FAILED on {bad[0].name}{others}: {bad[0].problems[0]}"
