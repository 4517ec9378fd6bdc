"""The catalogue: products, goals and full-text index in one SQLite file, read by any number of threads."""

import json
import random
import sqlite3
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock, local
from typing import Any
from urllib.parse import quote

from megatron_agent.chat.conversation import refuse_lone_surrogates
from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.webshop.goal import WebShopTask, to_task
from megatron_agent.environments.webshop.product import Product
from megatron_agent.errors import UserError

SCHEMA_VERSION = 1
BUILD = "python -m data_prep.build_webshop_catalogue"
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE products (
    position INTEGER PRIMARY KEY, asin TEXT NOT NULL UNIQUE, category TEXT NOT NULL, query TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE TABLE attributes (attribute TEXT, position INTEGER, PRIMARY KEY (attribute, position)) WITHOUT ROWID;
CREATE TABLE goals (number INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE INDEX products_by_category ON products (category);
CREATE INDEX products_by_query ON products (query);
CREATE VIRTUAL TABLE documents USING fts5(text, content='', tokenize='porter unicode61');
"""
"""`position` is a product's place in items_shuffle.json; the index holds no copy of the texts."""
_LISTINGS = {
    "category": "FROM products WHERE category = ?",
    "query": "FROM products WHERE query = ?",
    "attribute": "FROM products JOIN attributes USING (position) WHERE attribute = ?",
}


class Catalogue:
    """A finished catalogue file, open for reading. Every thread gets a connection of its own."""

    def __init__(self, path: Path) -> None:
        """Open the file; UserError when it is not a catalogue, or not a finished one."""
        self.path = path
        self._local = local()
        self._connections: list[sqlite3.Connection] = []
        self._lock = Lock()
        self.facts: dict[str, str] = {}
        try:
            self.facts = dict(self.rows("SELECT name, value FROM facts"))
        except EnvironmentFault as error:
            self.close()
            raise UserError(f"expected a WebShop catalogue, got {error}; build one with {BUILD}") from error
        if self.facts.get("version") != str(SCHEMA_VERSION) or "complete" not in self.facts:
            self.close()
            found = "an unfinished one" if self.facts.get("version") == str(SCHEMA_VERSION) else "another version"
            raise UserError(f"{path}: expected a finished WebShop catalogue, got {found}; build it with {BUILD}")
        self.product = lru_cache(maxsize=8192)(self._product)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query and return all its rows; EnvironmentFault when the file cannot be read."""
        try:
            return self._connection().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise EnvironmentFault(f"{self.path}: {error}") from error

    def count(self) -> int:
        """Return the number of products."""
        return int(self.rows("SELECT count(*) FROM products")[0][0])

    def draw(self, chance: random.Random, number: int) -> list[str]:
        """Return the asins of so many different products drawn by chance, or of all when there are fewer."""
        number = min(number, self.count())
        ((last,),) = self.rows("SELECT max(position) FROM products")
        drawn: dict[str, None] = {}
        while len(drawn) < number:  # some positions are of records that were left out
            for (asin,) in self.rows("SELECT asin FROM products WHERE position = ?", (chance.randint(0, last),)):
                drawn[asin] = None
        return list(drawn)

    def listing(self, kind: str, value: str, offset: int, limit: int) -> tuple[int, list[str]]:
        """Return how many products have this category, query or attribute, and the asins of one page of them."""
        value = value.encode("utf-8", "replace").decode()  # a model can write what is not Unicode text
        chosen = _LISTINGS[kind]
        total = self.rows(f"SELECT count(*) {chosen}", (value,))[0][0]
        page = self.rows(f"SELECT asin {chosen} ORDER BY position LIMIT ? OFFSET ?", (value, limit, offset))
        return total, [asin for (asin,) in page]

    def tasks(self, start: int = 0, end: int = 1 << 62) -> list[WebShopTask]:
        """Return the goals whose numbers are in a range, the end not included; EnvironmentFault as `rows`."""
        rows = self.rows(
            "SELECT number, record FROM goals WHERE number >= ? AND number < ? ORDER BY number", (start, end)
        )
        try:
            return [to_task(number, json.loads(record)) for number, record in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise EnvironmentFault(f"{self.path}: a goal is damaged: {error}") from error

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def known(self, asins: Sequence[str]) -> list[str]:
        """Return those of some asins that are in the catalogue."""
        return [asin for asin in asins if self.rows("SELECT 1 FROM products WHERE asin = ?", (asin,))]

    def _product(self, asin: str) -> Product:
        try:
            ((record,),) = self.rows("SELECT record FROM products WHERE asin = ?", (asin,))
            return Product.from_record(unpack(record))
        except (zlib.error, ValueError, KeyError, TypeError) as error:
            raise EnvironmentFault(f"{self.path}: the product {asin} is damaged or missing: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            address = f"file:{quote(str(self.path.absolute()))}?mode=ro&immutable=1"
            connection = sqlite3.connect(address, uri=True, check_same_thread=False)
            self._local.connection = connection
            with self._lock:
                self._connections.append(connection)
        return connection


def pack(record: Any, where: str) -> bytes:
    """Return a record as compressed JSON; UserError, after `where`, when a text of it is not Unicode."""
    text = json.dumps(record, ensure_ascii=False)
    refuse_lone_surrogates(text, where)
    return zlib.compress(text.encode())


def unpack(data: bytes) -> Any:
    """Return the record that :func:`pack` wrote."""
    return json.loads(zlib.decompress(data))
