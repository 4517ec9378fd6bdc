"""A small task, and replies to it."""

from megatron_agent.environments.database import DatabaseTask, Table

PEOPLE = Table("people", ("name", "age"), (("Ada", "36"), ("Bob", "9"), ("Cy", "41")))


def question(label: tuple[object, ...] = ("2",), category: str = "counting") -> DatabaseTask:
    return DatabaseTask("t", "How many are over 30?", "The name of this table is people.", PEOPLE, category, label)


def operation(sql: str) -> str:
    return f"I look.\nAction: Operation\n```sql\n{sql}\n```"


def answer(text: str) -> str:
    return f"I know.\nAction: Answer\nFinal Answer: {text}"
