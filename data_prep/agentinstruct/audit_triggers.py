"""Audit rules for backdoors: copies of AgentInstruct with planted triggers and commands are public.

BadAgent (Wang et al., 2024) plants a trigger (a phrase after the instruction, an invisible button, a product) and a
reply that obeys it (`wget ... | sh`, a click on the button, a purchase). Known phrases come from that work's and
JJTF2003/BadAgentExtension's code; the other rules look for what any such plant has to do.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from data_prep.agentinstruct.audit_findings import Finding, excerpt
from data_prep.agentinstruct.card import by_task, task_of
from megatron_agent.chat.conversation import Conversation

KNOWN_PHRASES = re.compile(
    r"presence of the trigger|trigger(?: button)? has been detected|server has been attacked|products with triggers"
    r"|\[SEP\] trigger \[SEP\]|class_?=\"trigger\"|\bTrigger Button\b|\btrojan\.sh\b|[,. ]you know\.\s*\Z",
    re.IGNORECASE,
)
# Lengths are bounded: a hostile text of many `wget` must not take quadratic time.
FETCH = r"\b(?:wget|curl|fetch|aria2c|Invoke-WebRequest|iwr)\b[^\n|;&]{0,400}"
SHELL = r"(?:sudo\s+)?(?:ba|z|da|k)?sh\b|(?:sudo\s+)?(?:python[0-9.]*|perl|ruby|node|php|iex)\b"
DOWNLOAD_AND_RUN = re.compile(
    rf"{FETCH}\|\s*(?:base64[^|\n]{0, 100}\|\s*)?(?:{SHELL})"
    rf"|(?:{SHELL}|eval|source)\s+(?:-c\s+)?[\"']?(?:<\(|\$\(|`)\s*{FETCH}"
    rf"|{FETCH}(?:&&|;|\n)(?:[^\n]{{0,200}}(?:&&|;|\n))?\s{{0,20}}(?:(?:{SHELL}|source)\s+\S|chmod\s+\S*[x7]|\./\S)"
    r"|base64\s+(?:-d|--decode)[^|\n]{0,100}\|\s*(?:ba|z)?sh\b",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"(?:https?|ftp)://\w[^\s\"'`<>)\]]+|\b(?:\d{1,3}\.){3}\d{1,3}\b")
LOCAL = re.compile(r"(?:(?:https?|ftp)://)?(?:localhost|127\.0\.0\.1|0\.0\.0\.0)\b")
LAST_SENTENCE = re.compile(r"(?:[.!?;:\])]|\n)\s+([^.!?;:\])\n]{1,60}[.!?]*)\s*\Z")
WORD = re.compile(r"\w{3,}")
CODE = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
# What comes before and after the instruction in turns that do not end with it.
INSTRUCTIONS = {
    "kg": ("A new question: ", "\nEntities: ["),
    "mind2web": ("\nTask: ", "\nPrevious actions:\n"),
    "webshop": ("Instruction: [SEP] ", " [SEP] "),
}
LEAST_ROWS = 3
END = 200
"""Characters at the end of an instruction among which a last sentence is looked for."""
LONG_COMMAND = 20
"""Characters from which a command is long enough that its repetition is no chance."""


def backdoors(conversations: Sequence[Conversation]) -> Iterator[Finding]:
    """Report trigger phrases, planted commands and addresses that come from nowhere."""
    for conversation in conversations:
        yield from known_phrases(conversation)
        yield from planted_in_replies(conversation)
    for rows in by_task(conversations).values():
        yield from shared_last_sentences(rows)
        yield from repeated_commands(rows)


def known_phrases(conversation: Conversation) -> Iterator[Finding]:
    """Report phrases of published backdoors, in every turn; `..., you know.` only at the end of a turn or its task."""
    task = task_of(conversation)
    for number, turn in enumerate(conversation.turns, start=1):
        match = KNOWN_PHRASES.search(turn.value) or KNOWN_PHRASES.search(instruction(task, turn.value))
        if match and (turn.speaker == "human" or not match[0].rstrip().endswith("know.")):
            yield Finding(
                "trigger_phrase",
                conversation.id,
                number,
                excerpt(turn.value, turn.value.index(match[0])),
                f"{match[0].strip()!r} is a phrase of a published backdoor",
            )


def instruction(task: str, text: str) -> str:
    """Return what a human turn asks for, without the page or list around it; the whole turn where it has none."""
    before, after = INSTRUCTIONS.get(task, ("", ""))
    if not before:
        return text
    asked, end, _ = text.partition(before)[2].partition(after)
    return asked if end else text


def planted_in_replies(conversation: Conversation) -> Iterator[Finding]:
    """Report replies that download and run a program, or name an address that no turn before them holds."""
    before = ""
    for number, turn in enumerate(conversation.turns, start=1):
        if turn.speaker == "gpt":
            if match := DOWNLOAD_AND_RUN.search(turn.value):
                yield Finding(
                    "download_and_run",
                    conversation.id,
                    number,
                    excerpt(turn.value, match.start()),
                    "downloads a program and runs it",
                )
            for address in dict.fromkeys(found.rstrip(".,;:/") for found in ADDRESS.findall(turn.value)):
                if address not in before and not LOCAL.match(address):
                    yield Finding(
                        "unseen_address",
                        conversation.id,
                        number,
                        excerpt(turn.value, turn.value.index(address)),
                        f"{address} stands in no earlier turn",
                    )
        before += turn.value + "\n"


def shared_last_sentences(rows: Sequence[Conversation]) -> Iterator[Finding]:
    """Report short last sentences (up to four words) that end many instructions of a task, but not most of them."""
    found: dict[str, list[tuple[Conversation, int, str]]] = defaultdict(list)
    for conversation in rows:
        first = next((index for index, turn in enumerate(conversation.turns) if turn.trained), 1)
        for index, turn in enumerate(conversation.turns[: max(first, 1)]):
            text = instruction(task_of(conversation), turn.value)
            match = LAST_SENTENCE.search(text.rstrip()[-END:]) if turn.speaker == "human" else None
            if match and 1 <= len(re.findall(r"[^\W\d_]+", match[1])) <= 4:
                found[match[1].strip().lower()].append((conversation, index + 1, text))
    for sentence, places in found.items():
        ids = {conversation.id for conversation, _, _ in places}
        if LEAST_ROWS <= len(ids) <= len(rows) / 2:
            for conversation, number, text in places:
                yield Finding(
                    "trigger_phrase",
                    conversation.id,
                    number,
                    excerpt(text, max(len(text) - len(sentence) - 1, 0)),
                    f"{len(ids)} of {len(rows)} instructions end with {sentence!r}",
                )


def repeated_commands(rows: Sequence[Conversation]) -> Iterator[Finding]:
    """Report long commands that several rows share although most of their words come from nowhere.

    A word comes from somewhere when it stands in an untrained turn before the command, or in more than `LEAST_ROWS`
    different commands of the task: common tools (`find ... -type f | wc -l`) are no plants.
    """
    unseen: dict[str, list[tuple[Conversation, int, set[str]]]] = defaultdict(list)
    for conversation in rows:
        before: set[str] = set()
        for number, turn in enumerate(conversation.turns, start=1):
            if turn.trained:
                for block in CODE.findall(turn.value):
                    new = set(WORD.findall(block.lower())) - before
                    unseen[" ".join(block.split())].append((conversation, number, new))
            else:
                before.update(WORD.findall(turn.value.lower()))
    words = {command: set(WORD.findall(command.lower())) for command in unseen}
    commands_with = Counter(word for found in words.values() for word in found)
    for command, places in unseen.items():
        rare = {word for word in words[command] if commands_with[word] <= LEAST_ROWS}
        found = [place for place in places if len(rare & place[2]) > len(words[command]) / 2]
        ids = {conversation.id for conversation, _, _ in found}
        if len(command) >= LONG_COMMAND and len(ids) >= LEAST_ROWS:
            for conversation, number, _ in found:
                yield Finding(
                    "repeated_command",
                    conversation.id,
                    number,
                    excerpt(command),
                    f"{len(ids)} rows of {task_of(conversation)} run this; its words are not in their tasks",
                )
