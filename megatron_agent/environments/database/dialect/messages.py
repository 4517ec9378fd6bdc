"""SQLite's errors in MySQL 8's words, as far as one follows from the other."""

import re
from collections.abc import Callable

from megatron_agent.environments.database.dialect.tokens import code_of, tokenize

_NEAR_CHARACTERS = 80
_CLAUSES = {
    "SELECT": "field list", "SET": "field list", "INSERT": "field list", "REPLACE": "field list",
    "VALUES": "field list", "WHERE": "where clause", "ON": "on clause", "GROUP": "group statement",
    "HAVING": "having clause", "ORDER": "order clause",
}  # fmt: skip


def syntax_error(sql: str, position: int) -> str:
    """Return MySQL's message for a statement that it cannot read from `position` on."""
    rest = sql[position:].rstrip("; \t\r\n")[:_NEAR_CHARACTERS]
    line = sql.count("\n", 0, position) + 1
    return (
        "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
        f"server version for the right syntax to use near '{rest}' at line {line}"
    )


def no_function(database: str, name: str) -> str:
    """Return MySQL's message for a function that there is not."""
    return f"1305 (42000): FUNCTION {database}.{name} does not exist"


def no_table(database: str, name: str) -> str:
    """Return MySQL's message for a table that there is not."""
    return f"1146 (42S02): Table '{database}.{name}' doesn't exist"


def mysql_message(error: str, sql: str, database: str) -> str:
    """Return what MySQL says where SQLite says `error`; an error without an equal there stays as it is.

    `sql` is the statement as the model wrote it, `database` the name of the task's table, which AgentBench gives the
    database too.
    """
    for pattern, message in _MESSAGES:
        if match := pattern.fullmatch(error):
            return message(match, sql, database)
    return error


def _clause_of(sql: str, column: str) -> str:
    """Return in which part of a statement a column stands first, as MySQL calls the part."""
    last = column.rpartition(".")[2].lower()
    clauses = ["field list"]
    for token in code_of(tokenize(sql)):
        if token.text == "(":
            clauses.append(clauses[-1])
        elif token.text == ")" and len(clauses) > 1:
            clauses.pop()
        elif token.word in _CLAUSES:
            clauses[-1] = _CLAUSES[token.word]
        elif token.name and token.name in (last, column.lower()):
            return clauses[-1]
    return "field list"


def _unknown_column(column: str, sql: str) -> str:
    return f"1054 (42S22): Unknown column '{column}' in '{_clause_of(sql, column)}'"


def _fixed(text: str) -> Callable[[re.Match[str], str, str], str]:
    return lambda match, sql, database: text


def _ambiguous(match: re.Match[str], sql: str, database: str) -> str:
    return f"1052 (23000): Column '{match[1]}' in {_clause_of(sql, match[1])} is ambiguous"


def _whole(match: re.Match[str], sql: str, database: str) -> str:
    return syntax_error(sql, len(sql) - len(sql.lstrip()))


def _second_statement(match: re.Match[str], sql: str, database: str) -> str:
    semicolon = next((token.start for token in tokenize(sql) if token.text == ";"), 0)
    after = sql[semicolon + 1 :]
    return syntax_error(sql, len(sql) - len(after.lstrip()))


_WRONG_COUNT = _fixed("1136 (21S01): Column count doesn't match value count at row 1")
_MESSAGES: list[tuple[re.Pattern[str], Callable[[re.Match[str], str, str], str]]] = [
    (re.compile(pattern, re.DOTALL), message)
    for pattern, message in (
        (
            'no such column: "(.+)"',
            lambda match, sql, database: f"1091 (42000): Can't DROP '{match[1]}'; check that column/key exists",
        ),
        ("no such column: (.+)", lambda match, sql, database: _unknown_column(match[1], sql)),
        (r"table \S.* has no column named (.+)", lambda match, sql, database: _unknown_column(match[1], sql)),
        ("no such table: (?:main\\.)?(.+)", lambda match, sql, database: no_table(database, match[1])),
        ("no such function: (.+)", lambda match, sql, database: no_function(database, match[1])),
        ("ambiguous column name: (.+)", _ambiguous),
        (r"table .+ has \d+ columns but \d+ values were supplied", _WRONG_COUNT),
        (r"\d+ values for \d+ columns", _WRONG_COUNT),
        ("all VALUES must have the same number of terms", _WRONG_COUNT),
        ("misuse of (?:aggregate|window|aliased).*", _fixed("1111 (HY000): Invalid use of group function")),
        (r"sub-select returns \d+ columns - expected 1", _fixed("1241 (21000): Operand should contain 1 column(s)")),
        ("row value misused", _fixed("1241 (21000): Operand should contain 1 column(s)")),
        (
            "SELECTs to the left and right of .+ do not have the same number of result columns",
            _fixed("1222 (21000): The used SELECT statements have a different number of columns"),
        ),
        (
            r"wrong number of arguments to function (\w+)\(\)",
            lambda match, sql, database: (
                f"1582 (42000): Incorrect parameter count in the call to native function '{match[1]}'"
            ),
        ),
        (
            "table (.+) already exists",
            lambda match, sql, database: f"1050 (42S01): Table '{match[1].strip('`')}' already exists",
        ),
        (
            "duplicate column name: (.+)",
            lambda match, sql, database: f"1060 (42S21): Duplicate column name '{match[1]}'",
        ),
        (
            r"(\d+)\w\w (ORDER|GROUP) BY term out of range.*",
            lambda match, sql, database: (
                f"1054 (42S22): Unknown column '{_number_after(sql, match[2])}' in '{_CLAUSES[match[2]]}'"
            ),
        ),
        ("no tables specified", _fixed("1096 (HY000): No tables used")),
        ("incomplete input", lambda match, sql, database: syntax_error(sql, len(sql))),
        ("not authorized|unsupported file format", _whole),
        ("You can only execute one statement at a time.", _second_statement),
    )
]


def _number_after(sql: str, clause: str) -> str:
    code = code_of(tokenize(sql))
    places = [index for index, token in enumerate(code) if token.word == clause]
    return next((token.text for token in code[places[-1] :] if token.kind == "number"), "?") if places else "?"
