"""The SPARQL client against a server that misbehaves."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.knowledge_graph import TASK_KIND, KnowledgeGraphOptions
from megatron_agent.environments.knowledge_graph.endpoint import EndpointStore
from megatron_agent.environments.knowledge_graph.store import CachedStore, QueryRefusedError
from megatron_agent.errors import UserError

NS = "http://rdf.freebase.com/ns/"
Answer = tuple[int, bytes, dict[str, str]]


def rows(*values: str) -> bytes:
    bindings = [{"x": {"type": "uri", "value": value}} for value in values]
    return json.dumps({"head": {"vars": ["x"]}, "results": {"bindings": bindings}}).encode()


@contextmanager
def served(answer: Callable[[int, str], Answer]) -> Iterator[tuple[str, list[str]]]:
    """Serve `answer(number of the request, query)` and give the address and the list of queries seen."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.headers["Accept"] == "application/sparql-results+json"
            seen.append(parse_qs(body)["query"][0])
            status, content, headers = answer(len(seen), seen[-1])
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/sparql", seen
    finally:
        server.shutdown()
        server.server_close()


def test_values_as_agentbench_compares_them() -> None:
    with served(lambda number, query: (200, rows(NS + "m.0abc", "1999-01-01-08:00", "é"), {})) as (url, seen):
        store = CachedStore(EndpointStore(url))
        for _ in range(3):
            assert store.select("SELECT ä") == ("m.0abc", "1999-01-01", "é")
    assert seen == ["SELECT ä"]


@pytest.mark.parametrize(
    "bad",
    [
        (503, b"busy", {}),
        (429, b"slow down", {}),
        (504, b"", {}),
        (200, b"<html>", {}),
        (200, b'{"results": 3}', {}),
        (200, b"[" * 100_000, {}),
        (200, b"{}", {"Content-Length": "500"}),  # cut off
    ],
)
def test_passing_faults_are_tried_again(bad: Answer) -> None:
    with served(lambda number, query: bad if number < 3 else (200, rows("a"), {})) as (url, seen):
        store = EndpointStore(url, timeout=1.0, pause=0.001)
        assert store.select("q") == ("a",)
        assert len(seen) == 3
        store.close()


def test_lasting_faults() -> None:
    with served(lambda number, query: (503, b"busy", {})) as (url, seen):
        with pytest.raises(EnvironmentFault, match="after 4 tries: status 503"):
            EndpointStore(url, pause=0.001).select("q")
        assert len(seen) == 4
    with pytest.raises(EnvironmentFault, match="ConnectError"):
        EndpointStore(url, pause=0.001).select("q")


def test_a_slow_endpoint_is_given_up() -> None:
    def slow(number: int, query: str) -> Answer:
        time.sleep(0.5)
        return 200, rows("a"), {}

    with served(slow) as (url, _), pytest.raises(EnvironmentFault, match="ReadTimeout"):
        EndpointStore(url, timeout=0.1, retries=1, pause=0.001).select("q")


@pytest.mark.parametrize("status", [400, 404, 500])
def test_refused_queries_are_not_repeated(status: int) -> None:
    with served(lambda number, query: (status, b"Virtuoso S1T00 Error", {})) as (url, seen):
        with pytest.raises(QueryRefusedError, match=f"status {status}: Virtuoso S1T00"):
            EndpointStore(url).select("q")
        assert len(seen) == 1


def test_cut_answers_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with served(lambda number, query: (200, rows("a"), {"X-SPARQL-MaxRows": "10000"})) as (url, _):
        assert EndpointStore(url).select("q") == ("a",)
    assert "cut an answer to 10000 rows" in caplog.text


def test_a_world_is_not_opened_over_a_dead_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_agent.environments.knowledge_graph.endpoint.time.sleep", lambda seconds: None)
    with served(lambda number, query: (404, b"", {})) as (url, _):
        options = KnowledgeGraphOptions(knowledge_graph_endpoint=url)
        with pytest.raises(UserError, match=r"--knowledge-graph-endpoint .*status 404"), TASK_KIND.open(options):
            pass
    with pytest.raises(UserError, match="start the endpoint"), TASK_KIND.open(options):
        pass


def test_many_threads_share_one_client() -> None:
    with served(lambda number, query: (200, rows(query), {})) as (url, seen):
        store = EndpointStore(url)
        found: dict[int, tuple[str, ...]] = {}
        threads = [threading.Thread(target=lambda k=k: found.__setitem__(k, store.select(f"q{k}"))) for k in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {k: (f"q{k}",) for k in range(32)}
        assert len(seen) == 32
