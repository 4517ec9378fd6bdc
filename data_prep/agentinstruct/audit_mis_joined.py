"""Audit rule `mis_joined`: replies that belong to another row's page and task (AgentInstruct's mind2web split).

How well a reply fits a row is the information its words share with it: the sum of log((rows + 1) / (df + 1/2)) over
the distinct words of thought and value that stand in the row's task, previous actions or page, plus half of that for
words in the chosen element (the row's choice of the reply's letter), less a penalty for a letter that is no choice and
for typing into or selecting from an element that cannot be. df is the number of rows, or of replies if larger, that use
the word. A reply is flagged when it fits its own row less than `FIT` times as well as the better of (a) the row it fits
best and (b) a quarter of its own information, and the gap is at least `EVIDENCE` (natural logarithms). Part (b)
catches replies whose own row is not in the file.

The constants were chosen on one half of the websites of Mind2Web's sample and judged on the other
(tests/data_prep/agentinstruct/test_audit_mis_joined.py). The split was not fully blind: the forms of the test replies
and the method itself were settled with the figures of both halves in view. Words are what limits the rule: a
logistic regression on 14 features (fits, ranks, chosen element, kind of action), fitted on one half, found 0.81 of the
planted one-sentence replies of the other and 0.44 of those that only name the element, at precision 0.9 (measured once;
optimistic, since the threshold was read off the judged half).
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from data_prep.agentinstruct.audit_findings import Finding, excerpt
from data_prep.agentinstruct.mind2web_rows import NONE_OF_THE_ABOVE, element_of, parse_question, parse_reply
from data_prep.agentinstruct.replies import question_index
from megatron_agent.chat.conversation import Conversation

FIT = 0.55
EVIDENCE = 4.0
SHARE_EXPECTED = 0.25
LEAST_INFORMATION = 3.0
CHOSEN_ELEMENT_WEIGHT = 0.5
IMPOSSIBLE_PENALTY = 2.0
FEWEST_ROWS = 20
"""Below this there is too little to compare with, and the rule says nothing."""
NOT_SELECTABLE = frozenset({"input", "textarea", "a", "button", "img", "svg"})
NOT_TYPEABLE = frozenset({"select", "a", "button", "img", "svg"})
_STOP_WORDS = """
a an and are as at be been but by can could did do does for from had has have i if in into is it its me my need
needs next no not now of on one or other our out so some such that the their them then there these they this to up
use using want was we were what when where which while who will with would you your page webpage current previous
action actions step task click select type choose enter button element option should first located following based
analysis screenshot user website allow allows last list
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class JoinRow:
    """One row as sets of words."""

    conversation: Conversation
    reply_turn: int
    context: frozenset[str]
    choices: dict[str, tuple[frozenset[str], str]]
    """Letter to the words of the choice and its tag."""
    reply: frozenset[str]
    letter: str
    action: str


@dataclass(frozen=True)
class JoinResult:
    """What the rule says of a file."""

    findings: list[Finding]
    judged: int
    undecided: list[str]
    """Rows whose reply holds too little information to be flagged whatever its page is."""


def words_of(text: str) -> list[str]:
    """Return the words that tell one page from another: lower case, singular, no stop words, no element numbers."""
    words = []
    for word in re.findall(r"[^\W\d_]+|\d+", re.sub(r"\bid=\d+", "", text.lower())):
        if word in STOP_WORDS or (len(word) == 1 and not word.isdigit()):
            continue
        if len(word) > 3 and word.endswith("ies"):
            word = word[:-3] + "y"
        elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
            word = word[:-1]
        words.append(word)
    return words


def join_row(conversation: Conversation) -> JoinRow | None:
    """Return a mind2web row as words; None when its question has another form."""
    index = question_index(conversation)
    question = parse_question(conversation.turns[index].value)
    if question is None:
        return None
    reply = parse_reply(conversation.turns[index + 1].value)

    def visible(html: str) -> frozenset[str]:
        return frozenset(words_of(re.sub(r"</?[\w-]+", " ", html)))

    return JoinRow(
        conversation,
        index + 2,
        visible(question.page) | frozenset(words_of(question.task + " " + question.previous)),
        {letter: (visible(text), element_of(text)) for letter, text in question.choices.items()},
        frozenset(words_of(reply.thought + " " + reply.value)),
        reply.letter or NONE_OF_THE_ABOVE,
        reply.action,
    )


def fits(rows: Sequence[JoinRow]) -> Iterator[tuple[npt.NDArray[np.float64], float]]:
    """Yield for each reply how well it fits each row, [row], and its whole information."""
    in_rows = Counter(word for row in rows for word in row.context)
    in_replies = Counter(word for row in rows for word in row.reply)
    information = {
        word: math.log((len(rows) + 1) / (max(in_rows[word], in_replies[word]) + 0.5)) for word in in_rows | in_replies
    }
    contexts: dict[str, list[int]] = defaultdict(list)
    choices: dict[tuple[str, str], list[int]] = defaultdict(list)
    tags: dict[str, list[str | None]] = defaultdict(lambda: [None] * len(rows))
    for number, row in enumerate(rows):
        for word in row.context:
            contexts[word].append(number)
        for letter, (words, tag) in row.choices.items():
            tags[letter][number] = tag
            for word in words:
                choices[letter, word].append(number)

    @cache
    def impossible(letter: str, action: str) -> npt.NDArray[np.bool_]:
        tags_refused = {"SELECT": NOT_SELECTABLE, "TYPE": NOT_TYPEABLE}.get(action, frozenset())
        return np.array([tag is None or tag in tags_refused for tag in tags[letter]])

    for row in rows:
        fit = np.zeros(len(rows))
        for word in row.reply:
            fit[contexts.get(word, [])] += information[word]
        if row.letter != NONE_OF_THE_ABOVE:
            for word in row.reply & in_rows.keys():
                fit[choices.get((row.letter, word), [])] += CHOSEN_ELEMENT_WEIGHT * information[word]
            fit[impossible(row.letter, row.action)] -= IMPOSSIBLE_PENALTY
        yield fit, sum(information[word] for word in row.reply)


def find_mis_joined(conversations: Sequence[Conversation]) -> JoinResult:
    """Judge the mind2web rows of a file against each other; rows of another form are left out."""
    rows = [row for row in map(join_row, conversations) if row is not None]
    if len(rows) < FEWEST_ROWS:
        return JoinResult([], 0, [row.conversation.id for row in rows])
    findings, undecided = [], []
    for number, (row, (fit, whole)) in enumerate(zip(rows, fits(rows), strict=True)):
        own = fit[number]
        fit[number] = -np.inf
        best = int(fit.argmax())
        expected = max(fit[best], SHARE_EXPECTED * whole)
        if own < FIT * max(expected, LEAST_INFORMATION) and expected - own > EVIDENCE:
            answer = row.conversation.turns[row.reply_turn - 1].value
            why = f"fit {own:.1f} to its own page and task, "
            if fit[best] >= SHARE_EXPECTED * whole:
                why += f"{fit[best]:.1f} to those of {rows[best].conversation.id}"
            else:
                why += f"of {whole:.1f} in all"
            findings.append(
                Finding("mis_joined", row.conversation.id, row.reply_turn, excerpt(" ".join(answer.split())), why)
            )
        elif expected <= EVIDENCE:
            undecided.append(row.conversation.id)
    return JoinResult(findings, len(rows), undecided)
