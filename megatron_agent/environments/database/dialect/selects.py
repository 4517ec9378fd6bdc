"""SELECT: its tables, its columns' kinds, and what MySQL refuses and SQLite takes.

That is a table's name in other case, an alias in WHERE, and columns beside aggregates that are not grouped by.
"""

from dataclasses import dataclass

from megatron_agent.environments.database.dialect.calls import Calls
from megatron_agent.environments.database.dialect.kinds import (
    UNKNOWN,
    joined,
)
from megatron_agent.environments.database.dialect.messages import no_table
from megatron_agent.environments.database.dialect.tokens import Token, literal_text
from megatron_agent.environments.database.dialect.walk import (
    ENDS,
    Columns,
    NotUnderstood,
    Refused,
    Scope,
    TargetInSubquery,
)

_JOINS = frozenset(("JOIN", "INNER", "LEFT", "RIGHT", "OUTER", "CROSS", "NATURAL", "STRAIGHT_JOIN"))


@dataclass
class Item:
    """One expression of a select list: its alias, the columns outside of aggregates, its tokens, its place from 0."""

    alias: str
    bare: list[str]
    spelled: list[str]
    number: int


class Selects(Calls):
    """SELECT with everything in it."""

    def select(self, store: bool = False) -> Columns:
        """Read a SELECT with its WITH and UNIONs; returns names and kinds of its columns."""
        with self.deeper():
            if self.take("WITH"):
                self.take("RECURSIVE")
                self.with_tables()
            columns = self.one_select(store)
            while self.take("UNION", "EXCEPT", "INTERSECT"):
                self.take("ALL", "DISTINCT")
                others = self.one_select(store)
                pairs = zip(columns, others, strict=False)  # SQLite tells when there are not as many
                columns = [(name, joined([kind, other])) for (name, kind), (_, other) in pairs]
            return columns

    def with_tables(self) -> None:
        while True:
            name, names = self.name(), list[str]()
            if self.take("("):
                names.append(self.name())
                while self.take(","):
                    names.append(self.name())
                self.expect(")")
            self.expect("AS")
            self.expect("(")
            self.named[name] = [(column, UNKNOWN) for column in names]  # while it is read, as it may name itself
            columns = self.select()
            self.named[name] = [(new, kind) for new, (_, kind) in zip(names, columns, strict=False)] or columns
            self.expect(")")
            if not self.take(","):
                return

    def one_select(self, store: bool) -> Columns:
        if self.text() == "(":
            self.at += 1
            opening = self.code[self.at - 1]
            columns = self.select(store)
            self.expect(")")
            opening.before = "SELECT * FROM " + opening.before
            return columns
        self.expect("SELECT")
        outer, self.scope = self.scope, Scope({**self.scope.tables})
        self.selects += 1
        saved, self.bare, self.aggregated = (self.bare, self.aggregated), [], False
        try:
            return self.inner_select(store)
        finally:
            self.scope = outer
            self.selects -= 1
            self.bare, self.aggregated = saved

    def inner_select(self, store: bool) -> Columns:
        while self.take("DISTINCT", "ALL", "SQL_CALC_FOUND_ROWS", "DISTINCTROW"):
            self.code[self.at - 1].text = {"SQL_CALC_FOUND_ROWS": "", "DISTINCTROW": "DISTINCT"}.get(
                self.word(-1), self.text(-1)
            )
        start = self.at
        self.skip_to("FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT")
        if self.word() == "FROM" and self.word(1) == "DUAL":
            self.code[self.at].text = self.code[self.at + 1].text = ""
            self.at += 2
        elif self.take("FROM"):
            self.tables()
        end, self.at = self.at, start
        columns, items = self.items(store)
        self.at = max(end, self.at)
        self.scope.aliases = {name: kind for name, kind in columns if name}
        has_where = self.take("WHERE")
        equal = self.where() if has_where else set[str]()
        groups = self.groups() if self.take("GROUP") else None
        if self.take("HAVING"):
            having = self.at - 1
            self.expression()
            if groups is None and not self.aggregated and not has_where:
                self.code[having].text = "WHERE"  # MySQL filters rows with it too
        self.refuse_ungrouped(items, groups, equal)
        if self.take("WINDOW"):
            raise NotUnderstood
        if self.take("ORDER"):
            self.expect("BY")
            self.expression_list(ordered=True)
        if self.take("LIMIT"):
            if self.text() == "-" or (self.at < len(self.code) and self.code[self.at].kind == "string"):
                raise Refused(self.code[self.at].start)
            self.expression_list(ordered=False)
            if self.take("OFFSET"):
                self.expression()
        return columns

    def items(self, store: bool) -> tuple[Columns, list[Item]]:
        columns, items = Columns(), list[Item]()
        while True:
            self.bare = []
            first = self.at
            if self.text() == "*" or (self.text(1) == "." and self.text(2) == "*"):
                self.at += 1 if self.text() == "*" else 3
                items.append(Item("*", list(self.columns), [], len(items)))
                columns += [("", UNKNOWN)]  # of how many nobody knows
            else:
                node = self.expression()
                spelled = [token.text.lower() for token in self.code[first : self.at]]
                if store:
                    self.store(node)
                alias = self.code[node.last].name if node.is_column else ""
                if self.take("AS") or self.alias_follows():
                    token = self.code[self.at]
                    alias = literal_text(token).lower() if token.kind == "string" else token.name
                    if token.kind == "string":
                        token.text, token.kind = "`" + literal_text(token).replace("`", "``") + "`", "name"
                    self.at += 1
                columns.append((alias, node.kind))
                items.append(Item(alias, list(self.bare), spelled, len(items)))
            if not self.take(","):
                return columns, items

    def alias_follows(self) -> bool:
        if self.at >= len(self.code):
            return False
        token = self.code[self.at]
        return token.kind == "string" or (bool(token.name) and token.word not in ENDS)

    def where(self) -> set[str]:
        """Read the condition; returns the columns that it holds equal to something."""
        start, outer, self.bare = self.at, (self.bare, self.aggregated), []
        self.aggregated = False
        self.expression()
        if self.aggregated:
            self.refuse(ValueError("1111 (HY000): Invalid use of group function"))
        for column in self.bare:
            if column in self.scope.aliases and column not in self.columns and not self.scope.others:
                written = next(token for token in self.code[start : self.at] if token.name == column).text.strip("`")
                self.refuse(ValueError(f"1054 (42S22): Unknown column '{written}' in 'where clause'"))
        self.bare, self.aggregated = outer
        return {
            self.code[index - 1].name
            for index in range(start + 1, self.at)
            if self.code[index].text == "=" and self.code[index - 1].name
        }

    def groups(self) -> list[list[str]]:
        self.expect("BY")
        return self.expression_list(ordered=True)

    def refuse_ungrouped(self, items: list[Item], groups: list[list[str]] | None, equal: set[str]) -> None:
        """Refuse a column that is neither grouped by nor in an aggregate (ONLY_FULL_GROUP_BY)."""
        if self.scope.others or self.selects > 1 or (groups is None and not self.aggregated):
            return
        if any(len(group) == 1 and not self.is_known(group[0]) for group in groups or ()):
            return  # SQLite knows better what is wrong with it
        plain = {group[-1] for group in groups or () if group}
        for item in items:
            spelled = [text.strip("`") for text in item.spelled]
            if groups and (spelled in groups or str(item.number + 1) in plain or (item.alias and item.alias in plain)):
                continue
            for column in item.bare:
                if column not in self.columns or column in plain or column in equal:
                    continue
                place = item.number + 1 + (list(self.columns).index(column) if item.alias == "*" else 0)
                where, full = f"expression #{place}", f"'{self.table}.{self.table}.{self.columns[column]}'"
                if groups is None:
                    text = (
                        f"1140 (42000): In aggregated query without GROUP BY, {where} of SELECT list contains "
                        f"nonaggregated column {full}; this is incompatible with sql_mode=only_full_group_by"
                    )
                else:
                    text = (
                        f"1055 (42000): E{where[1:]} of SELECT list is not in GROUP BY clause and contains "
                        f"nonaggregated column {full} which is not functionally dependent on columns in GROUP BY "
                        "clause; this is incompatible with sql_mode=only_full_group_by"
                    )
                self.refuse(ValueError(text))

    def is_known(self, name: str) -> bool:
        return name in self.columns or name in self.scope.aliases or name.isdigit()

    def tables(self) -> None:
        with self.deeper():
            self.one_table()
            while self.take(",") or self.joined():
                self.one_table()
                while self.take("ON"):
                    self.expression()
                if self.take("USING"):
                    self.skip_brackets()

    def joined(self) -> bool:
        """Step over the words of a join; tells whether there are any."""
        start = self.at
        while self.take(*_JOINS):
            if self.word(-1) == "STRAIGHT_JOIN":
                self.code[self.at - 1].text = "JOIN"
        return self.at > start

    def one_table(self) -> None:
        if self.take("("):
            if self.word() in ("SELECT", "WITH") or self.text() == "(":
                self.derived += 1
                columns: Columns | None = self.select()
                self.derived -= 1
            else:
                self.tables()
                self.expect(")")
                return
            self.expect(")")
            name, own = "", False
        else:
            token = self.code[self.at] if self.at < len(self.code) else None
            name = self.name()
            if self.take("."):
                name = self.name()
            columns, own = self.named.get(name), name == self.table.lower()
            if token is not None and columns is None:
                self.refuse_other_case(token)
                if name == self.target and self.selects and not self.derived:
                    self.refuse(TargetInSubquery(self.table if own else name))
        if self.take("AS") or self.alias_follows():
            name = self.name()
        if self.word() in ("USE", "FORCE", "IGNORE") and self.word(1) in ("INDEX", "KEY"):
            raise NotUnderstood
        self.scope.others |= columns is not None or not own
        if columns is None and not own:
            columns = []  # a table of the model's making, of whatever types
        self.scope.tables[name] = None if columns is None else {column: kind for column, kind in columns if column}

    def refuse_other_case(self, token: Token) -> None:
        """Refuse the table's name in other case, which MySQL tells apart, and SQLite's own tables."""
        spelled = token.text[1:-1].replace("``", "`") if token.kind == "name" else token.text
        of_sqlite = spelled.lower().startswith(("sqlite_", "pragma_"))
        if of_sqlite or (spelled != self.table and spelled.lower() == self.table.lower()):
            self.refuse(ValueError(no_table(self.table, spelled)))
