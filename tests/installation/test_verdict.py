"""Judging nodes by their reports: GPUs that no test machine has, and who is named."""

from dataclasses import replace

import pytest

from megatron_agent.installation.all_reduce import AllReduce
from megatron_agent.installation.all_reduce_verdict import guilty_ranks, note_all_reduce
from megatron_agent.installation.clocks import clock_offset
from megatron_agent.installation.node_report import NodeFacts, RankReport
from megatron_agent.installation.run_files import Needs
from megatron_agent.installation.storage import GIB, ExpectedFile, share
from megatron_agent.installation.verdict import (
    Demands,
    NodeVerdict,
    deviations,
    judge,
    node_lines,
    nodes_of,
    verdict_line,
)

FACTS = NodeFacts(
    versions={"torch": "2.9.0", "megatron-core": "0.16.1", "NCCL": "2.27.7", "numpy": "2.1.0"},
    gpu="NVIDIA H100 80GB HBM3",
    driver="590.48.01",
    gpu_count=8,
    gpu_bytes=81559 * 2**20,
    compute_capability=(9, 0),
    free_bytes=1204 * GIB,
    clock_offset=0.01,
)
HUNG = AllReduce(hung=True)
NEEDS = Needs(gpu_peak_bytes=60 * GIB, gpu_reserve_bytes=6 * GIB, disk_bytes=282 * GIB)


def judged(facts_of_node2: NodeFacts, needs: Needs = NEEDS, demands: Demands | None = None) -> list[NodeVerdict]:
    """Two nodes of eight ranks, the first of them well."""
    reports = {
        rank: RankReport("node1" if rank < 8 else "node2", hashed_files=1, hashed_bytes=GIB) for rank in range(16)
    }
    reports[0].facts, reports[8].facts = FACTS, facts_of_node2
    nodes = nodes_of(reports, [], lambda rank: "?", 120)
    judge(nodes, needs, demands or Demands("cuda"))
    return nodes


def test_all_is_well() -> None:
    nodes = judged(FACTS)
    note_all_reduce(nodes, {rank: AllReduce(bandwidth=(180 + rank) * 1e9) for rank in range(16)}, {}, 120)
    assert node_lines(nodes)[1] == (
        "node2  ok    ranks 8-15  8 x NVIDIA H100 80GB HBM3, 79.6 GB, driver 590.48.01 | torch 2.9.0, megatron-core "
        "0.16.1, NCCL 2.27.7 | 1,204 GB free | clock +0.01 s | 8 files hashed, 8.0 GB | all-reduce 188 GB/s"
    )
    assert verdict_line(nodes, 16, 14.2) == "preflight: 2 nodes, 16 ranks: ok in 14 s"


@pytest.mark.parametrize(
    ("facts", "demands", "reason"),
    [
        (replace(FACTS, gpu_count=7), Demands("cuda"), "7 GPUs for 8 tasks: a GPU is missing"),
        (FACTS, Demands("cuda", gpus_per_node=16), "8 GPUs for --gpus-per-node 16"),
        (replace(FACTS, gpu_bytes=40 * GIB), Demands("cuda"), "have 40.0 GB, this layout needs 60.0 GB"),
        (replace(FACTS, compute_capability=(7, 0)), Demands("cuda"), "compute capability 7.0, bf16 needs 8.0"),
        (replace(FACTS, free_bytes=10 * GIB), Demands("cuda"), "has 10.0 GB free, its checkpoints need 282.0 GB"),
        (replace(FACTS, free_bytes=10 * GIB), Demands("cuda", min_free_gb=11), "--min-free-gb asks for 11.0 GB"),
        (replace(FACTS, clock_offset=7.2), Demands("cuda"), "its clock is 7.2 s ahead of rank 0's (node1)"),
        (replace(FACTS, clock_offset=-60.0), Demands("cuda"), "its clock is 60.0 s behind rank 0's (node1)"),
        (replace(FACTS, driver="550.54.15"), Demands("cuda"), "driver is 550.54.15 here, 590.48.01 on node1"),
        (replace(FACTS, gpu="NVIDIA A100-SXM4-80GB"), Demands("cuda"), "GPU is NVIDIA A100-SXM4-80GB here"),
        (
            replace(FACTS, versions=FACTS.versions | {"NCCL": "2.26.2"}),
            Demands("cuda"),
            "NCCL is 2.26.2 here, 2.27.7 on node1: use one image",
        ),
    ],
)
def test_what_is_wrong_with_a_node(facts: NodeFacts, demands: Demands, reason: str) -> None:
    nodes = judged(facts, demands=demands)
    assert any(reason in problem for problem in nodes[1].problems), nodes[1].problems
    assert demands.gpus_per_node or nodes[0].problems == []
    assert verdict_line(nodes, 16, 1).startswith("preflight: FAILED on node")


