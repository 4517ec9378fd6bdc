"""The parts of a ReAct reply: what the model thought and what it did, for readers (environments parse strictly)."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["thought", "action", "text"]

_THOUGHT = re.compile(r"(THOUGHT|Thought|Think)\s?:")
_ACTION = re.compile(r"(ACTION|Action|action|Act|Answer|Value|Final Answer|Find Answer)\s?:")
_ACTION_WITHIN = re.compile(r"(?<=\s)(?:ACTION|Action|Act|Final Answer|Find Answer):")
_FENCE = "```"


@dataclass(frozen=True)
class Part:
    """A stretch of a reply."""

    kind: Kind
    text: str


def split_reply(text: str) -> list[Part]:
    """Split a reply into thoughts, actions and other text; the parts put together are the reply.

    Knows the grammars of the six tasks: `THOUGHT:`/`ACTION:` (ALFWorld), `Thought:`/`Action:` (WebShop, Knowledge
    Graph with `Final Answer:`, Mind2Web with `Answer:` and `Value:`), `Think:`/`Act:` (Operating System),
    `Action: Operation` (Database), and code blocks, which are actions. A label holds until the next one; it stands at
    the start of a line, an action's also after a thought on the same line, as the evaluators find it there too. Text
    after a code block, as before the first label, is neither. Neighbours of one kind are one part.
    """
    parts: list[tuple[Kind, list[str]]] = []

    def add(kind: Kind, piece: str) -> None:
        if piece.isspace() and parts:  # blank lines stay with what they follow
            kind = parts[-1][0]
        if parts and parts[-1][0] == kind:
            parts[-1][1].append(piece)
        elif piece:
            parts.append((kind, [piece]))

    kind: Kind = "text"
    in_block = False
    for line in text.splitlines(keepends=True):
        start = line.lstrip()
        if start.startswith(_FENCE):
            add("action", line)
            in_block = not in_block and _FENCE not in start[len(_FENCE) :]
            kind = "text"
        elif in_block:
            add("action", line)
        elif _ACTION.match(start):
            kind = "action"
            add(kind, line)
        else:
            if _THOUGHT.match(start):
                kind = "thought"
            within = _ACTION_WITHIN.search(line)
            if within and kind == "thought":
                add(kind, line[: within.start()])
                kind = "action"
                add(kind, line[within.start() :])
            else:
                add(kind, line)
    return [Part(kind, "".join(pieces)) for kind, pieces in parts]
