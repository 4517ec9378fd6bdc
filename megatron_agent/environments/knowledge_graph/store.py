"""Where the triples are: in memory behind pyoxigraph, or behind any SPARQL endpoint."""

import hashlib
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from megatron_agent.environments.knowledge_graph.expressions import NAMESPACE
from megatron_agent.errors import UserError
from megatron_agent.files import open_decompressed

FORMATS = {".nt": "N_TRIPLES", ".nq": "N_QUADS"}
CACHED_QUERIES = 50_000
"""How many queries' answers a run keeps: entities of one run come back, and an endpoint is slow."""


class QueryRefusedError(Exception):
    """The store would not or could not answer one query; the next may do."""


class Store(Protocol):
    """Answers queries of one column. Used from many threads at once."""

    def select(self, query: str) -> tuple[str, ...]:
        """Return the values of the one column, Freebase's namespace and time zone (-08:00) taken off.

        Raises :class:`QueryRefusedError`, or `EnvironmentFault` when the store is gone.
        """


class CachedStore:
    """Keeps the answers of the last `size` different queries."""

    def __init__(self, store: Store, size: int = CACHED_QUERIES) -> None:
        self.select = lru_cache(maxsize=size)(store.select)


class OxigraphStore:
    """Triples in memory, read only. Queries of several threads run side by side (pyoxigraph lets go of the GIL)."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def select(self, query: str) -> tuple[str, ...]:
        """See :class:`Store`."""
        try:
            return tuple(plain(solution[0].value) for solution in self._store.query(query))
        except (SyntaxError, ValueError, RuntimeError, OSError) as error:
            raise QueryRefusedError(f"{type(error).__name__}: {error}") from error


def plain(value: str) -> str:
    """Return a value as AgentBench compares it."""
    return value.replace(NAMESPACE, "").replace("-08:00", "")


def read_graph(path: Path) -> tuple[OxigraphStore, str]:
    """Load a file of N-Triples (.nt) or N-Quads (.nq), or every such file of a folder; each may be gzipped (.gz).

    Returns the store and a hash of what was loaded. Raises UserError for a missing or malformed file or a missing
    pyoxigraph.
    """
    files = graph_files(path)
    pyoxigraph = import_pyoxigraph()
    store = pyoxigraph.Store()
    digest = hashlib.sha256()
    for file in files:
        try:
            with open_decompressed(file) as handle:
                data = handle.read()
            digest.update(data)
            store.bulk_load(input=data, format=getattr(pyoxigraph.RdfFormat, FORMATS[_ending(file)]))
        except (SyntaxError, ValueError, EOFError, zlib.error) as error:
            raise UserError(f"{file}: expected {FORMATS[_ending(file)].replace('_', '-')}: {error}") from error
    if not len(store):
        raise UserError(f"{path}: expected triples, found none")
    return OxigraphStore(store), digest.hexdigest()


def load_lines(lines: Iterable[str]) -> OxigraphStore:
    """Return a store of N-Quads lines."""
    pyoxigraph = import_pyoxigraph()
    store = pyoxigraph.Store()
    store.bulk_load(input="\n".join(lines).encode(), format=pyoxigraph.RdfFormat.N_QUADS)
    return OxigraphStore(store)


def graph_files(path: Path) -> list[Path]:
    """Return the graph files a path stands for, sorted; UserError when there are none."""
    if path.is_file() and _ending(path) in FORMATS:
        return [path]
    found = sorted(file for file in path.iterdir() if _ending(file) in FORMATS) if path.is_dir() else []
    if not found:
        raise UserError(
            f"--knowledge-graph-file {path}: expected a file of N-Triples (.nt) or N-Quads (.nq), gzipped (.gz) or "
            "not, or a folder of such files"
        )
    return found


def _ending(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def import_pyoxigraph() -> Any:
    """Import pyoxigraph; UserError with the extra to install when it is missing."""
    try:
        import pyoxigraph
    except ImportError as error:
        raise UserError(
            "the embedded knowledge graph needs pyoxigraph: pip install 'agentlm-megatron[knowledge-graph]' (or pass "
            "--knowledge-graph-endpoint)"
        ) from error
    return pyoxigraph
