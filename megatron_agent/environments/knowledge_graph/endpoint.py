"""A SPARQL endpoint over HTTP: Virtuoso with Freebase, as the paper's evaluator used it, or any other."""

import logging
import time
from typing import Any

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.knowledge_graph.store import QueryRefusedError, plain
from megatron_agent.errors import UserError

_LOG = logging.getLogger(__name__)

RESULTS = "application/sparql-results+json"
RETRIES = 3
PAUSE = 0.5


class EndpointStore:
    """Sends queries by POST (SPARQL 1.1 protocol) and reads JSON results. Safe to use from many threads.

    `timeout` is in seconds, for connecting and for each wait for data. A refused connection, a time-out, the
    statuses 408, 429, 502, 503 and 504 and an unreadable answer are tried again `retries` times after `pause`
    seconds, doubled each time; then `EnvironmentFault`, and UserError at the first query of a run (`check`). Other
    statuses mean the query was refused: Virtuoso answers 500 to queries that run too long.
    """

    def __init__(self, url: str, timeout: float = 60.0, retries: int = RETRIES, pause: float = PAUSE) -> None:
        import httpx  # comes with openai

        if not url.startswith(("http://", "https://")):
            raise UserError(
                "--knowledge-graph-endpoint: expected an http(s) address such as http://127.0.0.1:8890/sparql, "
                f"got {url!r}"
            )
        if not timeout > 0:
            raise UserError(f"--knowledge-graph-timeout: expected seconds above 0, got {timeout}")
        self.url = url
        self._retries = retries
        self._pause = pause
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self._client = httpx.Client(timeout=timeout, headers={"Accept": RESULTS}, limits=limits, trust_env=False)

    def check(self) -> None:
        """Ask for one triple, so that a wrong address is told before a run; UserError when no answer comes."""
        try:
            found = self.select("SELECT DISTINCT ?s WHERE { ?s ?p ?o } LIMIT 1")
        except (EnvironmentFault, QueryRefusedError) as error:
            raise UserError(
                f"--knowledge-graph-endpoint {self.url}: {error}; start the endpoint (docs/environments.md shows "
                "Virtuoso) or mend the address, which usually ends in /sparql"
            ) from error
        if not found:
            _LOG.warning("--knowledge-graph-endpoint %s: its default graph holds no triples", self.url)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def select(self, query: str) -> tuple[str, ...]:
        """See :class:`megatron_agent.environments.knowledge_graph.store.Store`."""
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            values = self._ask(query)
            if not isinstance(values, str):
                return values
        raise EnvironmentFault(f"{self.url} does not answer after {self._retries + 1} tries: {values}")

    def _ask(self, query: str) -> tuple[str, ...] | str:
        """Return the values, or what went wrong if another try may mend it."""
        import httpx

        try:
            response = self._client.post(self.url, data={"query": query})
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        if response.status_code in (408, 429, 502, 503, 504):
            return f"status {response.status_code}"
        if response.status_code != 200:
            raise QueryRefusedError(f"status {response.status_code}: {response.text[:300]}")
        if "x-sparql-maxrows" in response.headers:
            _LOG.warning("%s cut an answer to %s rows", self.url, response.headers["x-sparql-maxrows"])
        try:
            return _column(response.json())
        except (ValueError, RecursionError) as error:
            return f"no SPARQL JSON results ({error}): {response.text[:100]!r}"


def _column(data: Any) -> tuple[str, ...]:
    try:
        rows = data["results"]["bindings"]
        return tuple(plain(cell["value"]) for row in rows for cell in row.values())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
