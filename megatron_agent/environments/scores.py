"""Means that the scores of a task are made of."""

from collections.abc import Iterable, Sequence

from megatron_agent.environments.task_kind import EpisodeScore


def mean(values: Iterable[float]) -> float:
    """Return the mean; 0 of no values."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def reward_by_category(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """Return the mean reward of every category, by name."""
    categories = sorted({episode.category for episode in episodes})
    return {name: mean(episode.reward for episode in episodes if episode.category == name) for name in categories}
