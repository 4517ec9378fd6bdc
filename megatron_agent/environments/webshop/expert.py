"""The scripted expert: finds the goal's product by its title, chooses the options, buys."""

from collections.abc import Sequence

from megatron_agent.environments.base import Message
from megatron_agent.environments.literals import literal_eval
from megatron_agent.environments.task_kind import Expert
from megatron_agent.environments.webshop.goal import WebShopTask
from megatron_agent.environments.webshop.pages import BUY_NOW, NEXT_PAGE
from megatron_agent.environments.webshop.reward import similarity

_ACTIONS = "\n\nAvailable Actions:\n"
_NOT_OPTIONS = ("back to search", "< prev", "description", "features", "reviews", "buy now")


def webshop_expert(task: WebShopTask) -> Expert:
    """Return replies that buy the product the goal was written for, as far as ten actions go."""
    wanted = [option if isinstance(option, str) else option[1] for option in task.options]
    searched = False

    def reply(messages: Sequence[Message]) -> str:
        nonlocal searched
        clickables: list[str] = literal_eval(messages[-1]["content"].split(_ACTIONS)[-1])["clickables"]
        if not searched:
            searched = True
            return _reply("I should search for the product the instruction describes.", f"search[{_keywords(task)}]")
        if task.asin.lower() in clickables:
            return _reply(f"{task.asin} is what the instruction asks for.", f"click[{task.asin}]")
        if BUY_NOW.lower() not in clickables:
            return _reply("the product is not on this page, so I go to the next one.", f"click[{NEXT_PAGE}]")
        options = [value for value in clickables if value not in _NOT_OPTIONS]
        if wanted and options:
            want = wanted.pop(0)
            value = max(options, key=lambda option: (option == want.lower(), similarity(option, want)))
            return _reply(f"I should choose {value}, as the instruction asks for {want}.", f"click[{value}]")
        return _reply("everything that was asked for is chosen, so I buy it.", f"click[{BUY_NOW}]")

    return reply


def _keywords(task: WebShopTask) -> str:
    """Return the title without the brackets and line breaks that an action cannot hold."""
    return " ".join(task.name.replace("[", " ").replace("]", " ").split()) or task.query


def _reply(thought: str, action: str) -> str:
    return f"Thought:\nI think {thought}\n\nAction:\n{action}"
