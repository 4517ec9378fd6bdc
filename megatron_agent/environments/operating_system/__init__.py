"""The Operating System task of AgentBench: a problem, a shell in a sandbox, an answer or a changed machine."""

from megatron_agent.environments.operating_system.environment import OperatingSystemEnvironment
from megatron_agent.environments.operating_system.kind import TASK_KIND, OperatingSystemOptions
from megatron_agent.environments.operating_system.task import OperatingSystemTask, read_tasks

__all__ = ["TASK_KIND", "OperatingSystemEnvironment", "OperatingSystemOptions", "OperatingSystemTask", "read_tasks"]
