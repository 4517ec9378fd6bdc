"""Expressions: what MySQL converts, written out for SQLite, and of what kind the result is.

SQLite compares a text with a number as texts, or takes any text for greater; MySQL converts the text to a number. The
walk knows the kind of every operand and wraps what has to be converted.
"""

from collections.abc import Callable, Sequence

from megatron_agent.environments.database.dialect import collation
from megatron_agent.environments.database.dialect.dates import UNITS
from megatron_agent.environments.database.dialect.kinds import (
    DATE,
    DATETIME,
    DOUBLE,
    INTEGER,
    NULL,
    TEXT,
    UNKNOWN,
    Kind,
    computed,
    joined,
)
from megatron_agent.environments.database.dialect.tokens import Token
from megatron_agent.environments.database.dialect.walk import Node, NotUnderstood, Reader

_COMPARISONS = frozenset(("=", "<", ">", "<=", ">=", "<>", "!=", "<=>"))
_WORDS = {"NULL": NULL, "TRUE": INTEGER, "FALSE": INTEGER, "CURRENT_DATE": DATE, "CURRENT_TIMESTAMP": DATETIME}


class Expressions(Reader):
    """Operators by precedence, down to literals, columns and brackets."""

    def expression(self) -> Node:
        with self.deeper():
            return self.logical(("OR", "||"), lambda: self.logical(("XOR",), self.conjunction))

    def logical(self, words: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        node = operand()
        while self.take(*words):
            operator = self.code[self.at - 1]
            other = operand()
            node = Node(node.first, other.last, INTEGER)
            if operator.word == "XOR":
                self.wrap(node, "xor(", ")")
                operator.text = ","
        return node

    def conjunction(self) -> Node:
        return self.logical(("AND", "&&"), self.negation)

    def negation(self) -> Node:
        start = self.at
        if self.take("NOT"):
            with self.deeper():
                return Node(start, self.negation().last, INTEGER)
        return self.comparison()

    def comparison(self) -> Node:
        node = self.sum()
        while True:
            start = self.at
            negated = self.take("NOT")
            if not negated and self.at < len(self.code) and self.text() in _COMPARISONS:
                self.at += 1
                if self.word() in ("ANY", "ALL", "SOME"):
                    other = self.quantified(node)
                else:
                    other = self.sum()
                    self.compare(node, other)
            elif not negated and self.take("IS"):
                self.take("NOT")
                if not self.take("NULL", "TRUE", "FALSE", "UNKNOWN"):
                    raise NotUnderstood
                other = Node(start, self.at - 1, INTEGER)
            elif self.take("IN"):
                other = self.membership(node)
            elif self.take("BETWEEN"):
                low = self.sum()
                self.expect("AND")
                other = self.sum()
                numbers = [end for end in (low, other) if end.kind.is_number]
                for end in (low, other):
                    self.compare(end, node, only_first=True)
                if numbers:
                    self.compare(node, numbers[0], only_first=True)
            elif self.take("LIKE"):
                self.show_digits(node)
                other = self.sum()
                if self.take("ESCAPE"):
                    other = self.primary()
            elif self.take("REGEXP", "RLIKE"):
                self.code[self.at - 1].text = "REGEXP"
                other = self.sum()
            else:
                if negated:
                    raise NotUnderstood
                return node
            node = Node(node.first, other.last, INTEGER)

    def quantified(self, node: Node) -> Node:
        """`= ANY (...)` is IN, `<> ALL (...)` is NOT IN; others are not read."""
        operator, quantifier = self.code[self.at - 1], self.code[self.at]
        if quantifier.word == "ALL":
            if operator.text not in ("<>", "!="):
                raise NotUnderstood
            operator.text, quantifier.text = "NOT", "IN"
        else:
            if operator.text != "=":
                raise NotUnderstood
            operator.text, quantifier.text = "", "IN"
        self.at += 1
        return self.membership(node)

    def compare(self, left: Node, right: Node, only_first: bool = False) -> None:
        """Convert the text of two that are compared to a number if the other is one."""
        if right.kind.is_number and (left.kind.name == "text" or (left.is_column and left.kind == UNKNOWN)):
            self.wrap(left, "(", "+0)")
        elif (
            not only_first
            and left.kind.is_number
            and (right.kind.name == "text" or (right.is_column and right.kind == UNKNOWN))
        ):
            self.wrap(right, "(", "+0)")
        elif left.kind == right.kind == TEXT and self.code[left.first].kind == "string":
            self.code[left.last].after += f" COLLATE {collation.NAME}"

    def membership(self, node: Node) -> Node:
        start = self.at
        self.expect("(")
        if self.word() in ("SELECT", "WITH"):
            columns = self.select()
            if columns and columns[0][1].is_number:
                self.compare(node, Node(start, start, columns[0][1]), only_first=True)
        else:
            values = [self.expression()]
            while self.take(","):
                values.append(self.expression())
            numbers = [value for value in values if value.kind.is_number]
            if numbers:
                self.compare(node, numbers[0], only_first=True)
            for value in values if numbers or node.kind.is_number else ():
                self.compare(value, numbers[0] if numbers else node, only_first=True)
        self.expect(")")
        return Node(start, self.at - 1, INTEGER)

    def sum(self) -> Node:
        node = self.product()
        while self.text() in ("+", "-"):
            operator = self.code[self.at]
            self.at += 1
            if self.word() == "INTERVAL":
                node = self.shift(node, operator)
                continue
            other = self.product()
            node = Node(node.first, other.last, computed(operator.text, node.kind, other.kind))
        if self.text() in ("|", "&", "^", "<<", ">>"):
            raise NotUnderstood
        return node

    def shift(self, node: Node, operator: Token) -> Node:
        """Turn `date - INTERVAL 1 DAY` into a call."""
        self.wrap(node, "date_add(" if operator.text == "+" else "date_sub(", "")
        operator.text = ","
        self.interval()
        whole = Node(node.first, self.at - 1, node.kind if node.kind in (DATE, DATETIME) else TEXT)
        self.code[whole.last].after += ")"
        return whole

    def interval(self) -> None:
        """Read `INTERVAL 1 DAY`; it becomes two arguments, `1, 'DAY'`."""
        self.expect("INTERVAL")
        self.code[self.at - 1].text = ""
        self.expression()
        unit = self.code[self.at] if self.at < len(self.code) else None
        if unit is None or unit.word not in UNITS:
            raise NotUnderstood
        unit.text, unit.kind = f", '{unit.word}'", "done"
        self.at += 1

    def product(self) -> Node:
        node = self.signed()
        while self.text() in ("*", "/", "%") or self.word() in ("DIV", "MOD"):
            operator = self.code[self.at]
            self.at += 1
            other = self.signed()
            if operator.text in ("*", "/"):
                node = Node(node.first, other.last, computed(operator.text, node.kind, other.kind))
                continue
            divides = operator.word == "DIV"
            whole = Node(node.first, other.last, INTEGER if divides else computed("%", node.kind, other.kind))
            self.wrap(whole, "div(" if divides else "mod(", ")")
            operator.text = ","
            node = whole
        return node

    def signed(self) -> Node:
        start = self.at
        with self.deeper():
            if self.take("-", "+"):
                node = self.signed()
                return Node(start, node.last, node.kind if node.kind.is_number else DOUBLE)
            if self.take("!"):
                self.code[start].text = "NOT"
                return Node(start, self.signed().last, INTEGER)
            if self.take("BINARY"):
                self.code[start].text = ""
                node = self.signed()
                self.code[node.last].after += " COLLATE BINARY"
                return Node(start, node.last, node.kind)
        node = self.primary()
        if self.take("COLLATE"):
            kind = self.code[self.at] if self.at < len(self.code) else None
            if kind is None or not kind.name:
                raise NotUnderstood
            kind.text = "BINARY" if kind.name.endswith("_bin") or kind.name == "binary" else collation.NAME
            kind.kind = "done"
            self.at += 1
            node = Node(node.first, self.at - 1, TEXT)
        return node

    def primary(self) -> Node:
        if self.at >= len(self.code):
            raise NotUnderstood
        token, start = self.code[self.at], self.at
        if token.kind == "number":
            self.at += 1
            return Node(start, start, _literal_kind(token.text))
        if token.kind == "string":
            self.at += 1
            while self.at < len(self.code) and self.code[self.at].kind == "string":
                self.code[self.at].before = "|| "
                self.at += 1
            return Node(start, self.at - 1, TEXT)
        if token.text == "(":
            return self.brackets()
        if token.word in ("CASE", "EXISTS"):
            return self.case() if token.word == "CASE" else self.exists()
        if self.text(1) == "(" and token.kind in ("word", "name"):
            return self.call()
        if token.word in _WORDS and self.text(1) != ".":
            self.at += 1
            return Node(start, start, _WORDS[token.word])
        names = [self.name()]
        while self.text() == "." and self.at + 1 < len(self.code):
            self.at += 1
            names.append(self.name())
        self.bare.append(names[-1])
        kind = self.scope.kind_of(names)
        if kind == TEXT and names[-1] not in self.columns and self.columns:
            kind = UNKNOWN  # a column that the model added
        return Node(start, self.at - 1, kind, is_column=True)

    def brackets(self) -> Node:
        start = self.at
        self.expect("(")
        if self.word() in ("SELECT", "WITH"):
            columns = self.select()
            self.expect(")")
            return Node(start, self.at - 1, columns[0][1] if len(columns) == 1 else UNKNOWN)
        node = self.expression()
        several = False
        while self.take(","):
            self.expression()
            several = True
        self.expect(")")
        return Node(start, self.at - 1, UNKNOWN if several else node.kind)

    def exists(self) -> Node:
        start = self.at
        self.expect("EXISTS")
        self.expect("(")
        self.select()
        self.expect(")")
        return Node(start, self.at - 1, INTEGER)

    def case(self) -> Node:
        start = self.at
        self.expect("CASE")
        base = None if self.word() == "WHEN" else self.expression()
        values: list[Node] = []
        while self.take("WHEN"):
            when = self.expression()
            if base is not None and not values:
                self.compare(base, when, only_first=True)
            self.expect("THEN")
            values.append(self.expression())
        if self.take("ELSE"):
            values.append(self.expression())
        self.expect("END")
        return Node(start, self.at - 1, self.of_one_kind(values))

    def of_one_kind(self, values: Sequence[Node]) -> Kind:
        """Return the kind of a value that is one of these; a number among texts becomes a text."""
        kind = joined([value.kind for value in values])
        for value in values if kind == TEXT else ():
            if value.kind.is_number:
                self.show_digits(value)
                self.wrap(value, "concat(", ")")
        return kind

    def expression_list(self, ordered: bool) -> list[list[str]]:
        spelled = []
        while True:
            start = self.at
            self.expression()
            spelled.append([token.text.lower().strip("`") for token in self.code[start : self.at]])
            if ordered:
                self.take("ASC", "DESC")
            if not self.take(","):
                if self.take("WITH"):
                    raise NotUnderstood  # ROLLUP
                return spelled

    def show_digits(self, node: Node) -> None:
        """Write a number that is wanted as a text as MySQL does: `2.50` of a DECIMAL, `5` of a DOUBLE."""
        if node.kind.name == "decimal":
            self.wrap(node, "decimal_text(", f",{node.kind.digits})")
        elif node.kind.name == "double":
            self.wrap(node, "stored_text(", ")")

    def store(self, node: Node) -> None:
        """Make what goes into a column the text that MySQL makes of it."""
        token = self.code[node.last]
        sign = self.code[node.first].text if node.last == node.first + 1 else ""
        alone = token.kind == "number" and (node.first == node.last or sign == "-")
        if alone and (text := _stored_literal(token.text)) is not None:
            token.text, token.kind = f"'{'-' * bool(sign)}{text}'", "done"
            if sign:
                self.code[node.first].text = ""
            return
        if node.kind.name == "decimal":
            self.show_digits(node)
        elif node.first != node.last and not node.is_column:
            self.wrap(node, "stored_text(", ")")


def _literal_kind(text: str) -> Kind:
    if "e" in text.lower():
        return DOUBLE
    return Kind("decimal", len(text.partition(".")[2])) if "." in text else INTEGER


def _stored_literal(text: str) -> str | None:
    """Return the text of a number that keeps its digits (`2.50`); None where SQLite's own way is MySQL's too."""
    if "e" in text.lower() or ("." not in text and len(text) < 19):
        return None if "e" not in text.lower() else f"{float(text):.15g}".replace("e+", "e")
    whole, point, fraction = text.partition(".")
    return (whole.lstrip("0") or "0") + point * bool(fraction) + fraction
