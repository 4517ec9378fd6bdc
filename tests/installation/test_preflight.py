"""The preflight as srun runs it: real processes over gloo, two pretended nodes on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.launcher import free_port
from tests.training.launching import Launcher, wait_until

WriteRun = Callable[..., Path]
OTHER_NUMPY = "9.9.9"


@pytest.fixture(scope="module")
def folder_of_node2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that only node 2 is in, with the metadata of another numpy; the pretended nodes learn of it."""
    folder = tmp_path_factory.mktemp("node2")
    metadata = folder / f"numpy-{OTHER_NUMPY}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: numpy\nVersion: {OTHER_NUMPY}\n")
    (folder / "runs").mkdir()
    node1 = tmp_path_factory.mktemp("node1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTHER_NUMPY", str(folder))
        patch.setenv("FOLDER_OF_NODE1", str(node1))
        patch.setenv("FOLDER_OF_NODE2", str(folder))
        yield folder


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory, folder_of_node2: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path_factory.mktemp("launcher") / "log.txt")
    yield launcher
    launcher.close()


@pytest.fixture
def preflight(launcher: Launcher, tmp_path: Path) -> Callable[..., tuple[list[int], list[str]]]:
    """Run a preflight of two ranks on the CPU; return the exit statuses and the lines of output."""

    def run(
        config: Path, *arguments: str, prepare: str = "each_a_node", **settings: Any
    ) -> tuple[list[int], list[str]]:
        settings = {"ranks": 2, "command": "megatron_agent.preflight"} | settings
        arguments = ("--device", "cpu", "--timeout", "20", *arguments)
        prepare = f"tests.installation.nodes:{prepare}"
        statuses, output = launcher.run(config, tmp_path / "log.txt", arguments=arguments, prepare=prepare, **settings)
        return statuses, output.splitlines()

    return run


Preflight = Callable[..., tuple[list[int], list[str]]]


def failed_on_node2(result: tuple[list[int], list[str]]) -> str:
    """Check that node 2 alone failed, on all ranks alike, and return its line."""
    statuses, lines = result
    assert statuses == [1, 1], "\n".join(lines)
    assert len(lines) == 3, "\n".join(lines)
    assert lines[0].startswith("node1  ok ")
    assert lines[1].startswith("node2  FAIL  rank 1  ")
    assert lines[2].startswith("preflight: FAILED on node2: ")
    assert lines[2].removeprefix("preflight: FAILED on node2: ") in lines[1]
    return lines[1]


def test_one_line_a_node_and_a_verdict(write_run: WriteRun, preflight: Preflight, tmp_path: Path) -> None:
    statuses, lines = preflight(write_run(), prepare="two_a_node", ranks=4)
    assert statuses == [0, 0, 0, 0]
    assert [line.split("  ")[0] for line in lines[:2]] == ["node1", "node2"]
    assert all(line.split()[1] == "ok" for line in lines[:2])
    assert "ranks 2-3" in lines[1]
    # 2 x 2 data files and 5 of the checkpoint: each hashed once, by one rank or another
    assert sum(int(line.split(" files hashed")[0].split()[-1]) for line in lines[:2]) == 9
    assert all("all-reduce" in line and "GB/s" in line for line in lines[:2])
    assert lines[2].startswith("preflight: 2 nodes, 4 ranks: ok in ")
    assert not list((tmp_path / "runs").iterdir())  # nothing is left behind


def test_the_port_is_free_for_the_step_that_follows(
    write_run: WriteRun, preflight: Preflight, launcher: Launcher, tmp_path: Path
) -> None:
    port = free_port()
    for _ in range(2):
        assert preflight(write_run(), port=port)[0] == [0, 0]
        run = launcher.start(tmp_path, tmp_path / "log.txt", ranks=2, command="tests.installation.nodes", port=port)
        assert run.wait(60) == [0, 0], run.output()
    assert (tmp_path / "sum_1").read_text() == "2.0"


