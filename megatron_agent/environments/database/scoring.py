"""AgentBench's judgement of an answer, and its category scores."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

from megatron_agent.environments.literals import literal_eval
from megatron_agent.environments.scores import mean
from megatron_agent.environments.task_kind import EpisodeScore

QUERY_CATEGORIES = (
    "other",
    "counting",
    "comparison",
    "ranking",
    "aggregation-SUM",
    "aggregation-MIN",
    "aggregation-MAX",
    "aggregation-AVG",
)


def parse_answer(answer: str) -> list[object]:
    """Turn the text after `Final Answer:` into a list.

    AgentBench calls `list(eval(answer))` and falls back to `[answer]`. Model output is not evaluated here:
    literals (lists, tuples, strings, numbers, sets, dictionaries) give the same result, and expressions such
    as `[1 + 1]` or `[len("x")]`, which `eval` would compute, stay text and score 0.
    """
    try:
        with warnings.catch_warnings():  # "\d" in a model's string is no concern of the user's
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return list(literal_eval(answer.lstrip(" \t")))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [answer]


def parses_as_list(answer: str) -> bool:
    """Whether `parse_answer` finds a list rather than a text."""
    return parse_answer(answer) != [answer]


def answer_is_correct(answer: str, label: Sequence[object]) -> bool:
    """Compare an answer with the label: one value with one value as numbers if both are, else as sets."""
    values = parse_answer(answer)
    if len(values) == 1 and len(label) == 1:
        try:
            return float(values[0]) == float(label[0])  # type: ignore[arg-type]
        except (ValueError, TypeError, OverflowError):
            return values[0] == label[0]
    try:
        return set(values) == set(label)
    except TypeError:  # a list or dictionary inside the answer has no hash
        return False


def answer_says_the_same(answer: str, label: Sequence[object]) -> bool:
    """Compare as sets of values: numbers as numbers, texts without outer blanks, no value at all as `none`."""
    return _plain_values(parse_answer(answer)) == _plain_values(label)


def _plain_values(values: Sequence[object]) -> set[float | str]:
    plain: set[float | str] = set()
    for value in values:
        text = str(value).strip()
        try:
            plain.add(float(text))
        except ValueError:
            plain.add("none" if text.lower() in ("none", "null") else text)
    return plain or {"none"}


def category_scores(episodes: Iterable[EpisodeScore]) -> dict[str, float]:
    """Return AgentBench's accuracies by category.

    `SELECT_accuracy` takes every type that is neither INSERT nor UPDATE; `overall_cat_accuracy`, the number
    the paper reports as "Database", is the mean of SELECT, INSERT and UPDATE, where a class without tasks
    counts 0 as in AgentBench. `overall_accuracy` is the mean over all episodes, whatever their category.
    """
    rewards: dict[str, list[float]] = {}
    for episode in episodes:
        rewards.setdefault(episode.category, []).append(episode.reward)
    select = [value for name, values in rewards.items() if name not in ("INSERT", "UPDATE") for value in values]
    groups: Mapping[str, list[float]] = {**rewards, "SELECT": select}
    scores = {f"{name}_accuracy": mean(values) for name, values in groups.items() if values}
    overall = sum(scores.get(f"{name}_accuracy", 0.0) for name in ("SELECT", "INSERT", "UPDATE")) / 3
    everything = [reward for values in rewards.values() for reward in values]
    return {
        **dict(sorted(scores.items())),
        "overall_cat_accuracy": overall,
        "overall_accuracy": mean(everything),
    }
