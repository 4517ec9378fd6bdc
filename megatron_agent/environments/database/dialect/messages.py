"""SQLite's errors in MySQL 8's words, as far as one follows from the other."""

import re

from sqlglot.tokens import TokenType

from megatron_agent.environments.database.dialect.parsing import tokenize

_NEAR_CHARACTERS = 80
_CLAUSES = {
    "SELECT": "field list", "SET": "field list", "INSERT": "field list", "REPLACE": "field list",
    "VALUES": "field list", "WHERE": "where clause", "ON": "on clause", "GROUP BY": "group statement",
    "HAVING": "having clause", "ORDER BY": "order clause",
}  # fmt: skip
_WRONG_COUNT = "1136 (21S01): Column count doesn't match value count at row 1"
_ONE_COLUMN = "1241 (21000): Operand should contain 1 column(s)"
_MESSAGES = (
    ('no such column: "(.+)"', "1091 (42000): Can't DROP '{0}'; check that column/key exists"),
    ("no such column: (.+)", "1054 (42S22): Unknown column '{0}' in '{clause}'"),
    (r"table \S.* has no column named (.+)", "1054 (42S22): Unknown column '{0}' in '{clause}'"),
    (r"(\d+)\w\w (ORDER|GROUP) BY term out of range.*", "1054 (42S22): Unknown column '{number}' in '{clause}'"),
    ("no such table: (?:main\\.)?(.+)", "1146 (42S02): Table '{database}.{0}' doesn't exist"),
    ("no such function: (.+)", "1305 (42000): FUNCTION {database}.{0} does not exist"),
    ("ambiguous column name: (.+)", "1052 (23000): Column '{0}' in {clause} is ambiguous"),
    (r"table .+ has \d+ columns but \d+ values were supplied", _WRONG_COUNT),
    (r"\d+ values for \d+ columns", _WRONG_COUNT),
    ("all VALUES must have the same number of terms", _WRONG_COUNT),
    ("misuse of (?:aggregate|window|aliased).*", "1111 (HY000): Invalid use of group function"),
    (r"sub-select returns \d+ columns - expected 1", _ONE_COLUMN),
    ("row value misused", _ONE_COLUMN),
    (
        "SELECTs to the left and right of .+ do not have the same number of result columns",
        "1222 (21000): The used SELECT statements have a different number of columns",
    ),
    (
        r"wrong number of arguments to function (\w+)\(\)",
        "1582 (42000): Incorrect parameter count in the call to native function '{0}'",
    ),
    ("table `?(.+?)`? already exists", "1050 (42S01): Table '{0}' already exists"),
    ("duplicate column name: (.+)", "1060 (42S21): Duplicate column name '{0}'"),
    ("no tables specified", "1096 (HY000): No tables used"),
    ("incomplete input", "{end}"),
    ("not authorized|unsupported file format", "{whole}"),
    ("You can only execute one statement at a time.", "{second}"),
)
"""What SQLite says, and what MySQL says then; `{0}` is the first bracket, the others are found out below."""


def syntax_error(sql: str, position: int) -> str:
    """Return MySQL's message for a statement that it cannot read from `position` on."""
    rest = sql[position:].rstrip("; \t\r\n")[:_NEAR_CHARACTERS]
    line = sql.count("\n", 0, position) + 1
    return (
        "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
        f"server version for the right syntax to use near '{rest}' at line {line}"
    )


def mysql_message(error: str, sql: str, database: str) -> str:
    """Return what MySQL says where SQLite says `error`; an error without an equal there stays as it is.

    `sql` is the statement as the model wrote it, `database` the name of the task's table, which AgentBench gives the
    database too.
    """
    for pattern, message in _MESSAGES:
        if found := re.fullmatch(pattern, error, re.DOTALL):
            words = {"database": database, "end": syntax_error(sql, len(sql))}
            if "{number}" in message:
                words["clause"], words["number"] = _CLAUSES[f"{found[2]} BY"], _number_after(sql, f"{found[2]} BY")
            elif "{clause}" in message:
                words["clause"] = _clause_of(sql, found[1].lower())
            ends = (token.end + 1 for token in tokenize(sql) if token.token_type == TokenType.SEMICOLON)
            for name, start in (("whole", 0), ("second", next(ends, 0))):
                words[name] = syntax_error(sql, len(sql) - len(sql[start:].lstrip()))
            return message.format(*found.groups(), **words)
    return error


def _clause_of(sql: str, column: str) -> str:
    """Return in which part of a statement a column stands first, as MySQL calls the part."""
    clauses = ["field list"]
    for token in tokenize(sql):
        if token.text == "(":
            clauses.append(clauses[-1])
        elif token.text == ")" and len(clauses) > 1:
            clauses.pop()
        elif token.text.upper() in _CLAUSES:
            clauses[-1] = _CLAUSES[token.text.upper()]
        elif token.text.lower() in (column.rpartition(".")[2], column):
            return clauses[-1]
    return "field list"


def _number_after(sql: str, clause: str) -> str:
    tokens = tokenize(sql)
    last = max((index for index, token in enumerate(tokens) if token.text.upper() == clause), default=len(tokens))
    return next((token.text for token in tokens[last:] if token.token_type == TokenType.NUMBER), "?")
