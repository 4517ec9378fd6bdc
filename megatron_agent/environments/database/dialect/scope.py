"""What an expression of a SELECT or a change may name, and of what kind each of it is."""

from dataclasses import dataclass, field

from sqlglot import exp

from megatron_agent.environments.database.dialect.kinds import TEXT, UNKNOWN, Kind

Columns = list[tuple[str, Kind]]


@dataclass
class Scope:
    """What an expression may name: tables by alias, as the kinds of their columns or None where all are TEXT; aliases.

    `table` and `columns` (small letters to spelling) are the task's, `named` what WITH defines, `target` the table that
    the statement changes. `others` tells that there are tables beside the task's, `derived` that this is such a table.
    """

    table: str
    columns: dict[str, str]
    named: dict[str, Columns] = field(default_factory=dict)
    target: str = ""
    tables: dict[str, dict[str, Kind] | None] = field(default_factory=dict)
    aliases: dict[str, Kind] = field(default_factory=dict)
    others: bool = False
    derived: bool = False
    depth: int = 0

    def kind_of(self, column: exp.Column) -> Kind:
        name, kind = column.name.lower(), UNKNOWN
        if column.table:
            known = self.tables.get(column.table.lower(), {})
            kind = TEXT if known is None else known.get(name, UNKNOWN)
        elif derived := next((known for known in self.tables.values() if known is not None and name in known), None):
            kind = derived[name]
        elif name in self.aliases:
            return self.aliases[name]
        elif None in self.tables.values():
            kind = TEXT
        # A column that the model added is of a type nobody knows.
        return UNKNOWN if kind == TEXT and None in self.tables.values() and self._is_added(column) else kind

    def _is_added(self, column: exp.Column) -> bool:
        return bool(self.columns) and column.name.lower() not in self.columns
