"""What a rank of a pretended node does before the preflight; `tests.training.launcher` calls one of these in each rank.

Rank n is all of node n + 1. As a command, this module is the training step that follows on the same port.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def each_a_node(rank: int) -> None:
    os.environ.update(SLURMD_NODENAME=f"node{rank + 1}", LOCAL_RANK="0")
    os.environ.update(SLURM_STEP_NODELIST="node[1-2]", SLURM_STEP_TASKS_PER_NODE="1(x2)")


def two_a_node(rank: int) -> None:
    os.environ.update(SLURMD_NODENAME=f"node{rank // 2 + 1}", LOCAL_RANK=str(rank % 2))


def other_numpy_on_node2(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        sys.path.insert(0, os.environ["OTHER_NUMPY"])


def other_folder_on_node2(rank: int) -> None:
    each_a_node(rank)
    os.chdir(os.environ["FOLDER_OF_NODE1"] if rank == 0 else os.environ["FOLDER_OF_NODE2"])


def other_folder_on_node1(rank: int) -> None:
    each_a_node(rank)
    os.chdir(os.environ["FOLDER_OF_NODE2"] if rank == 0 else os.environ["FOLDER_OF_NODE1"])


def node2_has_no_local_rank_0(rank: int) -> None:
    each_a_node(rank)
    os.environ["LOCAL_RANK"] = str(rank)


def node2_has_another_world_size(rank: int) -> None:
    each_a_node(rank)
    os.environ["WORLD_SIZE"] = str(rank + 2)


def all_are_rank_1_but_the_first(rank: int) -> None:
    each_a_node(rank)
    os.environ["RANK"] = str(min(rank, 1))


def late_clock_on_node2(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        from megatron_agent.installation import clocks

        clocks.now = lambda: time.time() - 7.5


def node2_never_comes(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        os._exit(9)


def node2_dies_while_it_reports(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        from megatron_agent.installation import node_report

        node_report._look_at_files = lambda *_: os._exit(9)


def node2_fails_by_a_fault_of_ours(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        from megatron_agent.installation import node_report

        node_report._look_at_node = lambda *_: {}["nothing"]


def node2_stops_in_the_all_reduce(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        import torch.distributed

        torch.distributed.all_reduce = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)


def node2_dies_in_the_all_reduce(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        import torch.distributed

        torch.distributed.all_reduce = lambda *_: os._exit(9)


def node2_hangs_in_the_all_reduce(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        import torch.distributed

        torch.distributed.all_reduce = lambda *_: time.sleep(600)


def node2_leaves_the_all_reduce_late(rank: int) -> None:
    each_a_node(rank)
    from megatron_agent.installation import rounds

    rounds.GRACE_SECONDS = 0.5
    if rank == 1:
        import torch.distributed

        real = torch.distributed.destroy_process_group

        def late() -> None:
            time.sleep(2)
            real()

        torch.distributed.destroy_process_group = late


def node2_gets_wrong_sums(rank: int) -> None:
    each_a_node(rank)
    if rank == 1:
        import torch.distributed

        real = torch.distributed.all_reduce

        def wrong(values) -> None:
            real(values)
            values[3] += 1

        torch.distributed.all_reduce = wrong


def node1_stops_while_node2_waits(rank: int) -> None:
    each_a_node(rank)
    if rank == 0:
        from megatron_agent.installation import node_report

        node_report._look_at_files = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)


def node1_hangs_while_node2_waits(rank: int) -> None:
    each_a_node(rank)
    if rank == 0:
        from megatron_agent.installation import node_report

        node_report._look_at_files = lambda *_: time.sleep(600)


def main(arguments: Sequence[str]) -> None:
    """Start a process group by the environment, as training does, and use it."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    values = torch.ones(4)
    dist.all_reduce(values)
    Path(arguments[-1], f"sum_{dist.get_rank()}").write_text(str(values[0].item()))
    dist.destroy_process_group()
