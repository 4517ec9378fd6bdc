"""Scores of a run."""

import pytest

from megatron_agent.evaluation.summary import summarize, wilson_interval


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_of_newcombe(successes: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(successes, count) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def result(category: str, reward: float, status: str = "completed", tokens: int | None = 5) -> dict[str, object]:
    return {
        "category": category,
        "reward": reward,
        "status": status,
        "rounds": 2,
        "prompt_tokens": tokens,
        "completion_tokens": tokens,
        "cost": None if tokens is None else 0.25,
        "seconds": 1.5,
        "error": "no answer" if status == "task error" else None,
    }


def test_summary() -> None:
    summary = summarize([result("a", 1.0), result("a", 0.5), result("b", 0.0, "invalid format", None)])
    assert (summary["tasks"], summary["successes"]) == (3, 1)
    assert summary["success_rate"] == pytest.approx(1 / 3)
    assert summary["mean_reward"] == pytest.approx(0.5)
    assert summary["categories"]["a"] == {"tasks": 2, "successes": 1, "mean_reward": 0.75}
    assert summary["statuses"] == {"completed": 2, "invalid format": 1}
    assert (summary["prompt_tokens"], summary["mean_rounds"]) == (10, 2)
    assert (summary["cost"], summary["episode_seconds"]) == (0.5, 4.5)
    assert summary["task_errors"] == {}
    assert summarize([result("a", 0.0, "task error")] * 2)["task_errors"] == {"no answer": 2}
    assert summarize([])["success_rate_95"] == [0.0, 1.0]
