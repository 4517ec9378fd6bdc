"""MySQL statements as SQLite understands them, for the differences that are cheap and exact.

AgentBench runs MySQL 8 and declares every column TEXT, so agents write MySQL. Rewritten here, on tokens:

* string literals: "double quotes" and backslash escapes become SQLite's 'single quotes';
* `#` and `--` comments are dropped;
* a column compared with a number (`=`, `<`, `BETWEEN`, `IN`, `AVG`/`SUM`/`COUNT` subquery) is compared as a
  number (MySQL converts the text; SQLite would convert the number to text and find '9' > '10');
* `SUM(c)` and `c+0` of a column are floats (MySQL's numbers of text), and a name may begin with a digit;
* what MySQL refuses where SQLite takes it ([brackets], a quoted text as a table) raises ValueError with MySQL's
  message;
* a decimal number put into a column as it is keeps its digits (`2.50`; SQLite would store 2.5), and what UPDATE
  computes is stored as MySQL writes a number (`5`; SQLite would store 5.0);
* `/` never truncates, `||` is OR, `&&` is AND, `IF(` is `IIF(`, CAST to SIGNED or UNSIGNED is to INTEGER,
  `TRUNCATE TABLE t` is `DELETE FROM t`.

What stays different is listed in docs/environments.md.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<string>'(?:[^'\\]|\\.|'')*(?:'|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z))
    | (?P<name>`(?:[^`]|``)*(?:`|\Z))
    | (?P<comment>--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*(?:.*?\*/|.*))
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w$]))
    | (?P<word>[\w$]+)
    | (?P<operator><=>|<>|!=|<=|>=|\|\||&&|[=<>])
    | (?P<space>\s+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}
_COMPARISONS = {"=", "<", ">", "<=", ">=", "<>", "!="}
_NOT_COLUMNS = {
    "END",
    "NULL",
    "TRUE",
    "FALSE",
    "AND",
    "OR",
    "NOT",
    "WHERE",
    "HAVING",
    "ON",
    "WHEN",
    "THEN",
    "ELSE",
}
_NUMERIC_AGGREGATES = {"AVG", "SUM", "COUNT"}
_BEFORE_TABLE = {"FROM", "JOIN", "INTO", "UPDATE"}
_AFTER_VALUES = {"WHERE", "ORDER", "LIMIT", "ON", "RETURNING", "FROM"}
_DECIMAL = re.compile(r"(\d*)\.(\d*)")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")


@dataclass
class _Token:
    kind: str
    text: str
    start: int
    before: str = ""
    after: str = ""

    @property
    def word(self) -> str:
        return self.text.upper() if self.kind == "word" else ""

    @property
    def is_name(self) -> bool:
        return self.kind == "name" or (self.kind == "word" and self.word not in _NOT_COLUMNS)


def mysql_to_sqlite(sql: str) -> str:
    """Return `sql` with MySQL's spellings replaced by SQLite's; text it does not know passes through.

    Raises ValueError with MySQL's message for syntax that only SQLite has.
    """
    tokens = _tokens(sql)
    code = [token for token in tokens if token.kind not in ("space", "comment")]
    _refuse_other_quotes(code, sql)
    _compare_as_numbers(code)
    _sum_as_numbers(code)
    _replace_words(code)
    _store_as_text(code)
    return "".join(token.before + _spelling(token) + token.after for token in tokens)


def split_statements(sql: str) -> list[str]:
    """Return the statements of a text one by one, without the semicolons between them."""
    statements = [""]
    for token in _tokens(sql):
        if token.text == ";":
            statements.append("")
        else:
            statements[-1] += token.text
    return [statement.strip() for statement in statements if statement.strip()]


def _tokens(sql: str) -> list[_Token]:
    return [_Token(match.lastgroup or "other", match.group(), match.start()) for match in _TOKEN.finditer(sql)]


def _spelling(token: _Token) -> str:
    if token.kind == "comment":
        return " "
    if token.kind == "word" and token.text[:1].isdigit() and not _HEXADECIMAL.fullmatch(token.text):
        return f"`{token.text}`"
    if token.kind == "string" and len(token.text) > 1 and token.text[-1] == token.text[0]:
        return _string_literal(token.text)
    if token.kind == "operator" and token.text in ("||", "&&"):
        return " OR " if token.text == "||" else " AND "
    if token.kind == "other" and token.text == "/":
        return "*1.0/"
    return token.text


def _string_literal(text: str) -> str:
    quote, body = text[0], text[1:-1]
    plain = re.sub(
        rf"\\(.)|{quote}{quote}",
        lambda match: quote if match.group(1) is None else _ESCAPES.get(match.group(1), match.group(1)),
        body,
        flags=re.DOTALL,
    )
    return "'" + plain.replace("'", "''") + "'"


def _replace_words(code: list[_Token]) -> None:
    for index, token in enumerate(code):
        following = code[index + 1].text if index + 1 < len(code) else ""
        previous = code[index - 1].word if index else ""
        if token.text == "0" and index > 1 and code[index - 1].text == "+" and code[index - 2].is_name:
            token.text = "0.0"  # `c+0`, MySQL's way to a number: a float, as c is text
        elif token.word == "IF" and following == "(":
            token.text = "IIF"
        elif token.word in ("SIGNED", "UNSIGNED") and previous == "AS":
            token.text = "INTEGER"
    if code and code[0].word == "TRUNCATE":
        if len(code) > 1 and code[1].word == "TABLE":
            code[1].text = ""
        code[0].text = "DELETE FROM"


def _refuse_other_quotes(code: list[_Token], sql: str) -> None:
    for index, token in enumerate(code):
        text_as_table = token.kind == "string" and index and code[index - 1].word in _BEFORE_TABLE
        if text_as_table or token.text == "[":
            near = sql[token.start : token.start + 80]
            raise ValueError(
                "1064 (42000): You have an error in your SQL syntax; check the manual that corresponds to your MySQL "
                f"server version for the right syntax to use near '{near}' at line 1"
            )


def _sum_as_numbers(code: list[_Token]) -> None:
    """Make `SUM(c)` and `SUM(DISTINCT c)` a float: `SUM((c+0.0))`."""
    for index, token in enumerate(code):
        if token.word != "SUM" or index + 1 >= len(code) or code[index + 1].text != "(":
            continue
        start = index + 2
        if start < len(code) and code[start].word == "DISTINCT":
            start += 1
        end = _column_starting_at(code, start)
        if end >= 0 and end + 1 < len(code) and code[end + 1].text == ")":
            code[start].before, code[end].after = "(", "+0.0)"


def _compare_as_numbers(code: list[_Token]) -> None:
    """Wrap columns that stand beside a comparison with a number: `c` becomes `(c+0)`."""
    depth, assigning_depth = 0, -1  # inside UPDATE ... SET, `=` at the clause's own depth assigns
    for index, token in enumerate(code):
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        elif token.word == "SET":
            assigning_depth = depth
        elif token.word == "WHERE":
            assigning_depth = -1
        elif token.text in _COMPARISONS and token.kind == "operator":
            start = _column_ending_at(code, index - 1)
            assigns = (
                depth == assigning_depth
                and start > 0
                and (code[start - 1].word == "SET" or code[start - 1].text == ",")
            )
            if start >= 0 and not assigns and _number_at(code, index + 1):
                _wrap(code, start, index - 1)
            elif _number_ending_at(code, index - 1):
                end = _column_starting_at(code, index + 1)
                if end >= 0:
                    _wrap(code, index + 1, end)
        elif token.word in ("BETWEEN", "IN"):
            last = index - 2 if index and code[index - 1].word == "NOT" else index - 1
            first_value = index + 2 if token.word == "IN" else index + 1
            start = _column_ending_at(code, last)
            if start >= 0 and _number_at(code, first_value):
                _wrap(code, start, last)


def _store_as_text(code: list[_Token]) -> None:
    """Make what INSERT and UPDATE put into columns the text that MySQL makes of it."""
    kind = code[0].word if code else ""
    if kind in ("INSERT", "REPLACE"):
        values = next((index for index, token in enumerate(code) if token.word == "VALUES"), len(code))
        for start, end in _split_values(code, values + 1, depth=1):
            _keep_digits(code, start, end)
    elif kind == "UPDATE":
        first = next((index for index, token in enumerate(code) if token.word == "SET"), len(code))
        for start, end in _split_values(code, first + 1, depth=0):
            value = start + 1 + next((i for i, token in enumerate(code[start:end]) if token.text == "="), end - start)
            if not _keep_digits(code, value, end) and end - value > 1:
                code[value].before = "stored_text(" + code[value].before
                code[end - 1].after += ")"


def _split_values(code: list[_Token], start: int, depth: int) -> Iterator[tuple[int, int]]:
    """Yield where the values of a list begin and end: those in brackets (`depth` 1) or without (0)."""
    at = 0
    for index in range(start, len(code)):
        token = code[index]
        if token.text == "(":
            at += 1
            if at == 1 and depth == 1:
                start = index + 1
        elif token.text == ")":
            at -= 1
            if at == 0 and depth == 1:
                yield start, index
        elif at == depth and token.text == ",":
            yield start, index
            start = index + 1
        elif at == 0 and (token.word in _AFTER_VALUES or token.text == ";"):
            if depth == 0:
                yield start, index
            return
    if depth == 0 and at == 0:
        yield start, len(code)


def _keep_digits(code: list[_Token], start: int, end: int) -> bool:
    """Turn a number with a decimal point that stands alone, signed or not, into the text MySQL stores."""
    negative = end - start == 2 and code[start].text == "-"
    if end - start - negative != 1 or not (found := _DECIMAL.fullmatch(code[end - 1].text)):
        return False
    whole, fraction = found.group(1).lstrip("0") or "0", found.group(2)
    if negative:
        code[start].text = ""
    code[end - 1].text = f"'{'-' * negative}{whole}{'.' * bool(fraction)}{fraction}'"
    code[end - 1].kind = "number"  # no literal of the model's, whose quotes would be read
    return True


def _wrap(code: list[_Token], start: int, end: int) -> None:
    code[start].before, code[end].after = "(", "+0)"


def _column_ending_at(code: list[_Token], end: int) -> int:
    """Index of the first token of the column (`c`, `t.c`) that ends at `end`, or -1."""
    if end < 0 or not code[end].is_name:
        return -1
    start = end
    while start >= 2 and code[start - 1].text == "." and code[start - 2].is_name:
        start -= 2
    return start


def _column_starting_at(code: list[_Token], start: int) -> int:
    """Index of the last token of the column that starts at `start`, or -1 (a function call is no column)."""
    if start >= len(code) or not code[start].is_name:
        return -1
    end = start
    while end + 2 < len(code) and code[end + 1].text == "." and code[end + 2].is_name:
        end += 2
    is_call = end + 1 < len(code) and code[end + 1].text == "("
    return -1 if is_call or code[start].before else end


def _number_at(code: list[_Token], index: int) -> bool:
    """Whether a number, or a subquery that gives one, starts at `index`."""
    if index < len(code) and code[index].text in ("-", "+"):
        index += 1
    if index < len(code) and code[index].kind == "number":
        return True
    words = [token.word or token.text for token in code[index : index + 4]]
    return len(words) == 4 and words[:2] == ["(", "SELECT"] and words[2] in _NUMERIC_AGGREGATES and words[3] == "("


def _number_ending_at(code: list[_Token], index: int) -> bool:
    """Whether the operand that ends at `index` is a number alone (`5 < c`, not `x + 5 < c`)."""
    if index < 0 or code[index].kind != "number":
        return False
    return index == 0 or code[index - 1].kind == "word" or code[index - 1].text == "("
