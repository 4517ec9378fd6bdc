"""Search engines behind one interface: SQLite's FTS5 over the catalogue, or the original's Lucene index."""

import re
from pathlib import Path
from threading import Lock
from typing import Protocol

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.webshop.catalogue import Catalogue
from megatron_agent.errors import UserError

MAX_QUERY_WORDS = 256
_STOP_WORDS = """
    a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to
    was will with
    """
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Lucene's English stop words: its index has none of them."""
_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s\b", re.IGNORECASE)


class SearchEngine(Protocol):
    """Finds products by keywords. Called from several threads at once."""

    def search(self, keywords: str, limit: int) -> list[str]:
        """Return the asins of the best matches, best first; EnvironmentFault when the engine fails."""

    def close(self) -> None:
        """Release the index."""


class SqliteSearch:
    """BM25 by SQLite's FTS5 with Porter's stemmer: every word of the query is optional."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def search(self, keywords: str, limit: int) -> list[str]:
        query = match_expression(keywords)
        if not query:
            return []
        rows = self.catalogue.rows(
            "SELECT asin FROM (SELECT rowid AS position, bm25(documents) AS score FROM documents "
            "WHERE documents MATCH ? ORDER BY score, rowid LIMIT ?) "
            "JOIN products USING (position) ORDER BY score, position",
            (query, limit),
        )
        return [asin for (asin,) in rows]

    def close(self) -> None:
        """The catalogue is closed by who opened it."""


def match_expression(keywords: str) -> str:
    """Return an FTS5 query: the words of `keywords`, each quoted, joined by OR; empty when there are none.

    As in Lucene's English analyzer a possessive 's and stop words are dropped, and a word said twice weighs double.
    """
    words = _WORD.findall(_POSSESSIVE.sub(" ", keywords.lower()))
    return " OR ".join(f'"{word}"' for word in words[:MAX_QUERY_WORDS] if word not in STOP_WORDS)


class LuceneSearch:
    """The original's engine: a Lucene index made by pyserini (`search_engine/run_indexing.sh` of WebShop)."""

    def __init__(self, index: Path, catalogue: Catalogue) -> None:
        try:
            from pyserini.search.lucene import LuceneSearcher
        except ImportError as error:
            raise UserError(
                f"--webshop-lucene-index {index}: pyserini cannot be imported ({error}); install pyserini and the "
                "Java it needs, or leave the flag away for SQLite's search"
            ) from error
        if not index.is_dir():
            raise UserError(f"--webshop-lucene-index {index}: expected the folder of a Lucene index, found none")
        self.catalogue = catalogue
        self._searcher = LuceneSearcher(str(index))
        self._one_at_a_time = Lock()

    def search(self, keywords: str, limit: int) -> list[str]:
        try:
            with self._one_at_a_time:
                hits = self._searcher.search(keywords, k=limit)
        except Exception as error:  # Java's, by a class of pyjnius
            raise EnvironmentFault(f"Lucene could not search: {error}") from error
        return self.catalogue.known([hit.docid for hit in hits])

    def close(self) -> None:
        with self._one_at_a_time:
            self._searcher.close()
