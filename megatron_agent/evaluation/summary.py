"""Scores of a run: success by category with a confidence interval, endings, rounds, tokens, cost, time."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from megatron_agent.agents.trajectory import sum_known
from megatron_agent.evaluation.results import Result

_Z_95 = 1.959963984540054


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion at 95 % (Wilson 1927); (0, 1) for no trials."""
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    denominator = 1 + _Z_95**2 / count
    centre = (share + _Z_95**2 / (2 * count)) / denominator
    half = _Z_95 * math.sqrt(share * (1 - share) / count + _Z_95**2 / (4 * count**2)) / denominator
    return max(0.0, centre - half), min(1.0, centre + half)


def summarize(results: Sequence[Result]) -> dict[str, Any]:
    """Summarise finished results. A success is a reward of 1; shares are of all tasks, errors included.

    `task_errors` counts the three most frequent reasons of them.
    """
    successes = sum(result["reward"] == 1 for result in results)
    low, high = wilson_interval(successes, len(results))
    categories: dict[str, list[Result]] = {}
    for result in results:
        categories.setdefault(result["category"], []).append(result)
    errors = Counter(str(result.get("error")) for result in results if result["status"] == "task error")
    return {
        "tasks": len(results),
        "successes": successes,
        "success_rate": _mean([result["reward"] == 1 for result in results]),
        "success_rate_95": [round(low, 4), round(high, 4)],
        "mean_reward": _mean([result["reward"] for result in results]),
        "categories": {
            name: {
                "tasks": len(members),
                "successes": sum(member["reward"] == 1 for member in members),
                "mean_reward": _mean([member["reward"] for member in members]),
            }
            for name, members in sorted(categories.items())
        },
        "statuses": dict(sorted(Counter(result["status"] for result in results).items())),
        "task_errors": dict(errors.most_common(3)),
        "mean_rounds": _mean([result["rounds"] for result in results]),
        "prompt_tokens": sum_known(result.get("prompt_tokens") for result in results),
        "completion_tokens": sum_known(result.get("completion_tokens") for result in results),
        "cost": total_cost(results),
        "episode_seconds": round(sum(result["seconds"] for result in results), 3),
    }


def total_cost(results: Iterable[Result]) -> float | None:
    """Return the sum of the costs that are known, in the currency of the prices; None without prices."""
    return sum_known(result.get("cost") for result in results)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
