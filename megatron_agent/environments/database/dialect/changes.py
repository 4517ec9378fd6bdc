"""INSERT, UPDATE and DELETE: what goes into a column is the text that MySQL makes of it."""

from megatron_agent.environments.database.dialect.selects import Selects
from megatron_agent.environments.database.dialect.walk import NotUnderstood, Refused


class Walk(Selects):
    """One statement, read once."""

    def insert(self) -> None:
        self.at += 2
        self.refuse_other_case(self.code[self.at])
        self.name()
        if self.text() == "(" and self.word(1) not in ("SELECT", "WITH"):
            self.at += 1
            while not self.take(")"):
                if self.at < len(self.code) and self.code[self.at].kind == "string":
                    raise Refused(self.code[self.at].start)
                self.at += 1
                if self.at >= len(self.code):
                    raise NotUnderstood
        if self.take("VALUES"):
            self.target = self.code[2].name
            while self.take("("):
                while True:
                    self.store(self.expression())
                    if not self.take(","):
                        break
                self.expect(")")
                self.take(",")
        elif self.word() in ("SELECT", "WITH") or self.text() == "(":
            self.select(store=True)

    def update(self) -> None:
        self.at += 1
        self.one_table()
        self.target = self.code[1].name
        self.expect("SET")
        while True:
            target = self.at
            self.name()
            while self.take("."):
                for token in self.code[target : self.at]:
                    token.text = ""
                target = self.at
                self.name()
            self.expect("=")
            self.store(self.expression())
            if not self.take(","):
                break
        self.rest_of_change()

    def delete(self) -> None:
        self.at += 1
        self.expect("FROM")
        self.one_table()
        if not any(token.kind == "done" for token in self.code):  # a join that `statements.py` turned into this
            self.target = self.code[2].name
        self.rest_of_change()

    def rest_of_change(self) -> None:
        if self.take("WHERE"):
            self.expression()
        if self.take("ORDER"):
            self.expect("BY")
            self.expression_list(ordered=True)
        if self.take("LIMIT"):
            self.expression()
