"""What a reply asks for: AgentBench's reading of it, flaws included, and one with the flaws mended.

Every pattern of the released code has its equal here that takes time linear in the reply.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import islice

from megatron_agent.environments.knowledge_graph.functions import CallError, Variable

ANSWER = re.compile(r"(?:Find|Final) Answer: #(\d+)")
ACTION_LINE = re.compile(r"Action.*?:")
WORD = re.compile(r"(\w+)(\()?")


def clean_reply(reply: str) -> str:
    r"""Return a reply up to the first `Observation:` of its own, with `\_` read as `_`."""
    return reply.split("Observation:")[0].replace("\\_", "_")


def find_answer(reply: str) -> int | None:
    """Return the number of the first variable that the reply calls the final answer, None when it answers nothing.

    A number of ten digits or more, which no variable has, counts as -1.
    """
    match = ANSWER.search(reply)
    if match is None:
        return None
    return int(match[1]) if len(match[1]) < 10 else -1


def find_action_line(reply: str) -> str | None:
    """Return the first line that opens with `Action`, a colon somewhere behind it."""
    return next((line for line in reply.split("\n") if ACTION_LINE.match(line)), None)


def called_names(line: str) -> list[str]:
    """Return the words that a bracket follows, in order: the first 50, more than a reply of 128 tokens can hold."""
    return list(islice((match[1] for match in WORD.finditer(line) if match[2]), 50))


def split_arguments(line: str, name: str) -> list[str]:
    """Return the arguments of a call as the released parser cuts them: up to the first `)`, at every comma.

    Blanks around commas go with them; those at the two ends stay. Raises CallError when there is no such bracket, or
    nothing in front of it.
    """
    start = line.find(f"{name}(")
    end = line.find(")", start + len(name) + 2)
    if start < 0 or end < 0:
        raise CallError("The brackets do not match.")
    first, *others = line[start + len(name) + 1 : end].split(",")
    if not others:
        return [first]
    return [first.rstrip(), *(argument.strip() for argument in others[:-1]), others[-1].lstrip()]


def split_whole_arguments(line: str, name: str, entities: Mapping[str, str]) -> list[str]:
    """Return the arguments of a call, blanks around them off, names of the question's entities whole.

    A name may have commas and brackets in it, as titles of works do; the longest name that fits is taken.
    """
    start = line.find(f"{name}(") + len(name) + 1
    arguments = split_arguments(line, name)
    for entity in sorted(entities, key=len, reverse=True):
        rest = line[start:].lstrip()
        if rest.startswith(entity):
            rest = rest[len(entity) :].lstrip()
            if rest.startswith(")"):
                return [entity]
            if rest.startswith(",") and ")" in rest:
                return [entity, rest[1 : rest.index(")")].strip()]
    return [argument.strip() for argument in arguments]


def resolve(
    arguments: Sequence[str], variables: Sequence[Variable], entities: Mapping[str, str]
) -> list[Variable | str]:
    """Return variables for `#k`, ids for names of the question's entities, and other texts as they are.

    Raises CallError for a variable that is not there. As in the released code, `#-1` is the last variable.
    """
    resolved: list[Variable | str] = []
    for argument in arguments:
        name = argument.replace("variable ", "").replace("Variable ", "")
        if name.startswith("#"):
            try:
                resolved.append(variables[int(name[1:])])
            except (ValueError, IndexError) as error:
                raise CallError(f"There is no variable {name}.") from error
        else:
            resolved.append(entities.get(name, argument))
    return resolved
