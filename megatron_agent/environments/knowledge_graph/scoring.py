"""Scores of the Knowledge Graph task: F1, exact match, executability (AgentBench's task.py)."""

from collections.abc import Collection, Sequence
from statistics import mean

from megatron_agent.environments.task_kind import EpisodeScore


def f1(predicted: Collection[str], gold: Collection[str]) -> float:
    """Return the F1 of two sets: the harmonic mean of precision and recall, 0 when they share nothing."""
    shared = len(set(predicted) & set(gold))
    if not shared:
        return 0.0
    precision, recall = shared / len(set(predicted)), shared / len(set(gold))
    return 2 * precision * recall / (precision + recall)


def answer_scores(predicted: Collection[str], gold: Collection[str]) -> dict[str, float]:
    """Return the three scores of one question; executable means that the answer's program gave anything at all."""
    return {
        "F1": f1(predicted, gold),
        "exact_match": float(set(predicted) == set(gold)),
        "executability": float(bool(predicted)),
    }


def knowledge_graph_scores(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """Return the mean scores of a run.

    As in the released evaluator the means are over the episodes whose machinery did not fail (it leaves out a
    question whose query raised an exception); `F1_of_all` counts the others as 0. `F1_<source>` are the parts.
    """
    played = [episode for episode in episodes if episode.status != "task error"]
    scores = {name: _mean([e.scores.get(name, 0.0) for e in played]) for name in ("F1", "exact_match", "executability")}
    scores["F1_of_all"] = _mean([0.0 if e.status == "task error" else e.scores.get("F1", 0.0) for e in episodes])
    for category in sorted({episode.category for episode in played}):
        scores[f"F1_{category}"] = _mean([e.scores.get("F1", 0.0) for e in played if e.category == category])
    return scores


def _mean(values: Sequence[float]) -> float:
    return mean(values) if values else 0.0
