"""Plays a step's tournament as someone who knows the right element and action."""

from collections.abc import Sequence

from megatron_agent.environments.base import Message
from megatron_agent.environments.mind2web.page import Dom
from megatron_agent.environments.mind2web.question import LETTERS, NONE_OF_THE_ABOVE
from megatron_agent.environments.mind2web.task import Mind2WebTask
from megatron_agent.environments.mind2web.tournament import Tournament
from megatron_agent.environments.task_kind import Expert


def gold_replay(task: Mind2WebTask) -> Expert:
    """Return the expert of one step: it chooses a right element where there is one, else none of the above."""
    in_order = Dom(task.page.html, f"step {task.id}").in_document_order(task.candidates)
    tournament = Tournament(task.candidates)

    def reply(messages: Sequence[Message]) -> str:
        batch = sorted(tournament.next_batch(), key=in_order.index)
        right = next((index for index, node_id in enumerate(batch) if node_id in task.gold), None)
        if right is None:
            return f"Thought: The element for the next action is not among these.\nAnswer: {NONE_OF_THE_ABOVE}."
        tournament.choose(batch[right], task.operation)
        lines = [
            "Thought: This element takes the task one step further.",
            f"Answer: {LETTERS[right + 1]}.",
            f"Action: {task.operation}",
        ]
        if task.operation != "CLICK":
            lines.append(f"Value: {task.value}")
        return "\n".join(lines)

    return reply
