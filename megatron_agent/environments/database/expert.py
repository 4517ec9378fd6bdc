"""Replays of gold solutions, for benchmarks and tests."""

from megatron_agent.environments.database.dialect.parsing import split_statements
from megatron_agent.environments.database.task import DatabaseTask
from megatron_agent.environments.task_kind import Expert
from megatron_agent.errors import UserError


def gold_expert(task: DatabaseTask) -> Expert:
    """Return the replies of one episode: the gold statements if there are any, then the label.

    Raises UserError for a modification without gold SQL.
    """
    if task.modifies and not task.gold_sql:
        raise UserError(f'task {task.id}: needs "gold_sql" for a replay, as it changes the table; add it to the record')
    replies = [
        f"I run the statement.\nAction: Operation\n```sql\n{statement}\n```"
        for statement in split_statements(task.gold_sql or "")
    ]
    answer = ["done"] if task.modifies else list(task.label)
    rest = iter([*replies, f"I know the answer.\nAction: Answer\nFinal Answer: {answer!r}"])
    return lambda messages: next(rest)
