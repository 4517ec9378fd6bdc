"""Whom to name when an all-reduce fails: those who never answered, else those furthest behind, else all."""

from collections.abc import Mapping, Sequence

from megatron_agent.installation.all_reduce import STAGES, AllReduce
from megatron_agent.installation.place import ranks_text
from megatron_agent.installation.verdict import NodeVerdict

WHERE = {
    "start": "not begun",
    "joining": "waiting for all ranks to join",
    "reducing": "in the all-reduce",
    "done": "through, but not back",
}
MEND = "set NETWORK_INTERFACE to the nodes' common network; NCCL_DEBUG=INFO says more"


def note_all_reduce(
    nodes: Sequence[NodeVerdict], results: Mapping[int, AllReduce], stages: Mapping[int, int], timeout: float
) -> None:
    """Add to the nodes the bandwidth of their slowest rank, or why the all-reduce did not come through.

    `results` lacks ranks that gave no answer; `stages` is how far each rank came, as an index of `STAGES`.
    """
    through = {rank for rank, result in results.items() if result.error is None and not result.hung}
    everyone = [rank for node in nodes for rank in node.ranks]
    guilty = guilty_ranks(results, stages, everyone)
    for node in nodes:
        mine = [rank for rank in node.ranks if rank in guilty]
        if mine:
            node.problems.append(_reason(mine, results, stages, timeout))
        elif through.issuperset(node.ranks):
            slowest = min(results[rank].bandwidth for rank in node.ranks)
            node.notes.append(f"all-reduce {slowest / 1e9:.3g} GB/s" if slowest else "all-reduce ok")
        else:
            node.notes.append(f"all-reduce not ended: waited for {ranks_text(sorted(guilty))}")


def guilty_ranks(results: Mapping[int, AllReduce], stages: Mapping[int, int], everyone: Sequence[int]) -> set[int]:
    """Return the ranks to name; none when all came through."""
    silent = {rank for rank in everyone if rank not in results}
    if silent:
        return silent
    unfinished = {rank: stages[rank] for rank in everyone if results[rank].error is not None or results[rank].hung}
    if not unfinished:
        return set()
    furthest_behind = {rank for rank, stage in unfinished.items() if stage == min(unfinished.values())}
    if len(furthest_behind) < len(unfinished):
        return furthest_behind
    return {rank for rank in unfinished if results[rank].error is not None} or set(unfinished)


def _reason(ranks: Sequence[int], results: Mapping[int, AllReduce], stages: Mapping[int, int], timeout: float) -> str:
    errors = [str(results[rank].error) for rank in ranks if rank in results and results[rank].error is not None]
    if errors:
        return f"all-reduce failed on {ranks_text(ranks)}: {errors[0]}; {MEND}"
    where = WHERE[STAGES[min(stages[rank] for rank in ranks)]]
    if not any(rank in results for rank in ranks):
        died = "it died or hangs" if len(ranks) == 1 else "they died or hang"
        return f"all-reduce: no answer from {ranks_text(ranks)} ({where}): {died}, see their output and srun's messages"
    return f"all-reduce: {ranks_text(ranks)} did not get through within {timeout:g} s ({where}); {MEND}"
