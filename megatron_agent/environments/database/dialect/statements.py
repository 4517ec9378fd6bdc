"""Forms of INSERT, UPDATE, DELETE and TRUNCATE that MySQL has and SQLite has not, turned into those that both have."""

from megatron_agent.environments.database.dialect.tokens import Token

BEFORE_TABLE = frozenset(("FROM", "JOIN", "INTO", "UPDATE", "TABLE"))
_ADVERBS = frozenset(("LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE"))


def rewrite(code: list[Token], table: str) -> list[Token]:
    """Return the statement's tokens in a form that SQLite has; `table` is the task's, whose name the database has."""
    code = _without_database(code, table.lower())
    kind = code[0].word if code else ""
    if kind in ("INSERT", "REPLACE", "UPDATE", "DELETE"):
        end = next((index for index in range(1, len(code)) if code[index].word not in _ADVERBS), len(code))
        code = [code[0], *code[end:]]
    if kind in ("INSERT", "REPLACE"):
        return _insert(code)
    if kind == "UPDATE" and len(code) > 3 and code[2].name and code[2].word not in ("SET", "AS"):
        return [*code[:2], _word("AS", code[2]), *code[2:]] if code[3].word == "SET" else code
    if kind == "DELETE":
        return _delete(code)
    if kind == "TRUNCATE":
        rest = code[2:] if len(code) > 1 and code[1].word == "TABLE" else code[1:]
        return [_word("DELETE", code[0]), _word("FROM", code[0]), *rest]
    return code


def _word(text: str, like: Token) -> Token:
    return Token("word", text, like.start)


def _without_database(code: list[Token], table: str) -> list[Token]:
    """Take `t.` off the table's name in `FROM t.t`."""
    kept: list[Token] = []
    index = 0
    while index < len(code):
        is_database = code[index].name == table and index and code[index - 1].word in BEFORE_TABLE
        if is_database and index + 2 < len(code) and code[index + 1].text == "." and code[index + 2].name:
            index += 2
        kept.append(code[index])
        index += 1
    return kept


def _insert(code: list[Token]) -> list[Token]:
    if len(code) > 1 and code[1].word != "INTO":
        code = [code[0], _word("INTO", code[0]), *code[1:]]
    if len(code) < 4:
        return code
    depth = 0
    for index, token in enumerate(code):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.word == "ON" and [t.word for t in code[index : index + 4]] == _ON_DUPLICATE:
            code = code[:index]  # no column of the task's table is a key
            break
    if code[3].word == "SET":
        return _insert_set(code)
    columns = _closing(code, 3) if code[3].text == "(" else 2
    if columns + 1 < len(code) and code[columns + 1].word == "VALUE":
        code[columns + 1].text = "VALUES"
    if [token.text.upper() for token in code[3:]] in (["(", ")", "VALUES", "(", ")"], ["VALUES", "(", ")"]):
        return [*code[:3], _word("DEFAULT", code[3]), _word("VALUES", code[3])]
    for index in range(columns + 1, len(code) - 1):
        if code[index].word == "DEFAULT" and code[index - 1].text in "(," and code[index + 1].text in "),":
            code[index].text = "NULL"
    return code


_ON_DUPLICATE = ["ON", "DUPLICATE", "KEY", "UPDATE"]


def _insert_set(code: list[Token]) -> list[Token]:
    """Turn `INSERT INTO t SET a = 1, b = 2` into columns and values."""
    columns: list[Token] = []
    values: list[Token] = []
    for assignment in _split(code[4:]):
        if len(assignment) < 3 or assignment[1].text != "=":
            return code
        comma = [Token("other", ",", assignment[0].start)] if columns else []
        columns += [*comma, assignment[0]]
        values += [*comma, *assignment[2:]]
    start = code[3].start
    lists = [[Token("other", "(", start), *part, Token("other", ")", start)] for part in (columns, values)]
    return [*code[:3], *lists[0], _word("VALUES", code[3]), *lists[1]]


def _delete(code: list[Token]) -> list[Token]:
    """Turn the forms with several tables, one of which loses rows, and the one with an alias, into the plain one."""
    where = next((index for index, token in enumerate(code) if token.word == "WHERE"), len(code))
    target, rest = "", code
    if len(code) > 3 and code[1].name and code[1].word != "FROM" and code[2].word == "FROM":
        target, rest = code[1].name, code[3:]
    elif len(code) > 4 and code[1].word == "FROM" and code[3].word == "USING":
        target, rest = code[2].name, code[4:]
    elif where == 4 and code[1].word == "FROM" and code[3].name:
        return [*code[:3], _word("AS", code[3]), *code[3:]]
    if not target:
        return code
    table = next((token for index, token in enumerate(rest) if token.name and _called(rest, index) == target), None)
    if table is None:
        return code
    start = rest[0].start
    opening, closing = Token("other", "(", start), Token("other", ")", start)
    rows = [_word("WHERE", rest[0]), Token("done", "rowid", start), _word("IN", rest[0])]
    chosen = [Token("word", "SELECT", start), Token("name", f"`{target}`", start), Token("other", ".", start)]
    chosen += [Token("word", "rowid", start), Token("word", "FROM", start)]
    while rest and rest[-1].text == ";":
        rest = rest[:-1]
    return [_word("DELETE", code[0]), _word("FROM", code[0]), Token(table.kind, table.text, start),
            *rows, opening, *chosen, *rest, closing]  # fmt: skip


def _called(rest: list[Token], index: int) -> str:
    """Return the alias of the table at `index`, else its name."""
    following = rest[index + 1 : index + 3]
    if following and following[0].word == "AS":
        return following[1].name if len(following) > 1 else ""
    if following and following[0].name and following[0].word not in _AFTER_TABLE:
        return following[0].name
    return rest[index].name


_AFTER_TABLE = frozenset(
    (
        "JOIN",
        "INNER",
        "LEFT",
        "RIGHT",
        "CROSS",
        "NATURAL",
        "ON",
        "USING",
        "WHERE",
        "ORDER",
        "LIMIT",
        "SET",
        "STRAIGHT_JOIN",
    )
)


def _closing(code: list[Token], opening: int) -> int:
    """Return where the bracket that opens at `opening` closes; the last place if it does not."""
    depth = 0
    for index in range(opening, len(code)):
        depth += (code[index].text == "(") - (code[index].text == ")")
        if depth == 0:
            return index
    return len(code) - 1


def _split(code: list[Token]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in code:
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.text == ",":
            parts.append([])
        elif token.text != ";":
            parts[-1].append(token)
    return parts
