"""The Knowledge Graph task as the harness knows it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.knowledge_graph.endpoint import EndpointStore
from megatron_agent.environments.knowledge_graph.environment import (
    PROMPT_STYLES,
    KnowledgeGraphEnvironment,
    load_prompt,
)
from megatron_agent.environments.knowledge_graph.expert import gold_expert
from megatron_agent.environments.knowledge_graph.ontology import read_ontology
from megatron_agent.environments.knowledge_graph.scoring import knowledge_graph_scores
from megatron_agent.environments.knowledge_graph.store import CachedStore, Store, read_graph
from megatron_agent.environments.knowledge_graph.task import read_knowledge_graph_tasks
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_files import TaskSet
from megatron_agent.environments.task_kind import Fact, TaskKind, World, WorldOptions
from megatron_agent.errors import UserError

SHIPPED = Path(__file__).with_name("shipped")
TASK_SET = TaskSet(
    shipped=SHIPPED / "tasks.json",
    splits={
        "dev": ("knowledgegraph/dev.json",),
        "std": ("knowledgegraph/std.json",),
        "train": ("knowledgegraph/kg_rl_all.json",),
    },
)


@dataclass(frozen=True)
class KnowledgeGraphOptions(WorldOptions):
    """Where questions, graph and ontology come from."""

    knowledge_graph_endpoint: str | None = field(
        default=None, metadata={"help": "address of a SPARQL endpoint, such as http://127.0.0.1:8890/sparql"}
    )
    knowledge_graph_file: Path | None = field(
        default=None, metadata={"help": "N-Triples or N-Quads file, or a folder of them, to load into memory"}
    )
    knowledge_graph_ontology: Path | None = field(
        default=None, metadata={"help": "AgentBench's folder src/server/tasks/knowledgegraph/ontology"}
    )
    knowledge_graph_timeout: float = field(default=60.0, metadata={"help": "seconds an endpoint may take for a query"})


@contextmanager
def open_knowledge_graph(options: KnowledgeGraphOptions) -> Iterator[World]:
    """Read questions and ontology, load or reach the graph; all environments share it and its cache of answers."""
    tasks = read_knowledge_graph_tasks(TASK_SET.find(options))
    prompt = read_prompt(options.prompt_file) if options.prompt_file is not None else load_prompt()
    own = options.tasks is None and options.knowledge_graph_endpoint is None and options.knowledge_graph_file is None
    if options.knowledge_graph_ontology is None and options.tasks is not None:
        raise UserError(
            "--knowledge-graph-ontology: needed with --tasks; pass AgentBench's folder "
            "src/server/tasks/knowledgegraph/ontology, or the one that data_prep.build_knowledge_graph wrote"
        )
    ontology = read_ontology(options.knowledge_graph_ontology or SHIPPED / "ontology")
    with ExitStack() as stack:
        store, facts = _open_store(options, SHIPPED / "graph.nt" if own else options.knowledge_graph_file, stack)
        shared = CachedStore(store)
        yield World(
            tasks,
            lambda: KnowledgeGraphEnvironment(shared, ontology, options.prompt_style, prompt),
            {**facts, "relations": len(ontology.relations), "attributes": len(ontology.attributes)},
        )


def _open_store(options: KnowledgeGraphOptions, graph: Path | None, stack: ExitStack) -> tuple[Store, dict[str, Fact]]:
    if options.knowledge_graph_endpoint is not None:
        if options.knowledge_graph_file is not None:
            raise UserError("--knowledge-graph-endpoint and --knowledge-graph-file: choose one of them")
        endpoint = EndpointStore(options.knowledge_graph_endpoint, options.knowledge_graph_timeout)
        stack.callback(endpoint.close)
        endpoint.check()
        return endpoint, {"engine": "endpoint", "endpoint": endpoint.url}
    if graph is None:
        raise UserError(
            "--tasks: these questions need their graph; pass --knowledge-graph-endpoint (Virtuoso with Freebase) or "
            "--knowledge-graph-file (python -m data_prep.build_knowledge_graph makes one for AgentBench's questions)"
        )
    store, digest = read_graph(graph)
    return store, {"engine": "pyoxigraph", "graph_sha256": digest}


TASK_KIND = TaskKind(
    name="knowledge_graph",
    title="Knowledge Graph",
    options=KnowledgeGraphOptions,
    open=open_knowledge_graph,
    metrics=knowledge_graph_scores,
    main_metric="F1",
    weight=16.0,
    expert=gold_expert,
    prompt_styles=PROMPT_STYLES,
)
