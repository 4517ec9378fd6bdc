"""The tokens of a MySQL statement, and how SQLite spells each."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<string>'(?:[^'\\]|\\.|'')*(?:'|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z))
    | (?P<name>`(?:[^`]|``)*(?:`|\Z))
    | (?P<comment>--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*(?:.*?\*/|.*))
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w$]))
    | (?P<word>[\w$]+)
    | (?P<operator><=>|<>|!=|<=|>=|\|\||&&|<<|>>|[=<>])
    | (?P<space>\s+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F]+")


@dataclass
class Token:
    """A piece of a statement: its text as written, where it began, and what a translation puts around it."""

    kind: str
    text: str
    start: int
    before: str = ""
    after: str = ""

    @property
    def word(self) -> str:
        """The text of a bare word in capitals, empty for anything else."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def name(self) -> str:
        """The name a word or a text in backticks stands for, in small letters; empty for anything else."""
        if self.kind == "name":
            return self.text[1:-1].replace("``", "`").lower()
        return self.text.lower() if self.kind == "word" else ""


def tokenize(sql: str) -> list[Token]:
    """Return all tokens, blanks and comments too."""
    return [Token(match.lastgroup or "other", match.group(), match.start()) for match in _TOKEN.finditer(sql)]


def code_of(tokens: list[Token]) -> list[Token]:
    """Return the tokens without blanks and comments."""
    return [token for token in tokens if token.kind not in ("space", "comment")]


def split_statements(sql: str) -> list[str]:
    """Return the statements of a text one by one, without the semicolons between them."""
    statements = [""]
    for token in tokenize(sql):
        if token.text == ";":
            statements.append("")
        else:
            statements[-1] += token.text
    return [statement.strip() for statement in statements if statement.strip()]


def spelling(token: Token) -> str:
    """Return a token as SQLite reads it."""
    if token.kind == "word" and token.text[:1].isdigit() and not _HEXADECIMAL.fullmatch(token.text):
        return f"`{token.text}`"
    if token.kind == "string" and len(token.text) > 1 and token.text[-1] == token.text[0]:
        return "'" + literal_text(token).replace("'", "''") + "'"
    if token.kind == "operator" and token.text in _OPERATORS:
        return _OPERATORS[token.text]
    if token.kind == "other" and token.text == "/":
        return "*1.0/"
    return token.text


def literal_text(token: Token) -> str:
    """Return what a string literal stands for, its escapes resolved."""
    quote, body = token.text[0], token.text[1:-1]
    return re.sub(
        rf"\\(.)|{quote}{quote}",
        lambda match: quote if match.group(1) is None else _ESCAPES.get(match.group(1), match.group(1)),
        body,
        flags=re.DOTALL,
    )


_OPERATORS = {"||": "OR", "&&": "AND", "<=>": "IS"}
