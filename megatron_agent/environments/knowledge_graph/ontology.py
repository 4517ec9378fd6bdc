"""What relations, attributes and types there are: Freebase's ontology, in AgentBench's files."""

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from megatron_agent.errors import UserError
from megatron_agent.files import open_decompressed

NUMBERS = ("type.int", "type.float")
"""Ranges whose values are compared as numbers; `type.datetime` is the other range an attribute has."""


@dataclass(frozen=True, eq=False)
class Ontology:
    """Relations lead from entities to entities; attributes lead to numbers and dates and serve superlatives only.

    `domains` and `ranges` give the type at either end, for both; `supertypes` the types that include a type.
    """

    relations: frozenset[str]
    attributes: frozenset[str]
    domains: Mapping[str, str]
    ranges: Mapping[str, str]
    supertypes: Mapping[str, frozenset[str]]

    def is_number(self, attribute: str) -> bool:
        return self.ranges.get(attribute) in NUMBERS

    def common_type(self, left: str, right: str) -> str | None:
        """Return the narrower of two types when they are the same or one includes the other, else None."""
        if left == right or right in self.supertypes.get(left, ()):
            return left
        return right if left in self.supertypes.get(right, ()) else None


@lru_cache(maxsize=4)
def read_ontology(folder: Path) -> Ontology:
    """Read `vocab.json`, `fb_roles` and, if there, `fb_types` of AgentBench's `knowledgegraph/ontology` folder.

    The names may end in `.txt`, and each file may be gzipped (`.gz`). Raises UserError for a missing or malformed
    file, naming file and line.
    """
    if not folder.is_dir():
        raise UserError(
            f"--knowledge-graph-ontology {folder}: no such folder; expected AgentBench's "
            "src/server/tasks/knowledgegraph/ontology"
        )
    vocabulary = _vocabulary(_find(folder, "vocab.json"))
    domains, ranges = {}, {}
    for domain, relation, target in _lines(_find(folder, "fb_roles"), "domain relation range"):
        domains[relation], ranges[relation] = domain, target
    supertypes: dict[str, set[str]] = defaultdict(set)
    if (types := _find(folder, "fb_types", required=False)) is not None:
        for narrow, _, wide in _lines(types, "type meta.subclassOf type"):
            supertypes[narrow].add(wide)
    for relation in sorted(vocabulary["relations"] | vocabulary["attributes"]):
        if relation not in ranges:
            raise UserError(f"{folder}: vocab.json names {relation!r}, but fb_roles gives no domain and range for it")
    return Ontology(
        vocabulary["relations"],
        vocabulary["attributes"],
        domains,
        ranges,
        {narrow: frozenset(wide) for narrow, wide in supertypes.items()},
    )


def _find(folder: Path, name: str, required: bool = True) -> Path | None:
    for end in ("", ".gz", ".txt", ".txt.gz"):
        if (folder / (name + end)).is_file():
            return folder / (name + end)
    if required:
        raise UserError(
            f"--knowledge-graph-ontology {folder}: expected a file {name} (or {name}.gz) there; AgentBench's ontology "
            "folder holds vocab.json, fb_roles and fb_types"
        )
    return None


def _read(path: Path | None) -> str:
    assert path is not None
    try:
        with open_decompressed(path) as handle:
            return handle.read().decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _vocabulary(path: Path | None) -> dict[str, frozenset[str]]:
    try:
        data = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    names = {}
    for key in ("relations", "attributes"):
        values = data.get(key) if isinstance(data, dict) else None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise UserError(f'{path}: expected an object with "{key}", a list of names')
        names[key] = frozenset(values)
    return names


def _lines(path: Path | None, layout: str) -> Iterator[list[str]]:
    """Yield the first three fields of each line, as AgentBench reads them.

    What follows is ignored: a full stop in fb_types, and three lines of AgentBench's files that are two run together.
    """
    for number, line in enumerate(_read(path).splitlines(), start=1):
        fields = line.split()
        if fields and len(fields) < 3:
            raise UserError(f"{path}: line {number}: expected {layout!r}, separated by blanks, got {line[:80]!r}")
        if fields:
            yield fields[:3]
