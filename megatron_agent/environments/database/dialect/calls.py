"""Calls of functions: those that MySQL has not, special spellings, the kind of the result."""

import re
from itertools import pairwise

from megatron_agent.environments.database.dialect import collation
from megatron_agent.environments.database.dialect.dates import TIME_SPECIFIERS, UNITS
from megatron_agent.environments.database.dialect.expressions import Expressions
from megatron_agent.environments.database.dialect.functions import ADDED
from megatron_agent.environments.database.dialect.kinds import (
    AGGREGATES,
    DATE,
    DATETIME,
    DOUBLE,
    IN_MYSQL,
    INTEGER,
    TEXT,
    UNKNOWN,
    Kind,
    called,
)
from megatron_agent.environments.database.dialect.messages import no_function
from megatron_agent.environments.database.dialect.tokens import literal_text
from megatron_agent.environments.database.dialect.walk import Node, NotUnderstood, Refused

_CASTS = {
    "CHAR": TEXT, "DATE": DATE, "DATETIME": DATETIME, "FLOAT": DOUBLE, "DOUBLE": DOUBLE, "REAL": DOUBLE,
    "SIGNED": INTEGER, "UNSIGNED": INTEGER, "DECIMAL": UNKNOWN, "DEC": UNKNOWN, "NCHAR": TEXT,
}  # fmt: skip
_RENAMED = {"LEFT": "mysql_left", "RIGHT": "mysql_right", "MID": "substr", "IF": "iif", "ADDDATE": "date_add",
            "SUBDATE": "date_sub", "ANY_VALUE": "min"}  # fmt: skip

_OF_TEXT = frozenset({
    "CONCAT", "CONCAT_WS", "LPAD", "RPAD", "LEFT", "RIGHT", "REPLACE", "LENGTH", "CHAR_LENGTH", "SUBSTRING_INDEX",
    "UPPER", "LOWER", "TRIM", "SUBSTR", "SUBSTRING", "MID", "REVERSE", "MD5",
})  # fmt: skip


