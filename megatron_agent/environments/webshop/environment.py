"""AgentBench's WebShop environment: at most ten searches and clicks, scored at Buy Now."""

import re
from collections.abc import Sequence

from megatron_agent.environments.base import Message, Observation, Status
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.demonstrations import load_demonstrations
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.environments.task_kind import WorldOptions
from megatron_agent.environments.webshop.catalogue import Catalogue
from megatron_agent.environments.webshop.goal import WebShopTask
from megatron_agent.environments.webshop.reward import score_purchase
from megatron_agent.environments.webshop.search import SearchEngine
from megatron_agent.environments.webshop.site import Visit
from megatron_agent.environments.webshop.title_words import TitleWords

MAX_STEPS = 10
ACKNOWLEDGEMENT = "Ok."
_RULES = """\
You are a buyer in a web shop. Each round you get an observation, the text of the page you are on, and the available \
actions; answer with one action that brings you nearer to the product the instruction asks for.
There are two kinds of action:
search[keywords]
click[value]
Search when the page has a search bar, and choose the keywords with care: they are your own. The value of a click must \
be one of the clickables in the list of available actions. An action that is not possible does nothing.
Choose the options (such as size or color) that the instruction names by clicking them, then click Buy Now.
"""
_FORMAT = """\
Write every answer in this form:

Thought:
I think ...

Action:
click[something]"""
INSTRUCTIONS = {
    "paper": _RULES + _FORMAT,
    "fixed": f"{_RULES}You have {MAX_STEPS} actions; nothing is bought without a click on Buy Now.\n{_FORMAT}",
}
"""Instruction texts by prompt style, in this project's own words."""

NO_ACTION = (
    "Your answer held no action. Write a line `Action:` and under it search[keywords] or click[value]; "
    "the page is unchanged."
)
"""What prompt style `fixed` says to a reply without an action; `paper` ends the episode there."""

_PAPER_ACTION = re.compile(r"[Aa]ction: *\n *((search|click)\[.+?])")
_PAPER_PARTS = re.compile(r"(.+)\[(.+)\]")
_FIXED_ACTION = re.compile(r"[Aa]ction:[ \n]*(search|click)\[((?:[^\[\]\n]|\[[^\[\]\n]*\])+)\]")


class WebShopEnvironment:
    """Plays :class:`WebShopTask` episodes; grammar, pages and termination are AgentTuning's evaluator's.

    Catalogue, search engine and title words are shared by all environments; the visit is this one's own.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        engine: SearchEngine,
        title_words: TitleWords,
        opening: Sequence[Message],
        style: str,
    ) -> None:
        self.catalogue = catalogue
        self.engine = engine
        self.title_words = title_words
        self.opening = opening
        self.style = style
        self._visit: Visit | None = None
        self._steps = 0

    def reset(self, task: WebShopTask) -> list[Message]:
        """Enter the shop; return instruction, acknowledgement, demonstration and the search page."""
        self._visit, self._steps = Visit(self.catalogue, self.engine, task), 0
        return [*map(dict, self.opening), {"role": "user", "content": self._show(self._visit)}]

    def step(self, reply: str) -> Observation:
        """Carry out the reply's action, and score the purchase if it is one."""
        visit = self._open_visit()
        self._steps += 1
        action = find_action(reply, self.style)
        if action is not None:
            visit.act(*action)
            if visit.bought:
                return self._purchase(visit)
        elif self.style == "paper":
            return self.stop("invalid format")
        if self._steps >= MAX_STEPS:
            return self.stop("limit reached")
        text = self._show(visit)
        return Observation(text if action is not None else f"{NO_ACTION}\n\n{text}", done=False)

    def stop(self, status: Status) -> Observation:
        """End the episode from outside: nothing was bought, which is worth 0."""
        self._open_visit()
        self.close()
        return Observation("", done=True, status=status)

    def close(self) -> None:
        """Leave the shop."""
        self._visit = None

    def _purchase(self, visit: Visit) -> Observation:
        assert visit.product is not None
        score = score_purchase(visit.product, visit.options, visit.goal, self.title_words)
        parts = {"r_type": score.type, "r_attribute": score.attribute, "r_price": score.price}
        if score.option is not None:
            parts["r_option"] = score.option
        self.close()
        return Observation("", done=True, reward=score.reward, status="completed", scores=parts)

    def _open_visit(self) -> Visit:
        if self._visit is None:
            raise RuntimeError("reset() must come before step() and stop()")
        return self._visit

    @staticmethod
    def _show(visit: Visit) -> str:
        return f"Observation:\n{visit.page.text}\n\nAvailable Actions:\n{visit.page.available_actions}"


def opening_messages(options: WorldOptions) -> list[Message]:
    """Return the messages before the task: those of `--prompt-file`, or this project's."""
    check_choice("--prompt-style", options.prompt_style, tuple(INSTRUCTIONS))
    if options.prompt_file is not None:
        return read_prompt(options.prompt_file)
    return [
        {"role": "user", "content": INSTRUCTIONS[options.prompt_style]},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
        *load_demonstrations("webshop")[""],
    ]


def find_action(reply: str, style: str) -> tuple[str, str] | None:
    """Return name and argument of the first action of a reply, or None.

    `paper`: the evaluator's pattern, which wants a new line after `Action:` and ends at the first bracket, then
    WebShop's own splitting: a value with a bracket in it cannot be clicked. `fixed`: on the same line too, and with
    brackets in the value.
    """
    if style == "fixed":
        match = _FIXED_ACTION.search(reply)
        return (match.group(1), match.group(2)) if match else None
    found = _PAPER_ACTION.search(reply)
    if found is None:
        return None
    parts = _PAPER_PARTS.match(found.group(1))
    assert parts is not None  # the first pattern wants something between brackets, as the second does
    return parts.group(1), parts.group(2)