def test_another_version_on_one_node(write_run: WriteRun, preflight: Preflight, tmp_path: Path) -> None:
    line = failed_on_node2(preflight(write_run(), prepare="other_numpy_on_node2"))
    assert not list((tmp_path / "runs").iterdir())
    assert f"numpy is {OTHER_NUMPY} here" in line
    assert "on node1: use one image or one environment on all nodes" in line


def test_an_altered_data_file(write_run: WriteRun, preflight: Preflight, tmp_path: Path) -> None:
    config = write_run()
    file = tmp_path / "general.bin"
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    statuses, lines = preflight(config)
    assert statuses == [1, 1]
    assert f"{file}: altered" in lines[-1]
    assert sum(" FAIL " in line for line in lines) == 1  # the node that hashed it


def test_a_checkpoint_file_cut_short(write_run: WriteRun, preflight: Preflight, tmp_path: Path) -> None:
    config = write_run()
    file = next(tmp_path.glob("checkpoint/iter_*/__1_0.distcp"))
    os.truncate(file, 100)
    statuses, lines = preflight(config)
    assert statuses == [1, 1]
    assert f"{file}: expected 4,096 bytes, got 100 (cut short?)" in lines[-1]
    assert all(" FAIL " in line for line in lines[:2])  # both nodes see it


def test_a_port_in_use(write_run: WriteRun, preflight: Preflight) -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        statuses, lines = preflight(write_run(), "--timeout", "3", port=port)
    assert statuses == [1, 1]
    verdict = next(line for line in lines if line.startswith("preflight: FAILED"))
    assert f"FAILED on node1: port {port} is in use by pid {os.getpid()} (" in verdict
    assert "set another MASTER_PORT" in verdict
    assert any(line.startswith("preflight: node2, rank 1: ") for line in lines)


def test_a_folder_that_cannot_be_written(write_run: WriteRun, preflight: Preflight, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    statuses, lines = preflight(write_run(training={"output_dir": str(tmp_path / "file" / "run")}))
    assert statuses == [1, 1]
    assert lines[-1].startswith("preflight: FAILED on node1: training.output_dir ")
    assert "a part of this path is a file; choose another path" in lines[-1]


def test_a_folder_that_the_nodes_do_not_share(write_run: WriteRun, preflight: Preflight) -> None:
    config = write_run(training={"output_dir": "runs"})
    line = failed_on_node2(preflight(config, prepare="other_folder_on_node2"))
    assert "is not the folder that rank 0 writes into: put it on a file system that all nodes share" in line


def test_a_configuration_that_one_node_lacks(write_run: WriteRun, preflight: Preflight, tmp_path: Path) -> None:
    folder = Path(os.environ["FOLDER_OF_NODE1"])
    (folder / "only_here.yaml").write_text(write_run().read_text())
    line = failed_on_node2(preflight(Path("only_here.yaml"), prepare="other_folder_on_node2"))
    assert "configuration" in line
    assert "only_here.yaml" in line


def test_a_configuration_that_rank_0_lacks(write_run: WriteRun, preflight: Preflight) -> None:
    """Nobody waits for what rank 0 cannot say, and the other node is well."""
    folder = Path(os.environ["FOLDER_OF_NODE1"])
    (folder / "on_the_others.yaml").write_text(write_run().read_text())
    start = time.monotonic()
    statuses, lines = preflight(Path("on_the_others.yaml"), prepare="other_folder_on_node1")
    assert time.monotonic() - start < 15
    assert statuses == [1, 1]
    assert "on_the_others.yaml" in lines[0]
    assert lines[1].startswith("node2  ok ")
    assert lines[2].startswith("preflight: FAILED on node1: configuration: ")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ("node2_has_no_local_rank_0", "its ranks have LOCAL_RANK 1, expected each number from 0 once"),
        ("node2_has_another_world_size", "rank 1 has WORLD_SIZE=3, rank 0 has 2"),
    ],
)
def test_variables_of_another_run(write_run: WriteRun, preflight: Preflight, prepare: str, reason: str) -> None:
    assert reason in failed_on_node2(preflight(write_run(), prepare=prepare))


