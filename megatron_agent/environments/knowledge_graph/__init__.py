"""The Knowledge Graph task of AgentBench: questions over Freebase, asked with seven functions."""

from megatron_agent.environments.knowledge_graph.environment import KnowledgeGraphEnvironment
from megatron_agent.environments.knowledge_graph.kind import TASK_KIND, KnowledgeGraphOptions
from megatron_agent.environments.knowledge_graph.task import KnowledgeGraphTask, read_knowledge_graph_tasks

__all__ = [
    "TASK_KIND",
    "KnowledgeGraphEnvironment",
    "KnowledgeGraphOptions",
    "KnowledgeGraphTask",
    "read_knowledge_graph_tasks",
]
