"""Virtuoso on loopback, and the graphs the tests share."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_agent.environments.knowledge_graph import KnowledgeGraphTask, read_knowledge_graph_tasks
from megatron_agent.environments.knowledge_graph.kind import SHIPPED
from megatron_agent.environments.knowledge_graph.ontology import Ontology, read_ontology
from megatron_agent.environments.knowledge_graph.store import OxigraphStore, read_graph

CONFIGURATION = """
[Database]
DatabaseFile = {folder}/virtuoso.db
ErrorLogFile = {folder}/virtuoso.log
LockFile = {folder}/virtuoso.lck
TransactionFile = {folder}/virtuoso.trx
xa_persistent_file = {folder}/virtuoso.pxa
FileExtend = 200
[TempDatabase]
DatabaseFile = {folder}/virtuoso-temp.db
TransactionFile = {folder}/virtuoso-temp.trx
[Parameters]
ServerPort = 127.0.0.1:{sql}
ServerThreads = 8
DirsAllowed = {folder}
NumberOfBuffers = 2000
MaxDirtyBuffers = 1200
ThreadsPerQuery = 1
[HTTPServer]
ServerPort = 127.0.0.1:{http}
ServerThreads = 5
[SPARQL]
ResultSetMaxRows = 100000
"""


class Virtuoso:
    """A running Virtuoso: `url` of its endpoint, `load` for files of triples."""

    def __init__(self, folder: Path, sql: int, http: int) -> None:
        self.folder, self.sql, self.url = folder, sql, f"http://127.0.0.1:{http}/sparql"

    def load(self, file: Path, graph: str) -> None:
        shutil.copy(file, self.folder / file.name)
        statement = f"ld_dir('{self.folder}', '{file.name}', '{graph}'); rdf_loader_run(); checkpoint;"
        command = ["isql-vt", f"127.0.0.1:{self.sql}", "dba", "dba", f"exec={statement}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Error" not in done.stderr, done.stderr


@pytest.fixture(scope="session")
def virtuoso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virtuoso]:
    if shutil.which("virtuoso-t") is None or shutil.which("isql-vt") is None:
        pytest.skip("Virtuoso is not installed (Debian package virtuoso-opensource-7-bin)")
    folder = tmp_path_factory.mktemp("virtuoso")
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        sql, http = first.getsockname()[1], second.getsockname()[1]
    (folder / "virtuoso.ini").write_text(CONFIGURATION.format(folder=folder, sql=sql, http=http))
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(
            ["virtuoso-t", "-f", "-c", "virtuoso.ini"], cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        for port in (http, sql):
            _wait_for(port, process, folder / "output.txt")
        yield Virtuoso(folder, sql, http)
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"Virtuoso did not start: {output.read_text()[-500:]}")


@pytest.fixture(scope="session")
def shipped_tasks() -> list[KnowledgeGraphTask]:
    return read_knowledge_graph_tasks(SHIPPED / "tasks.json")


@pytest.fixture(scope="session")
def shipped_ontology() -> Ontology:
    return read_ontology(SHIPPED / "ontology")


@pytest.fixture(scope="session")
def shipped_store() -> OxigraphStore:
    return read_graph(SHIPPED / "graph.nt")[0]


@pytest.fixture(scope="session")
def kg_data(shared_data: Path) -> Path:
    """AgentBench's questions and ontology."""
    return shared_data / "agentbench" / "kg"