def test_two_tasks_of_one_rank(write_run: WriteRun, preflight: Preflight) -> None:
    statuses, lines = preflight(
        write_run(training={"global_batch_size": 3}), "--timeout", "2", prepare="all_are_rank_1_but_the_first", ranks=3
    )
    assert statuses == [1, 1, 1]
    assert any(": RANK=1 is that of another task, on node" in line for line in lines)
    assert "no answer within 2 s (rank 2)" in lines[-1]


def test_a_clock_that_is_wrong(write_run: WriteRun, preflight: Preflight) -> None:
    line = failed_on_node2(preflight(write_run(), prepare="late_clock_on_node2"))
    assert "its clock is 7.5 s behind rank 0's (node1), more than 5 s" in line


def test_a_node_that_never_comes(write_run: WriteRun, preflight: Preflight) -> None:
    statuses, lines = preflight(write_run(), "--timeout", "3", prepare="node2_never_comes")
    assert statuses == [1, 9]
    assert lines[1].startswith("node2  FAIL  rank 1  no answer within 3 s (rank 1)")
    assert lines[2].startswith("preflight: FAILED on node2: no answer within 3 s (rank 1)")


def test_a_node_that_dies_on_the_way(write_run: WriteRun, preflight: Preflight) -> None:
    statuses, lines = preflight(write_run(), "--timeout", "3", prepare="node2_dies_while_it_reports")
    assert statuses == [1, 9]
    assert lines[2].startswith("preflight: FAILED on node2: no answer within 3 s (rank 1)")


def test_a_fault_of_our_own_is_told(write_run: WriteRun, preflight: Preflight) -> None:
    statuses, lines = preflight(write_run(), prepare="node2_fails_by_a_fault_of_ours")
    assert statuses == [1, 1]
    assert lines[-1] == "preflight: FAILED on node2: rank 1: the check itself failed: KeyError: 'nothing'"


def test_a_rank_that_stops_in_the_all_reduce(write_run: WriteRun, launcher: Launcher, tmp_path: Path) -> None:
    """Rank 0 names it; continued, the rank finds the time up and ends by itself."""
    run = launcher.start(
        write_run(),
        tmp_path / "log.txt",
        ranks=2,
        command="megatron_agent.preflight",
        arguments=("--device", "cpu", "--timeout", "3"),
        prepare="tests.installation.nodes:node2_stops_in_the_all_reduce",
    )
    wait_until(lambda: "preflight: FAILED" in run.output(), 60)
    run.signal(1, signal.SIGCONT)
    assert run.wait(60) == [1, 1]
    lines = run.output().splitlines()
    assert lines[0].startswith("node1  ok ")
    assert "all-reduce not ended: waited for rank 1" in lines[0]
    assert lines[1].startswith(
        "node2  FAIL  rank 1  all-reduce: no answer from rank 1 (in the all-reduce): it died or hangs"
    )
    assert lines[2].startswith("preflight: FAILED on node2: all-reduce: no answer from rank 1 ")


def test_a_rank_that_dies_in_the_all_reduce(write_run: WriteRun, preflight: Preflight) -> None:
    """It alone is named, not those who wait for it."""
    config = write_run(training={"global_batch_size": 3})
    statuses, lines = preflight(config, prepare="node2_dies_in_the_all_reduce", ranks=3)
    assert statuses == [1, 9, 1]
    assert any(line.startswith("preflight: FAILED on node2: all-reduce: no answer from rank 1 ") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("node")] == ["ok", "FAIL", "ok"]


def test_an_all_reduce_that_hangs(write_run: WriteRun, preflight: Preflight) -> None:
    statuses, lines = preflight(write_run(), "--timeout", "3", prepare="node2_hangs_in_the_all_reduce")
    assert statuses == [1, 1]
    assert lines[2].startswith(
        "preflight: FAILED on node1 (and node2): all-reduce: rank 0 did not get through within 3"
    )


def test_a_rank_that_leaves_the_all_reduce_late(write_run: WriteRun, preflight: Preflight) -> None:
    assert preflight(write_run(), prepare="node2_leaves_the_all_reduce_late")[0] == [0, 0]


