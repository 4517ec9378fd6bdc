"""Mind2Web's measures: element accuracy, action F1, step success rate."""

from collections.abc import Sequence

from megatron_agent.environments.mind2web.question import gold_action
from megatron_agent.environments.mind2web.task import Mind2WebTask
from megatron_agent.environments.scores import mean
from megatron_agent.environments.task_kind import EpisodeScore

STEP_SCORES = ("step_sr", "element_acc", "action_f1")
GOLD_IN_TOP10 = "gold_in_top10"


def token_f1(prediction: str, label: str) -> float:
    """Return the F1 of the two texts' sets of words; 1 when both are empty."""
    predicted, expected = set(prediction.split()), set(label.split())
    if not predicted and not expected:
        return 1.0
    common = len(predicted & expected)
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def score_step(task: Mind2WebTask, prediction: tuple[str, str] | None) -> dict[str, float]:
    """Score a prediction (element, action) of one step; None, and every prediction without a gold one, is 0.

    The step succeeds when the element is one of the right ones and the F1 of "operation value" is 1.
    """
    element_acc = action_f1 = 0.0
    if task.gold and prediction is not None:
        element_acc = float(prediction[0] in task.gold)
        action_f1 = token_f1(prediction[1], gold_action(task.operation, task.value))
    return {
        "step_sr": float(element_acc > 0 and action_f1 >= 1),
        "element_acc": element_acc,
        "action_f1": action_f1,
        GOLD_IN_TOP10: float(bool(task.gold)),
    }


def mind2web_metrics(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """Return the measures over all steps, over those that can succeed, and by domain and website.

    As in AgentBench a step whose right element is not among the ten best candidates counts 0; `gold_in_top10` is
    the share of the others, the most that `step_sr` can reach, and `..._of_gold_in_top10` leave those steps out.
    """
    reachable = [episode for episode in episodes if episode.scores.get(GOLD_IN_TOP10, 1.0)]
    metrics = {name: mean(episode.scores.get(name, 0.0) for episode in episodes) for name in STEP_SCORES}
    metrics[GOLD_IN_TOP10] = len(reachable) / len(episodes) if episodes else 0.0
    for name in STEP_SCORES:
        metrics[f"{name}_of_gold_in_top10"] = mean(episode.scores.get(name, 0.0) for episode in reachable)
    groups: dict[str, list[float]] = {}
    for episode in episodes:
        for group in (episode.category.partition("/")[0], episode.category):
            groups.setdefault(group, []).append(episode.scores.get("step_sr", 0.0))
    return {**metrics, **{f"step_sr/{group}": mean(groups[group]) for group in sorted(groups)}}
