"""Replays a question's gold calls, each with a thought, and then gives the last variable as the answer."""

import re
from collections.abc import Sequence
from itertools import count

from megatron_agent.environments.base import Message
from megatron_agent.environments.knowledge_graph.task import KnowledgeGraphTask, split_call
from megatron_agent.environments.task_kind import Expert
from megatron_agent.errors import UserError

SPEAKABLE = re.compile(r"(?![Vv]ariable )\w([\w '.&-]*[\w.])?")

THOUGHTS = {
    "get_relations": "I need to know which relations lead away from {0}.",
    "get_neighbors": "The relation {1} leads from {0} to what I am looking for.",
    "intersection": "What I want belongs to both {0} and {1}, so I take what they share.",
    "union": "What I want belongs to {0} or to {1}, so I take both together.",
    "get_attributes": "The question asks for an extreme, so I look at the attributes of {0}.",
    "argmax": "I take the member of {0} with the greatest {1}.",
    "argmin": "I take the member of {0} with the least {1}.",
    "count": "The question asks for a number, so I count the members of {0}.",
}


def expert_replies(task: KnowledgeGraphTask) -> list[str]:
    """Return the replies of an episode; UserError when the task has no gold calls or one that is unknown.

    Entities are called by name where the name survives the released parser (no comma, no bracket, no `#`), else by id.
    """
    if not task.actions:
        raise UserError(f'question {task.id}: carries no gold calls ("actions") to replay')
    names = {mid: name for name, mid in reversed(task.entities) if SPEAKABLE.fullmatch(name)}
    replies, variables = [], 0
    for action in task.actions:
        function, arguments = split_call(action)
        if function not in THOUGHTS:
            raise UserError(f"question {task.id}: gold call {action!r} names an unknown function")
        spoken = [names.get(argument, argument) for argument in arguments]
        try:
            thought = THOUGHTS[function].format(*spoken)
        except IndexError as error:
            raise UserError(f"question {task.id}: gold call {action!r} lacks an argument") from error
        replies.append(f"Thought: {thought}\nAction: {function}({', '.join(spoken)})")
        variables += function not in ("get_relations", "get_attributes")
    replies.append(f"Thought: Variable #{variables - 1} is the answer.\nFinal Answer: #{variables - 1}")
    return replies


def gold_expert(task: KnowledgeGraphTask) -> Expert:
    """Return a function of messages that replays the gold calls, whatever the environment says."""
    replies, turn = expert_replies(task), count()

    def respond(messages: Sequence[Message]) -> str:
        return replies[min(next(turn), len(replies) - 1)]

    return respond
