"""sqlglot set up for the task: MySQL's parser with every function under its own name, and SQLite's generator."""

import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.generators.sqlite import SQLiteGenerator
from sqlglot.parsers.mysql import MySQLParser
from sqlglot.tokens import Token, TokenType

_MOST_TOKENS = 10_000
_DEEPEST = 40  # brackets; sqlglot tries some forms of a bracket one after the other
_CALLS_READ_SPECIALLY = "CAST CHAR CONVERT EXTRACT GROUP_CONCAT POSITION SUBSTR SUBSTRING TRIM".split()  # noqa: SIM905
_CHANGES = ("INSERT", "UPDATE", "DELETE")
_OPENING = ("SELECT", "WITH", "(", *_CHANGES, "TRUNCATE", "CREATE")
_ADVERBS = ("LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE")

_REPLACE = re.compile(r"\A(\s*)REPLACE(?=\s)", re.IGNORECASE)

_WRITTEN: dict[str, Any] = {"copy": False, "identify": True, "comments": False, "unsupported_level": ErrorLevel.IGNORE}

Result = TypeVar("Result")


class NotUnderstood(Exception):  # noqa: N818
    """sqlglot does not read this; SQLite gets it as it is."""


class _MySqlParser(MySQLParser):
    FUNCTIONS: ClassVar[dict[str, Callable[..., Any]]] = {}  # every call stays `Anonymous`: its name, its arguments
    FUNCTION_PARSERS: ClassVar = {name: MySQLParser.FUNCTION_PARSERS[name] for name in _CALLS_READ_SPECIALLY}

    def _warn_unsupported(self) -> None:
        self.raise_error("Not understood")

    def _parse_csv(self, parse_method: Callable[[], Result | None], sep: TokenType = TokenType.COMMA) -> list[Result]:
        """As sqlglot's, but a comma has to be followed by something."""

        def parse() -> Result | None:
            result = parse_method()
            if result is None and self._prev is not None and self._prev.token_type == sep:
                self.raise_error("Expected an expression")
            return result

        found: list[Result] = super()._parse_csv(parse, sep)
        return found


class MySqlDialect(MySQL):
    """MySQL as it is read here."""

    Parser = _MySqlParser


class SqliteDialect(SQLite):
    """SQLite as it is written here: names in backticks, which it never takes for text."""

    class Tokenizer(SQLite.Tokenizer):
        IDENTIFIERS: ClassVar = ["`"]

    class Generator(SQLiteGenerator):
        SUPPORTS_TABLE_ALIAS_COLUMNS = True
        TRANSFORMS: ClassVar = {
            **SQLiteGenerator.TRANSFORMS,
            exp.Anonymous: lambda self, node: f"`{node.name}`({self.expressions(node, flat=True)})",
            exp.Div: lambda self, node: self.binary(node, "*1.0/"),
            exp.HexString: lambda self, node: str(int(node.name, 16)),
        }


_MYSQL = MySqlDialect()
_SQLITE = SqliteDialect()


def tokenize(sql: str) -> list[Token]:
    """Return the tokens of a MySQL statement; none where a text or name in it is not closed."""
    sql = _REPLACE.sub(r"\1INSERT ", sql)  # the task's table has no key, and sqlglot does not read REPLACE
    try:
        return list(_MYSQL.tokenize(sql))
    except SqlglotError:
        return []


def split_statements(sql: str) -> list[str]:
    """Return the statements of a text one by one, without the semicolons between them."""
    ends = [token.start for token in tokenize(sql) if token.token_type == TokenType.SEMICOLON]
    pieces = [sql[start:end] for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(sql)], strict=True)]
    return [piece.strip() for piece in pieces if piece.strip()]


def parse(tokens: list[Token], sql: str) -> exp.Expr:
    """Return the tree of one statement. Raises NotUnderstood for what sqlglot does not read, or not in short time."""
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens = tokens[:-1]
    while len(tokens) > 1 and tokens[0].text.upper() in _CHANGES and tokens[1].text.upper() in _ADVERBS:
        tokens = [tokens[0], *tokens[2:]]
    depth = deepest = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        deepest = max(deepest, depth)
    if not tokens or len(tokens) > _MOST_TOKENS or deepest > _DEEPEST or tokens[0].text.upper() not in _OPENING:
        raise NotUnderstood
    parser = _MYSQL.parser(error_level=ErrorLevel.IMMEDIATE)
    try:
        trees = [tree for tree in parser.parse(tokens, sql) if tree is not None]
    except (SqlglotError, RecursionError) as error:
        raise NotUnderstood from error
    if len(trees) != 1:
        raise NotUnderstood
    return trees[0]


def generate(tree: exp.Expr) -> str:
    """Return the statement for SQLite. Raises NotUnderstood where it is too deep."""
    try:
        text: str = _SQLITE.generate(tree, **_WRITTEN)
    except (RecursionError, SqlglotError) as error:
        raise NotUnderstood from error
    return text
