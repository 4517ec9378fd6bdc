"""The Database task of AgentBench: one table, SQL operations, an answer or a changed table."""

from megatron_agent.environments.database.environment import DatabaseEnvironment
from megatron_agent.environments.database.instructions import INSTRUCTIONS
from megatron_agent.environments.database.kind import TASK_KIND
from megatron_agent.environments.database.task import DatabaseTask, Table, read_database_tasks

__all__ = ["INSTRUCTIONS", "TASK_KIND", "DatabaseEnvironment", "DatabaseTask", "Table", "read_database_tasks"]
