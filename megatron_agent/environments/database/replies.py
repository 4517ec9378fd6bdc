"""What a reply says: run this SQL, this is the answer, or nothing that can be read.

The finders of the paper's style give what AgentBench's patterns `Action: (.*?)\\n`, "```sql\\n([\\s\\S]*?)\\n```" and
`\\nFinal Answer:(.*)` give, in time linear in the reply (the patterns are quadratic on hostile text).
"""

import re
from dataclasses import dataclass
from typing import Literal

from megatron_agent.environments.database.scoring import parses_as_list

_ACTION = re.compile(r"Action:\s*(Operation|Answer)\b", re.IGNORECASE)
_BLOCK = re.compile(r"```(?:sql|mysql)?\s(.*?)(?:```|\Z)", re.IGNORECASE | re.DOTALL)
_ANSWER = "final answer:"


@dataclass(frozen=True)
class Move:
    """An operation (`text` is the SQL) or an answer (`text` is the list); otherwise `fault` says what was missing."""

    action: Literal["operation", "answer", "none"]
    text: str = ""
    fault: Literal["invalid format", "invalid action"] | None = None


def read_paper_reply(reply: str, may_operate: bool) -> Move:
    """Read a reply as AgentBench v0.1 does: an operation unless none is left, else any `Final Answer:`."""
    action = find_action(reply)
    if action == "Operation" and may_operate:
        sql = find_sql(reply)
        return Move("none", fault="invalid format") if sql is None else Move("operation", sql)
    answer = find_answer(reply)
    if answer is not None:
        return Move("answer", answer)
    if action == "Operation":
        return Move("operation")
    return Move("none", fault="invalid format" if action in (None, "Answer") else "invalid action")


def read_fixed_reply(reply: str) -> Move:
    """Read a reply by its first action, however it is spaced; the block may be open, the list span lines."""
    action = _ACTION.search(reply)
    start = action.end() if action else 0
    if action and action.group(1).lower() == "operation":
        block = _BLOCK.search(reply, start)
        if block and block.group(1).strip():
            return Move("operation", block.group(1).strip())
        return Move("none", fault="invalid format")
    at = reply.lower().find(_ANSWER, start)
    if at < 0:
        return Move("none", fault="invalid format")
    rest = reply[at + len(_ANSWER) :].strip()
    first_line = rest.split("\n", 1)[0].strip()
    return Move("answer", rest if parses_as_list(rest) else first_line)


def find_action(reply: str) -> str | None:
    """Return the first action of a reply: the rest of a line after `Action: `; a newline must follow it."""
    for line in reply.split("\n")[:-1]:
        _, found, action = line.partition("Action: ")
        if found:
            return action
    return None


def find_sql(reply: str) -> str | None:
    """Return the first fenced sql block, on one line, or None."""
    start = reply.find("```sql\n")
    end = reply.find("\n```", start + 7)
    if start < 0 or end < 0:
        return None
    return reply[start + 7 : end].strip().replace("\n", " ")


def find_answer(reply: str) -> str | None:
    """Return the text after the first `Final Answer:` that opens a line other than the first, or None."""
    for line in reply.split("\n")[1:]:
        if line.startswith("Final Answer:"):
            return line[len("Final Answer:") :]
    return None
