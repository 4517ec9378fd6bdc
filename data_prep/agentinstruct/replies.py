"""The reply grammar of the six tasks: where a reply's thought ends and its action begins.

Source: the parsers of AgentTuning's evaluator (`AgentBench.old/src/tasks`, THUDM/AgentTuning).
"""

import re
from dataclasses import dataclass

from megatron_agent.chat.conversation import Conversation


@dataclass(frozen=True)
class ReplyGrammar:
    """How one task's replies are written."""

    action: re.Pattern[str]
    """Finds the action; what stands before its first match is the thought."""
    final: re.Pattern[str]
    """Finds what ends an episode."""


GRAMMARS = {
    "os": ReplyGrammar(
        re.compile(r"Act:\s*(?P<action>(?i:bash)(?=(?s:.*```bash\n))|(?i:finish|answer.*\(.*\)))"),
        re.compile(r"Act:\s*(?i:finish|answer.*\(.*\))"),
    ),
    "db": ReplyGrammar(
        re.compile(r"Action: (?P<action>Operation(?=(?s:.*```sql\n))|Answer(?=(?s:.*\nFinal Answer:)))"),
        re.compile(r"\nFinal Answer:"),
    ),
    "alfworld": ReplyGrammar(re.compile(r"ACTION:(?P<action>.*)"), re.compile(r"ACTION:")),
    "webshop": ReplyGrammar(
        re.compile(r"[Aa]ction: *\n *(?P<action>(search|click)\[.+?\])"), re.compile(r"click\[buy now\]", re.IGNORECASE)
    ),
    "kg": ReplyGrammar(
        re.compile(r"(?m:^)(Action:[ \t]*(?P<action>.*)|(Final|Find) Answer:.*)"),
        re.compile(r"(Final|Find) Answer: *#\d+"),
    ),
    "mind2web": ReplyGrammar(re.compile(r"Answer:[ \t]*(?P<action>[A-Z])\b"), re.compile(r"Answer:[ \t]*[A-Z]\b")),
}
LABEL = re.compile(r"\s*(think|thought)s?\s*:", re.IGNORECASE)


def thought_of(task: str, reply: str) -> str | None:
    """Return the thought before a reply's action (empty when there is none); None when there is no action."""
    match = GRAMMARS[task].action.search(reply)
    if match is None:
        return None
    before = reply[: match.start()]
    return LABEL.sub("", before, count=1).strip()


def question_index(conversation: Conversation) -> int:
    """Return the index of the human turn that the first trained reply answers: the task, after all demonstrations."""
    first = next(index for index, turn in enumerate(conversation.turns) if turn.trained)
    return max(first - 1, 0)
