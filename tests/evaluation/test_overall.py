"""The paper's overall score, out of the paper's own numbers."""

import pytest

from megatron_agent.environments.registry import HELD_IN, get_task_kind
from megatron_agent.evaluation.overall import overall_score
from megatron_agent.evaluation.paper_scores import PAPER_OVERALL, PAPER_SCORES, TASKS, WEIGHTS


@pytest.mark.parametrize("model", PAPER_SCORES)
def test_the_printed_overall_follows_from_the_printed_scores(model: str) -> None:
    overall = overall_score(PAPER_SCORES[model], WEIGHTS)
    assert overall.complete
    assert overall.value == pytest.approx(PAPER_OVERALL[model], abs=0.007)


def test_the_six_kinds_have_the_papers_weights() -> None:
    assert TASKS == HELD_IN
    assert {name: get_task_kind(name).weight for name in HELD_IN} == WEIGHTS


def test_fewer_tasks_are_partial_and_a_task_of_ones_own_does_not_count() -> None:
    overall = overall_score({"database": 24.0, "guess_number": 100.0}, {"database": 12.0, "guess_number": None})
    assert (overall.value, overall.tasks, overall.complete) == (2.0, ["database"], False)
    assert overall.missing == [task for task in TASKS if task != "database"]
    assert overall.text() == "2.00 (partial: 1 of 6 tasks)"
    none = overall_score({"guess_number": 100.0}, {"guess_number": None})
    assert (none.value, none.text()) == (None, "none (no task with a weight)")
