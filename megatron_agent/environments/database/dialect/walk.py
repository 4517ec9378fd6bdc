"""Where a walk through a statement stands: its tokens, the tables in sight, what it found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from megatron_agent.environments.database.dialect.kinds import (
    TEXT,
    UNKNOWN,
    Kind,
)
from megatron_agent.environments.database.dialect.tokens import Token

_DEEPEST = 60
ENDS = frozenset({
    "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "ON", "WINDOW", "FOR",
    "INTO", "AND", "OR", "XOR", "NOT", "WHEN", "THEN", "ELSE", "END", "SELECT", "BETWEEN", "IN", "LIKE", "IS",
    "REGEXP", "RLIKE", "DIV", "MOD", "AS", "ASC", "DESC", "SEPARATOR", "SET", "VALUES", "USING", "OVER", "COLLATE",
    "ESCAPE", "JOIN", "INNER", "LEFT", "RIGHT", "CROSS", "NATURAL", "STRAIGHT_JOIN", "OUTER", "LOCK", "RETURNING",
})  # fmt: skip


RESERVED = frozenset(
    """
    ACCESSIBLE ADD ALTER ANALYZE ASENSITIVE BEFORE BIGINT BLOB BOTH BY CALL CASCADE CHANGE CHARACTER CHECK COLUMN
    CONDITION CONSTRAINT CONTINUE CREATE CUBE CUME_DIST CURSOR DATABASES DECLARE DELAYED DELETE DENSE_RANK DESCRIBE
    DETERMINISTIC DISTINCT DOUBLE DROP DUAL EACH ELSEIF EMPTY ENCLOSED ESCAPED EXIT EXPLAIN FETCH FIRST_VALUE FLOAT
    FORCE FOREIGN FULLTEXT FUNCTION GENERATED GET GRANT GROUPING GROUPS HIGH_PRIORITY IGNORE INDEX INFILE INOUT
    INSENSITIVE INSERT INT INTEGER ITERATE KEY KEYS KILL LAG LAST_VALUE LATERAL LEAD LEADING LEAVE LINEAR LINES LOAD
    LONG LOOP MATCH MAXVALUE MODIFIES NTH_VALUE NTILE NUMERIC OF OPTIMIZE OPTION OPTIONALLY OUT OUTFILE PARTITION
    PERCENT_RANK PRECISION PRIMARY PROCEDURE PURGE RANGE RANK READ READS REAL RECURSIVE REFERENCES RELEASE RENAME
    REQUIRE RESIGNAL RESTRICT RETURN REVOKE ROW ROWS ROW_NUMBER SCHEMAS SENSITIVE SHOW SIGNAL SMALLINT SPATIAL SPECIFIC
    SQL SQLEXCEPTION SQLSTATE SQLWARNING SSL STARTING STORED SYSTEM TABLE TERMINATED TINYINT TO TRAILING TRIGGER UNDO
    UNIQUE UNLOCK UNSIGNED UPDATE USAGE USE VARBINARY VARCHAR VARYING VIRTUAL WHILE WITH WRITE ZEROFILL
    """.split()  # noqa: SIM905
)
"""Words that MySQL 8 takes for no name unless in backticks; without those that the walk knows as words."""
WINDOW_FUNCTIONS = frozenset(
    "CUME_DIST DENSE_RANK FIRST_VALUE LAG LAST_VALUE LEAD NTH_VALUE NTILE PERCENT_RANK RANK ROW_NUMBER".split()  # noqa: SIM905
)


class NotUnderstood(Exception):  # noqa: N818
    """What stands here is not read by the walk; SQLite gets it as it is."""


@dataclass
class Node:
    """An expression: its first and last token, its kind, and whether it is nothing but a column."""

    first: int
    last: int
    kind: Kind
    is_column: bool = False


@dataclass
class Scope:
    """The tables of one SELECT by alias: the kinds of a derived table's columns, or None where all are TEXT.

    `others` tells that there are tables beside the task's.
    """

    tables: dict[str, dict[str, Kind] | None] = field(default_factory=dict)
    aliases: dict[str, Kind] = field(default_factory=dict)
    others: bool = False

    def kind_of(self, names: Sequence[str]) -> Kind:
        *qualifiers, name = names
        if qualifiers:
            columns = self.tables.get(qualifiers[-1], {})
            return TEXT if columns is None else columns.get(name, UNKNOWN)
        for columns in self.tables.values():
            if columns is not None and name in columns:
                return columns[name]
        if name in self.aliases:
            return self.aliases[name]
        return TEXT if None in self.tables.values() else UNKNOWN


Columns = list[tuple[str, Kind]]


class TargetInSubquery(ValueError):  # noqa: N818
    """MySQL, not MariaDB, refuses to change a table that a subquery of the same statement reads."""

    def __init__(self, table: str) -> None:
        super().__init__(f"1093 (HY000): You can't specify target table '{table}' for update in FROM clause")


class Refused(Exception):  # noqa: N818
    """MySQL cannot read the statement from `position` on."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Reader:
    """One statement's tokens, read once; `columns` are those of the task's table `table`, in order."""

    def __init__(self, code: list[Token], table: str, columns: Sequence[str]) -> None:
        self.code = code
        self.table = table
        self.columns = {name.lower(): name for name in columns}
        self.at = 0
        self.depth = 0
        self.scope = Scope()
        self.named: dict[str, Columns] = {}  # of WITH
        self.bare: list[str] = []  # columns outside of aggregates, of the expression under way
        self.aggregated = False
        self.target = ""  # the table that is changed
        self.selects = self.derived = 0  # how deep in SELECTs, and in those that are tables
        self.error: ValueError | None = None

    # Tokens

    def word(self, ahead: int = 0) -> str:
        return self.code[self.at + ahead].word if self.at + ahead < len(self.code) else ""

    def text(self, ahead: int = 0) -> str:
        return self.code[self.at + ahead].text if self.at + ahead < len(self.code) else ""

    def take(self, *words: str) -> bool:
        """Step over the next token if it is one of these words or signs."""
        if self.at < len(self.code) and (self.word() in words or self.text() in words):
            self.at += 1
            return True
        return False

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise NotUnderstood

    def name(self) -> str:
        token = self.code[self.at] if self.at < len(self.code) else None
        if token is None or not token.name or (token.kind == "word" and token.word in ENDS):
            raise NotUnderstood
        if token.word in RESERVED and (not self.at or self.code[self.at - 1].text != "."):
            follows = token.word in WINDOW_FUNCTIONS and self.at + 1 < len(self.code)
            raise Refused(self.code[self.at + follows].start)
        self.at += 1
        return token.name

    def refuse(self, error: ValueError) -> None:
        """Remember the first fault that MySQL finds in a statement which it can read to its end."""
        self.error = self.error or error

    def wrap(self, node: Node, left: str, right: str) -> None:
        self.code[node.first].before = left + self.code[node.first].before
        self.code[node.last].after += right

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise NotUnderstood
        yield
        self.depth -= 1

    def skip_to(self, *words: str) -> None:
        depth = 0
        while self.at < len(self.code):
            text = self.text()
            if text == "(":
                depth += 1
            elif text == ")":
                if depth == 0:
                    return
                depth -= 1
            elif depth == 0 and (text == ";" or self.word() in words):
                return
            self.at += 1

    def skip_brackets(self) -> None:
        self.expect("(")
        self.skip_to()
        self.expect(")")

    # What the parts of the walk know of each other

    def select(self, store: bool = False) -> Columns:
        """Read a SELECT with its WITH and UNIONs; returns names and kinds of its columns."""
        raise NotImplementedError

    def call(self) -> Node:
        """Read the call of a function."""
        raise NotImplementedError
