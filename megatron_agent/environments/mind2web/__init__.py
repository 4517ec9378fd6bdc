"""The Mind2Web task of AgentBench: the next action on a recorded page, chosen five candidates at a time."""

from megatron_agent.environments.mind2web.environment import Mind2WebEnvironment
from megatron_agent.environments.mind2web.kind import TASK_KIND
from megatron_agent.environments.mind2web.page import Choice, Dom, Page
from megatron_agent.environments.mind2web.task import Mind2WebTask, read_mind2web_tasks

__all__ = ["TASK_KIND", "Choice", "Dom", "Mind2WebEnvironment", "Mind2WebTask", "Page", "read_mind2web_tasks"]