def test_an_all_reduce_with_wrong_sums(write_run: WriteRun, preflight: Preflight) -> None:
    line = failed_on_node2(preflight(write_run(), prepare="node2_gets_wrong_sums"))
    assert "ArithmeticError: the all-reduce gave 1 wrong sums of 1,048,576" in line


def test_a_rank_0_that_hangs(write_run: WriteRun, preflight: Preflight) -> None:
    """Its clock goes on meanwhile; it ends itself, and the other rank with it."""
    statuses, lines = preflight(write_run(), "--timeout", "3", prepare="node1_hangs_while_node2_waits")
    assert statuses == [1, 1]
    assert lines[0].startswith("preflight: FAILED on node1: no progress for 3 s: ")
    assert any(line.startswith("preflight: node2, rank 1: the connection to rank 0 was lost") for line in lines)


def test_a_rank_0_that_stops(write_run: WriteRun, launcher: Launcher, tmp_path: Path) -> None:
    """The other rank says so and ends."""
    run = launcher.start(
        write_run(),
        tmp_path / "log.txt",
        ranks=2,
        command="megatron_agent.preflight",
        arguments=("--device", "cpu", "--timeout", "3"),
        prepare="tests.installation.nodes:node1_stops_while_node2_waits",
    )
    wait_until(lambda: "no sign of life from rank 0" in run.output(), 60)
    run.signal(0, signal.SIGKILL)
    assert run.wait(60) == [-signal.SIGKILL, 1]
    assert "preflight: node2, rank 1: no sign of life from rank 0 (127.0.0.1) for 3 s" in run.output()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--parallel.tensor_model_parallel_size", "3"], "tensor_model_parallel_size=3 does not divide"),
        (["--training.global_batch_size", "3"], "--training.global_batch_size (3) must be a multiple of"),
        (["--training.train_steps", "3"], "train_steps"),
        (["--device", "tpu"], "--device tpu: expected cuda or cpu"),
        (["--min-free-gb", "1e9"], "GB free, --min-free-gb asks for 1,000,000,000.0 GB"),
    ],
)
def test_what_cannot_work_is_refused(
    write_run: WriteRun, preflight: Preflight, arguments: list[str], reason: str
) -> None:
    statuses, lines = preflight(write_run(), *arguments)
    assert statuses == [1, 1]
    assert lines[-1].startswith("preflight: FAILED on node1")
    assert reason in lines[-1]


def test_the_cpu_is_no_silent_substitute(write_run: WriteRun, preflight: Preflight) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    statuses, lines = preflight(write_run(), "--device", "cuda")
    assert statuses == [1, 1]
    assert lines[-1].startswith("preflight: FAILED on node1 (and node2): --device cuda, but torch")
    assert "training would run on the CPU" in lines[-1]


def run_alone(config: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a preflight of one rank, in a fresh process without the variables of a rank."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    command = [sys.executable, "-m", "megatron_agent.preflight", "--config", str(config), "--device", "cpu"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_of_one_rank_needs_no_variables(write_run: WriteRun) -> None:
    process = run_alone(write_run())
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1].startswith("preflight: 1 node, 1 rank: ok in ")
    assert process.stderr == ""


def test_a_library_that_crashes(write_run: WriteRun, tmp_path: Path) -> None:
    """Planning the run would import it in rank 0's own process, which would end without a verdict."""
    engine = tmp_path / "crashing" / "transformer_engine"
    (engine / "pytorch").mkdir(parents=True)
    for folder in (engine, engine / "pytorch"):
        (folder / "__init__.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    path = os.pathsep.join([str(engine.parent), os.environ.get("PYTHONPATH", "")])
    process = run_alone(write_run(), SLURMD_NODENAME="node1", PYTHONPATH=path)
    assert process.returncode == 1, process.stderr
    reason = "transformer-engine does not import: importing transformer_engine.pytorch crashed (SIGSEGV)"
    assert process.stdout.splitlines()[-1].startswith(f"preflight: FAILED on node1: {reason}")
