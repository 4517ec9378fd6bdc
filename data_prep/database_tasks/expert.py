"""A scripted expert: it knows the gold SQL, but plays the real environment and reads its answer there."""

import json
from collections.abc import Iterable, Iterator, Sequence

from data_prep.database_tasks.generator import GeneratedTask
from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play
from megatron_agent.agents.trajectory import Trajectory
from megatron_agent.environments.base import Message
from megatron_agent.environments.database import DatabaseEnvironment
from megatron_agent.environments.literals import literal_eval


def play_expert(tasks: Iterable[GeneratedTask], prompt_style: str) -> Iterator[Trajectory]:
    """Play every task with the expert and yield its trajectory, whatever the reward."""
    environment = DatabaseEnvironment(prompt_style)
    for generated in tasks:
        yield play(environment, generated.task, ScriptedClient(Expert(generated)))


class Expert:
    """Replies to one task: the thought and gold statement first, then the answer read from the feedback."""

    def __init__(self, generated: GeneratedTask) -> None:
        self.question = generated.question
        self.modifies = generated.task.modifies

    def __call__(self, messages: Sequence[Message]) -> str:
        if len(messages) == 3:  # instruction, acknowledgement, question: nothing done yet
            return f"{self.question.thought}\nAction: Operation\n```sql\n{self.question.sql}\n```"
        if self.modifies:
            return 'The table is changed.\nAction: Answer\nFinal Answer: ["none"]'
        rows = literal_eval(messages[-1]["content"])
        values = [str(value) for row in rows for value in row]
        return f"The result is the answer.\nAction: Answer\nFinal Answer: {json.dumps(values)}"
