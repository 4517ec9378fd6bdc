"""The ALFWorld task of AgentTuning's evaluator: text games in a household, played by TextWorld's PDDL engine."""

from megatron_agent.environments.alfworld.environment import AlfworldEnvironment
from megatron_agent.environments.alfworld.kind import TASK_KIND, AlfworldOptions
from megatron_agent.environments.alfworld.task import AlfworldTask

__all__ = ["TASK_KIND", "AlfworldEnvironment", "AlfworldOptions", "AlfworldTask"]
