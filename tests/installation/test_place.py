"""Ranks, nodes and ports."""

import os
import socket

import pytest

from megatron_agent.errors import UserError
from megatron_agent.installation.place import (
    Arrival,
    expand_counts,
    expand_node_list,
    expected_nodes,
    place_from_environment,
    problems_of_arrivals,
    ranges_text,
    ranks_text,
)
from megatron_agent.installation.ports import port_problem
from tests.training.launcher import free_port


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("gpu1", ["gpu1"]),
        ("node[1-3,07],login", ["node1", "node2", "node3", "node07", "login"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("rack[1-2]n[3-4]-ib", ["rack1n3-ib", "rack1n4-ib", "rack2n3-ib", "rack2n4-ib"]),
    ],
)
def test_node_lists(text: str, names: list[str]) -> None:
    assert expand_node_list(text) == names


def test_the_node_of_every_rank() -> None:
    variables = {"SLURM_STEP_NODELIST": "n[1-3]", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1"}
    assert expand_counts("2(x2),1") == [2, 2, 1]
    assert expected_nodes(variables, 5) == ["n1", "n1", "n2", "n2", "n3"]
    assert expected_nodes(variables, 6) is None
    assert expected_nodes({}, 1) is None


def test_local_ranks_and_world_sizes_that_cannot_be() -> None:
    def arrivals(*local_ranks: int, world_size: int = 2) -> dict[int, Arrival]:
        return {rank: Arrival("node1", local, world_size, str(rank)) for rank, local in enumerate(local_ranks)}

    assert problems_of_arrivals(arrivals(1, 0), 2) == {}
    assert problems_of_arrivals(arrivals(1), 2) == {}  # the other one may come
    for local_ranks in ((0, 0), (1, 2)):
        ((problem,),) = problems_of_arrivals(arrivals(*local_ranks), 2).values()
        assert problem.startswith(f"its ranks have LOCAL_RANK {local_ranks[0]}, {local_ranks[1]}, expected each number")
        assert "launch/rank.sh" in problem
    ((first, _),) = problems_of_arrivals(arrivals(0, 1, world_size=4), 2).values()
    assert first.startswith("rank 0 has WORLD_SIZE=4, rank 0 has 2")


def test_ranks_in_words() -> None:
    assert ranges_text([9, 0, 1, 2, 5]) == "0-2, 5, 9"
    assert ranks_text([3]) == "rank 3"
    assert ranks_text([3, 4]) == "ranks 3-4"


def test_variables_that_are_missing_or_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURMD_NODENAME", "gpu7")
    alone = place_from_environment()
    assert (alone.rank, alone.world_size, alone.node, alone.port) == (0, 1, "gpu7", 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="RANK: expected a number, got None"):
        place_from_environment()
    monkeypatch.setenv("RANK", "4")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(UserError, match=r"RANK=4 does not lie in \[0, WORLD_SIZE=4\)"):
        place_from_environment()
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(UserError, match="WORLD_SIZE=4 needs MASTER_ADDR"):
        place_from_environment()


def test_who_has_a_port() -> None:
    port = free_port()
    assert port_problem(port) is None
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert f"port {port} is in use by pid {os.getpid()} (" in str(port_problem(port))
    assert port_problem(port) is None


def test_a_port_whose_connections_wait_to_be_forgotten() -> None:
    """The side that closes first keeps the connection for a minute (TIME_WAIT); the port can be used at once."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    served, _ = listener.accept()
    served.close()
    client.close()
    listener.close()
    assert port_problem(port) is None
