"""The WebShop task of AgentBench: find, configure and buy the product an instruction describes."""

from megatron_agent.environments.webshop.environment import INSTRUCTIONS, WebShopEnvironment
from megatron_agent.environments.webshop.goal import WebShopTask
from megatron_agent.environments.webshop.kind import TASK_KIND, WebShopOptions

__all__ = ["INSTRUCTIONS", "TASK_KIND", "WebShopEnvironment", "WebShopOptions", "WebShopTask"]
