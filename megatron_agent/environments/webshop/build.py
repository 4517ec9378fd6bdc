"""Builds a catalogue file out of WebShop's own JSON files, record by record, in steps that a stopped build repeats."""

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from megatron_agent.environments.json_entries import BLOCK_BYTES, Progress, stream_entries
from megatron_agent.environments.webshop.catalogue import SCHEMA, SCHEMA_VERSION, pack, unpack
from megatron_agent.environments.webshop.goal import human_goals, shuffled
from megatron_agent.environments.webshop.product import Product, parse_product
from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file

COMMIT_EVERY = 5_000


@dataclass(frozen=True)
class Sources:
    """The original files, plain or gzip: items_shuffle.json, items_ins_v2.json, items_human_ins.json.

    `reviews` is reviews.json; the released code does not read it, so its pages have no reviews and rating N.A.
    `limit` takes the first records only, as `num_products` of the original.
    """

    products: Path
    attributes: Path
    goals: Path
    reviews: Path | None = None
    limit: int | None = None

    def key(self, progress: Progress) -> str:
        """Return a hash of everything the catalogue is made of."""
        hashes: dict[str, Any] = {"version": SCHEMA_VERSION, "limit": self.limit}
        for name, path in asdict(self).items():
            if isinstance(path, Path):
                if not path.is_file():
                    raise UserError(f"--{name} {path}: no such file")
                size = path.stat().st_size
                blocks = -(-size // BLOCK_BYTES)
                hashes[name] = sha256_file(path, partial(progress, f"hash {path.name}", size // max(1, blocks)))
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def build_catalogue(sources: Sources, output: Path, progress: Progress = lambda name, read: None) -> str:
    """Write the catalogue of `sources` to `output`; return `built`, `resumed` or `up to date`.

    The work is done in `<output>.partial`, which a stopped build leaves and the next one goes on with if the sources
    are the same. Raises UserError naming file and record for what is not WebShop's layout, for an `output` that is
    something else than a catalogue, and while another process builds it.
    """
    if output.is_file() and _fact(output, "version") is None:
        raise UserError(f"{output}: is there and no catalogue; remove it, or choose another file to write")
    key = sources.key(progress)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder(output):
        if _fact(output, "key") == key and _fact(output, "complete"):
            return "up to date"
        return _build(sources, output, key, progress)


@contextmanager
def _only_builder(output: Path) -> Iterator[None]:
    """Keep other processes from building the same file; the lock of one that died is gone with it."""
    path = output.with_name(f"{output.name}.lock")
    with open(path, "ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{output}: another process builds it now; wait for it, or choose another file") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _build(sources: Sources, output: Path, key: str, progress: Progress) -> str:
    unfinished = output.with_name(f"{output.name}.partial")
    resumed = _fact(unfinished, "key") == key
    if not resumed:
        unfinished.unlink(missing_ok=True)
        Path(f"{unfinished}-journal").unlink(missing_ok=True)
    connection = sqlite3.connect(unfinished)
    try:
        if not resumed:
            _begin(connection, key)
        _store_by_asin(connection, "attributes", sources.attributes, _attributes_by_asin(sources, progress))
        if sources.reviews is not None:
            _store_by_asin(connection, "reviews", sources.reviews, _reviews_by_asin(sources.reviews, progress))
        _store_products(connection, sources, progress)
        _store_goals(connection, sources.goals, progress)
        connection.executescript("DROP TABLE IF EXISTS by_asin; INSERT INTO documents (documents) VALUES ('optimize');")
        _set_fact(connection, "complete", "yes")
        connection.commit()
    except sqlite3.OperationalError as error:
        raise UserError(f"{unfinished}: cannot be written: {error}; mend that and start again") from error
    except sqlite3.DatabaseError as error:
        raise UserError(f"{unfinished}: damaged ({error}); remove it and start again") from error
    finally:
        connection.close()
    os.replace(unfinished, output)
    return "resumed" if resumed else "built"


def _begin(connection: sqlite3.Connection, key: str) -> None:
    connection.executescript(SCHEMA)
    connection.execute(
        "CREATE TABLE by_asin (kind TEXT, asin TEXT, value BLOB, PRIMARY KEY (asin, kind)) WITHOUT ROWID"
    )
    _set_fact(connection, "version", str(SCHEMA_VERSION))
    _set_fact(connection, "key", key)
    connection.commit()


def _store_by_asin(connection: sqlite3.Connection, kind: str, path: Path, entries: Iterator[tuple[str, Any]]) -> None:
    """Keep what another file knows of the products where the product of an asin finds it."""
    if _get_fact(connection, kind) is not None:
        return
    rows = ((kind, asin, pack(value, f"{path}: {asin}")) for asin, value in entries)
    connection.executemany("INSERT OR REPLACE INTO by_asin VALUES (?, ?, ?)", rows)
    _set_fact(connection, kind, "stored")
    connection.commit()


def _attributes_by_asin(sources: Sources, progress: Progress) -> Iterator[tuple[str, list[str]]]:
    path = sources.attributes
    for asin, entry in stream_entries(path, dict, progress):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {asin}: expected an object, got {type(entry).__name__}")
        if "attributes" not in entry:
            continue
        attributes = entry["attributes"]
        if not isinstance(attributes, list) or not all(isinstance(value, str) for value in attributes):
            raise UserError(f"{path}: {asin}: expected attributes to be a list of texts, got {str(attributes)[:60]!r}")
        yield str(asin), attributes


def _reviews_by_asin(path: Path, progress: Progress) -> Iterator[tuple[str, Any]]:
    for number, entry in stream_entries(path, list, progress):
        if not isinstance(entry, dict) or not isinstance(entry.get("asin"), str):
            raise UserError(f"{path}: item {number}: expected an object with an asin, got {str(entry)[:60]!r}")
        yield entry["asin"], entry


def _store_products(connection: sqlite3.Connection, sources: Sources, progress: Progress) -> None:
    """Store and index the products; records that an earlier, stopped build committed are passed over."""
    done = int(_get_fact(connection, "records") or 0)
    position = -1
    for position, (_, record) in enumerate(stream_entries(sources.products, list, progress)):
        if sources.limit is not None and position >= sources.limit:
            break
        if position < done:
            continue
        where = f"{sources.products}: item {position}"
        asin = record.get("asin") if isinstance(record, dict) else None
        known = connection.execute("SELECT kind, value FROM by_asin WHERE asin = ?", (str(asin),))
        found = {kind: unpack(value) for kind, value in known}
        product = parse_product(record, found.get("attributes"), where, found.get("reviews"))
        if product is not None:
            _store_product(connection, position, product, where)
        if (position + 1) % COMMIT_EVERY == 0:
            _set_fact(connection, "records", str(position + 1))
            connection.commit()
    if position < 0:
        raise UserError(f"{sources.products}: expected products, found none")
    _set_fact(connection, "records", str(max(done, position + 1)))
    connection.commit()


def _store_product(connection: sqlite3.Connection, position: int, product: Product, where: str) -> None:
    """Store a product unless its asin is known: the original keeps the first of several."""
    inserted = connection.execute(
        "INSERT OR IGNORE INTO products VALUES (?, ?, ?, ?, ?)",
        (position, product.asin, product.category, product.query, pack(product.to_record(), where)),
    )
    if inserted.rowcount == 1:
        connection.execute("INSERT INTO documents (rowid, text) VALUES (?, ?)", (position, product.search_text))
        rows = [(attribute, position) for attribute in product.attributes]
        connection.executemany("INSERT OR IGNORE INTO attributes VALUES (?, ?)", rows)


def _store_goals(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    """Store the goals in the original's order: by product, then shuffled with seed 233."""
    instructions = dict(stream_entries(path, dict, progress))
    found = []
    for asin in instructions:
        found += connection.execute("SELECT position, record FROM products WHERE asin = ?", (asin,)).fetchall()
    goals: list[dict[str, Any]] = []
    for _, data in sorted(found):
        product = Product.from_record(unpack(data))
        goals += human_goals(product, instructions[product.asin], f"{path}: {product.asin}")
    connection.execute("DELETE FROM goals")
    connection.executemany(
        "INSERT INTO goals VALUES (?, ?)", ((number, json.dumps(goal)) for number, goal in enumerate(shuffled(goals)))
    )


def _fact(path: Path, name: str) -> str | None:
    """Return a fact of a catalogue file; None when there is no such file or fact."""
    if not path.is_file():
        return None
    connection = sqlite3.connect(path)
    try:
        return _get_fact(connection, name)
    except sqlite3.Error:
        return None
    finally:
        connection.close()


def _get_fact(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _set_fact(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))