class Calls(Expressions):
    """Functions, aggregates and windows."""

    def call(self) -> Node:
        start, token = self.at, self.code[self.at]
        name = token.word or token.name.upper()
        if token.kind == "word" and name in ("CAST", "CONVERT"):
            return self.cast()
        if token.kind == "word" and name in ("EXTRACT", "POSITION", "TIMESTAMPDIFF", "GROUP_CONCAT", "TRIM"):
            special = {"EXTRACT": self.extract, "POSITION": self.position, "TIMESTAMPDIFF": self.units_first,
                       "GROUP_CONCAT": self.group_concat, "TRIM": self.trim}[name]  # fmt: skip
            if (node := special()) is not None:
                return node
        if name.lower() not in IN_MYSQL and name.lower() not in ADDED:
            self.refuse(ValueError(no_function(self.table, token.text.strip("`"))))
        if name in _RENAMED:
            token.text, token.kind = _RENAMED[name], "word"
        self.at += 2
        arguments, places = self.arguments(name)
        self.expect(")")
        windowed = self.word() == "OVER"
        if windowed:
            self.at += 1
            self.window()
        elif name.lower() in AGGREGATES:
            self.aggregated = True
        if name == "ROUND" and arguments:
            is_double = arguments[0].kind in (TEXT, DOUBLE)
            token.text, token.kind = ("round_double" if is_double else "round_decimal"), "word"
        if name in ("IF", "IFNULL", "COALESCE"):
            self.of_one_kind(arguments[name == "IF" :])
        kind = called(name.lower(), [argument.kind for argument in arguments], places)
        if (
            name == "STR_TO_DATE"
            and len(arguments) == 2
            and (pattern := self.code[arguments[1].first]).kind == "string"
        ):
            kind = DATETIME if _has_time(pattern.text) else DATE
        return self.finished(Node(start, self.at - 1, kind))

    def finished(self, node: Node) -> Node:
        """Texts that functions give are compared without regard to case, as columns are."""
        if node.kind.name == "text":
            self.code[node.last].after += f" COLLATE {collation.NAME}"
        return node

    def arguments(self, name: str) -> tuple[list[Node], int | None]:
        found: list[Node] = []
        places: int | None = None
        if self.text() == ")":
            return found, places
        outer, self.bare = self.bare, []
        distinct = self.take("DISTINCT")
        first = self.at
        if self.take("*"):
            found.append(Node(first, first, INTEGER))
        else:
            while True:
                if self.word() == "INTERVAL":
                    self.interval()
                else:
                    found.append(self.expression())
                    if len(found) == 2:
                        places = self.whole_number(found[1])
                if not self.take(","):
                    break
        if distinct and len(found) > 1:
            self.wrap(Node(first, self.at - 1, UNKNOWN), "distinct_key(", ")")
        if name in _OF_TEXT:
            for argument in found:
                self.show_digits(argument)
        self.bare = outer if name.lower() in AGGREGATES else [*outer, *self.bare]
        return found, places

    def whole_number(self, node: Node) -> int | None:
        text = "".join(token.text for token in self.code[node.first : node.last + 1])
        return int(text) if re.fullmatch(r"-?\d{1,4}", text) else None

    def window(self) -> None:
        if self.text() != "(":
            self.name()
            return
        self.expect("(")
        if self.take("PARTITION"):
            self.expect("BY")
            self.expression_list(ordered=False)
        if self.take("ORDER"):
            self.expect("BY")
            self.expression_list(ordered=True)
        self.skip_to()
        self.expect(")")

    def cast(self) -> Node:
        start, token = self.at, self.code[self.at]
        self.at += 2
        node = self.expression()
        separator = self.code[self.at] if self.at < len(self.code) else None
        if not self.take("AS" if token.word == "CAST" else ","):
            raise NotUnderstood
        kind_token = self.code[self.at]
        if kind_token.word in ("BINARY", "CHARACTER", "JSON", "TIME", "YEAR"):
            raise NotUnderstood
        if kind_token.word not in _CASTS:  # INT, VARCHAR, TEXT: MySQL casts to none of them
            raise Refused(kind_token.start)
        kind, target = _CASTS[kind_token.word], kind_token.word
        self.at += 1
        digits = 0
        if self.text() == "(":
            numbers = [each.text for each in self.code[self.at : self.at + 5]]
            digits = int(numbers[3]) if len(numbers) == 5 and numbers[2] == "," and numbers[3].isdigit() else 0
            brackets = self.at
            self.skip_brackets()
            for each in self.code[brackets : self.at]:
                each.text = ""
        if self.take("INTEGER", "INT"):  # SIGNED INTEGER
            self.code[self.at - 1].text = ""
        self.expect(")")
        assert separator is not None
        function = {"SIGNED": "to_signed", "UNSIGNED": "to_unsigned", "DATE": "date", "DATETIME": "timestamp"}
        if kind == UNKNOWN:
            kind = Kind("decimal", digits)
            token.text, separator.text, kind_token.text, kind_token.kind = "to_decimal", ",", str(digits), "done"
        elif target in function:
            token.text, separator.text, kind_token.text = function[target], "", ""
        else:
            self.show_digits(node)
            token.text, separator.text = "CAST", "AS"
            kind_token.text = "TEXT" if kind == TEXT else "REAL"
        return self.finished(Node(start, self.at - 1, kind))

    def extract(self) -> Node | None:
        start = self.at
        self.at += 2
        self.unit()
        if not self.take("FROM"):
            raise NotUnderstood
        self.code[self.at - 1].text = ","
        self.expression()
        self.expect(")")
        return Node(start, self.at - 1, INTEGER)

    def unit(self) -> None:
        token = self.code[self.at] if self.at < len(self.code) else None
        if token is None or token.word not in UNITS:
            raise NotUnderstood
        token.text, token.kind = f"'{token.word}'", "done"
        self.at += 1

    def units_first(self) -> Node | None:
        """TIMESTAMPDIFF(unit, first, second)."""
        start = self.at
        self.at += 2
        self.unit()
        for _ in range(2):
            self.expect(",")
            self.expression()
        self.expect(")")
        return Node(start, self.at - 1, INTEGER)

    def position(self) -> Node | None:
        start = self.at
        self.at += 2
        self.sum()
        self.expect("IN")
        self.code[start].text, self.code[self.at - 1].text = "locate", ","
        self.expression()
        self.expect(")")
        return Node(start, self.at - 1, INTEGER)

    def trim(self) -> Node | None:
        """TRIM(LEADING 'x' FROM y); None for the plain form."""
        start = self.at
        if self.word(2) not in ("LEADING", "TRAILING", "BOTH"):
            return None
        name = {"LEADING": "ltrim", "TRAILING": "rtrim", "BOTH": "trim"}[self.word(2)]
        self.at += 3
        self.code[self.at - 1].text = ""
        pattern = self.sum()
        self.expect("FROM")
        if pattern.first != pattern.last or self.code[pattern.first].kind != "string":
            raise NotUnderstood
        letter = literal_text(self.code[pattern.first])
        if len(letter) != 1:
            raise NotUnderstood  # SQLite takes a set of characters
        self.code[pattern.first].text, self.code[self.at - 1].text = "", ""
        self.expression()
        self.code[start].text = name
        self.expect(")")
        self.code[self.at - 1].before = ", '" + letter.replace("'", "''") + "'"
        return self.finished(Node(start, self.at - 1, TEXT))

    def group_concat(self) -> Node | None:
        start = self.at
        self.at += 2
        outer, self.bare = self.bare, []
        distinct = self.take("DISTINCT")
        if distinct:
            self.code[self.at - 1].text = ""
        first = self.expression()
        self.show_digits(first)
        others = False
        while self.take(","):
            self.code[self.at - 1].text = "||"
            self.code[self.at - 1].kind = "done"
            self.expression()
            others = True
        if others:
            self.wrap(Node(first.first, self.at - 1, TEXT), "(", ")")
        descending = 0
        if self.take("ORDER"):
            self.code[self.at - 1].text = ","
            self.expect("BY")
            self.code[self.at - 1].text = ""
            while True:
                self.expression()
                if self.take("DESC", "ASC"):
                    descending = int(self.word(-1) == "DESC")
                    self.code[self.at - 1].text = ""
                if not self.take(","):
                    break
        separator = "','"
        if self.take("SEPARATOR"):
            self.code[self.at - 1].text = ""
            token = self.code[self.at] if self.at < len(self.code) else None
            if token is None or token.kind != "string":
                raise NotUnderstood
            separator = "'" + literal_text(token).replace("'", "''") + "'"
            token.text, token.kind = "", "done"
            self.at += 1
        self.expect(")")
        self.code[start].text = "mysql_group_concat"
        self.code[start + 1].after += f"{separator}, {int(distinct)}, {descending}, "
        self.bare, self.aggregated = outer, True
        return self.finished(Node(start, self.at - 1, TEXT))


def _has_time(pattern: str) -> bool:
    return any(after in TIME_SPECIFIERS for before, after in pairwise(pattern) if before == "%")