def test_a_plan_that_only_just_fits_is_no_failure() -> None:
    nodes = judged(FACTS, replace(NEEDS, gpu_peak_bytes=77 * GIB))
    assert nodes[1].problems == []
    assert "tight: the plan fills 77.0 of 79.6 GB" in node_lines(nodes)[1]


def test_the_many_are_right_even_against_the_first_node() -> None:
    table = {f"node{number}": {"torch": "2.9.1" if number == 1 else "2.9.0"} for number in range(1, 5)}
    assert deviations(table, "mend") == {"node1": ["torch is 2.9.1 here, 2.9.0 on 3 other nodes: mend"]}
    assert deviations({"node1": {}, "node2": {"code": "ab"}}, "mend") == {
        "node2": ["code is ab here, - on node1: mend"]
    }


def test_nodes_that_never_came_are_named() -> None:
    reports = {rank: RankReport("node1") for rank in range(8)}
    nodes = nodes_of(reports, list(range(8, 16)), lambda rank: "node2", 120)
    assert nodes[1].problems[0].startswith("no answer within 120 s (ranks 8-15)")


@pytest.mark.parametrize(
    ("results", "stages", "guilty"),
    [
        ([AllReduce(), AllReduce(), AllReduce()], [3, 3, 3], set()),
        ([HUNG, HUNG], [2, 2, 2], {2}),  # no answer
        ([HUNG, HUNG, HUNG], [2, 1, 2], {1}),  # furthest behind
        ([HUNG, AllReduce(error="x"), HUNG], [2, 2, 2], {1}),
        ([HUNG, HUNG, HUNG], [2, 2, 2], {0, 1, 2}),
    ],
)
def test_who_is_named_for_a_hang(results: list[AllReduce], stages: list[int], guilty: set[int]) -> None:
    assert guilty_ranks(dict(enumerate(results)), dict(enumerate(stages)), range(3)) == guilty


def test_files_are_divided_by_size() -> None:
    files = [ExpectedFile(f"f{number}", size, "") for number, size in enumerate((90, 10, 50, 40, 0))]
    shares = [share(files, rank, 2) for rank in range(2)]
    assert sorted(file.path for part in shares for file in part) == [file.path for file in files]
    assert [sum(file.size for file in part) for part in shares] in ([100, 90], [90, 100])


def test_the_quickest_exchange_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0's clock is 3 s ahead; one exchange of eight is quick, the others take a second on their way back."""
    from megatron_agent.installation import clocks

    here, exchanges = [100.0], iter([1.0, 1.0, 0.01, 1.0, 1.0, 1.0, 1.0, 1.0])
    monkeypatch.setattr(clocks, "now", lambda: here[0])

    def read_rank_0() -> float:
        theirs = here[0] + 3 - clocks.TICK_SECONDS / 2
        here[0] += next(exchanges)
        return theirs

    assert clock_offset(read_rank_0) == pytest.approx(-3, abs=0.01)
