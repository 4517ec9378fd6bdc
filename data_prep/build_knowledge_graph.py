"""Build a graph in which the gold calls of AgentBench's knowledge graph questions give their answers."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.errors import UserError, run_command


def build_knowledge_graph(
    tasks: Sequence[Path],
    ontology: Path,
    output: Path,
    prompt_style: str = "paper",
    distractors: int = 6,
) -> tuple[dict[str, int], dict[str, str]]:
    """Write `tasks.json`, `graph.nq` and `ontology/` (what the graph uses of it) to the folder `output`.

    A question that stands in several files is taken once. Returns counts (`questions`, `playable`, `triples`) and,
    by id, why a question is not playable: those stay out of the files. Raises UserError for bad input.
    """
    from megatron_agent.environments.knowledge_graph.environment import PROMPT_STYLES
    from megatron_agent.environments.knowledge_graph.graph_builder import build_graphs, used_names
    from megatron_agent.environments.knowledge_graph.ontology import read_ontology
    from megatron_agent.environments.knowledge_graph.task import read_knowledge_graph_tasks, task_to_record
    from megatron_agent.files import atomic_write, check_writable

    if prompt_style not in PROMPT_STYLES:
        raise UserError(f"--prompt-style: expected one of {', '.join(PROMPT_STYLES)}, got {prompt_style!r}")
    if distractors < 0:
        raise UserError(f"--distractors: expected 0 or more, got {distractors}")
    check_writable(output / "graph.nq", "--output")
    questions = {task.id: task for path in tasks for task in read_knowledge_graph_tasks(path)}
    known = read_ontology(ontology)
    built = build_graphs(list(questions.values()), known, prompt_style, distractors)
    playable = [graph for graph in built if graph.fault is None]
    if not playable:
        raise UserError(f"{tasks[0]}: no question is playable; the first: {built[0].fault}")
    names = used_names(playable, known)
    relations, attributes = sorted(names & known.relations), sorted(names & known.attributes)
    ends = sorted({end for name in names for end in (known.domains[name], known.ranges[name])})
    above = [(narrow, wide) for narrow in ends for wide in sorted(known.supertypes.get(narrow, ())) if wide in ends]
    texts = {
        "tasks.json": json.dumps([task_to_record(graph.task) for graph in playable], ensure_ascii=False, indent=1),
        "graph.nq": "\n".join(line for graph in playable for line in graph.lines),
        "ontology/vocab.json": json.dumps({"attributes": attributes, "relations": relations}, indent=1),
        "ontology/fb_roles": "\n".join(f"{known.domains[name]} {name} {known.ranges[name]}" for name in sorted(names)),
        "ontology/fb_types": "\n".join(f"{narrow} meta.subclassOf {wide}" for narrow, wide in above),
    }
    for name, text in texts.items():
        with atomic_write(output / name) as handle:
            handle.write(text + "\n" if text else "")
    counts = {
        "questions": len(built),
        "playable": len(playable),
        "triples": sum(len(graph.lines) for graph in playable),
    }
    return counts, {graph.task.id: graph.fault for graph in built if graph.fault is not None}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, build, and list what is not playable."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_knowledge_graph",
        description="For AgentBench's knowledge graph questions, whose Freebase takes a server of its own, build a "
        "small graph that gives their answers amid invented distractors: one named graph a question. Questions "
        "whose gold calls the evaluator itself refuses are listed with the reason and left out.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="example: python -m data_prep.build_knowledge_graph --tasks AgentBench/data/knowledgegraph/dev.json "
        "--ontology AgentBench/src/server/tasks/knowledgegraph/ontology --output runs/knowledge_graph/dev",
    )
    parser.add_argument("--tasks", required=True, type=Path, nargs="+", help="dev.json, std.json, kg_rl_all.json")
    parser.add_argument("--ontology", required=True, type=Path, help="AgentBench's ontology folder")
    parser.add_argument("--output", required=True, type=Path, help="folder for tasks.json, graph.nq and ontology/")
    parser.add_argument("--prompt-style", default="paper", help="paper or fixed: whose rules gold calls must pass")
    parser.add_argument("--distractors", type=int, default=6, help="relations added to each place gold calls look at")
    arguments = parser.parse_args(argv)
    counts, faults = build_knowledge_graph(
        arguments.tasks, arguments.ontology, arguments.output, arguments.prompt_style, arguments.distractors
    )
    for identifier, fault in faults.items():
        print(f"{identifier}: {fault}")
    print("  ".join(f"{name} {number}" for name, number in counts.items()))


if __name__ == "__main__":
    run_command(main)
