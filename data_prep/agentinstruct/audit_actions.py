"""Audit rule `impossible_action`: replies that name a choice, button, entity, table or object that is not there."""

import re
from collections.abc import Callable, Iterator

from data_prep.agentinstruct.audit_findings import Finding, excerpt
from data_prep.agentinstruct.audit_mis_joined import NOT_SELECTABLE, NOT_TYPEABLE
from data_prep.agentinstruct.card import task_of
from data_prep.agentinstruct.mind2web_rows import NONE_OF_THE_ABOVE, element_of, parse_question, parse_reply
from data_prep.agentinstruct.replies import GRAMMARS, question_index
from data_prep.agentinstruct.webshop_pages import OPTION_NAMES, read_page
from megatron_agent.chat.conversation import Conversation, Turn

SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL | re.IGNORECASE)
TABLE = re.compile(
    r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?(?!SELECT\b|\()"
    r"(?:`?(?P<schema>\w+)`?\.)?(?:[`\"](?P<quoted>[^`\"]+)[`\"]|(?P<bare>\w+))",
    re.IGNORECASE,
)
ENTITIES = re.compile(r"^Entities: \[(.*)\]\s*$", re.MULTILINE)
KG_CALL = re.compile(r"^Action: *(get_relations|get_neighbors|get_attributes)\((.*)\)\s*$", re.MULTILINE)
VARIABLE = re.compile(r"#\d+")
OBJECT = re.compile(r"\b[a-z]+ \d+\b")
WORD = re.compile(r"[^\W_]+")


def impossible_actions(conversation: Conversation) -> Iterator[Finding]:
    """Report each trained reply whose action cannot be meant for what the turns before it show."""
    check = CHECKS.get(task_of(conversation))
    if check is None:
        return
    start = question_index(conversation)
    for index in range(start, len(conversation.turns)):
        turn = conversation.turns[index]
        if turn.trained:
            for why, piece in check(conversation.turns[start:index], turn.value):
                position = max(turn.value.find(piece), 0)
                yield Finding("impossible_action", conversation.id, index + 1, excerpt(turn.value, position), why)


def has_known_form(conversation: Conversation) -> bool:
    """Whether a webshop or kg row shows what its actions are checked against: WebShop's pages, a list of entities."""
    turns = conversation.turns[question_index(conversation) :]
    if task_of(conversation) == "kg":
        return ENTITIES.search(turns[0].value) is not None
    try:
        return all(read_page(turn.value) for turn in turns if turn.speaker == "human")
    except ValueError:
        return False


def check_mind2web(before: tuple[Turn, ...], reply: str) -> Iterator[tuple[str, str]]:
    """The letter is a choice, the action one of three, the element can take it, the value stands in task or page."""
    question = parse_question(before[-1].value)
    if question is None:
        return
    answer = parse_reply(reply)
    if answer.letter and answer.letter not in question.choices:
        yield f"choice {answer.letter} is not among {', '.join(question.choices)}", "Answer:"
    if answer.letter in ("", NONE_OF_THE_ABOVE):
        return
    if answer.action not in ("CLICK", "SELECT", "TYPE"):
        yield f"action {answer.action!r} is none of CLICK, SELECT, TYPE", "Action:"
    tag = element_of(question.choices.get(answer.letter, ""))
    if tag in {"SELECT": NOT_SELECTABLE, "TYPE": NOT_TYPEABLE}.get(answer.action, frozenset()):
        yield f"{answer.action} on a <{tag}>", "Action:"
    if answer.action in ("SELECT", "TYPE") and answer.value:
        words = {word.lower() for word in WORD.findall(answer.value)}
        there = {word.lower() for word in WORD.findall(before[-1].value)}
        if words and not words & there:
            yield f"no word of the value {answer.value!r} stands in task or page", "Value:"


def check_webshop(before: tuple[Turn, ...], reply: str) -> Iterator[tuple[str, str]]:
    """What is clicked can be clicked on the page; a search needs the search bar."""
    match = GRAMMARS["webshop"].action.search(reply)
    if match is None:
        return
    try:
        page = read_page(before[-1].value, OPTION_NAMES)
    except ValueError:
        return
    verb, _, value = match["action"][:-1].partition("[")
    if verb == "search" and not page.has_search_bar:
        yield "search on a page without a search bar", match["action"]
    elif verb == "click" and value.strip().lower() not in {*page.clickables, *page.option_segments}:
        yield f"{value!r} cannot be clicked on the page", match["action"]


def check_database(before: tuple[Turn, ...], reply: str) -> Iterator[tuple[str, str]]:
    """Of the tables that a statement names, at least one stands in an earlier turn of the user or was created."""
    block = SQL.search(reply)
    if block is None or re.match(r"\s*(SHOW|DESC|CREATE|WITH|EXPLAIN)\b", block[1], re.IGNORECASE):
        return
    tables = [
        match["quoted"] or match["bare"]
        for match in TABLE.finditer(block[1])
        if (match["schema"] or "").lower() != "information_schema"
    ]
    known = " ".join(turn.value for turn in before).lower()
    words = set(WORD.findall(known))
    if tables and not any(
        table.lower() in known or all(word in words for word in WORD.findall(table.lower())) for table in tables
    ):
        yield f"none of the tables {', '.join(tables)} stands in an earlier turn", tables[0]


def check_knowledge_graph(before: tuple[Turn, ...], reply: str) -> Iterator[tuple[str, str]]:
    """The entity is in the question's list, the relation in an observation, the variable made before."""
    match = KG_CALL.search(reply.replace("\\_", "_"))  # as the evaluator reads it
    listed = ENTITIES.search(before[0].value)
    if match is None or listed is None:
        return
    observed = "\n".join(turn.value for turn in before if turn.speaker == "human")
    entity, _, relation = match[2].rpartition(",") if match[1] == "get_neighbors" else (match[2], "", "")
    entity, relation = entity.strip(), relation.strip()
    if VARIABLE.fullmatch(entity):
        if f"variable {entity}," not in observed:
            yield f"variable {entity} was not made before", entity
    elif entity not in listed[1]:
        yield f"entity {entity!r} is not in the question's list", entity
    if relation and relation not in observed:
        yield f"relation {relation!r} stands in no observation", relation


def check_alfworld(before: tuple[Turn, ...], reply: str) -> Iterator[tuple[str, str]]:
    """Objects with their numbers, such as `laptop 1`, stand in an observation."""
    match = GRAMMARS["alfworld"].action.search(reply)
    if match is None:
        return
    observed = "\n".join(turn.value for turn in before if turn.speaker == "human")
    for name in OBJECT.findall(match["action"].lower()):
        if not re.search(rf"\b{name}\b", observed):
            yield f"{name!r} stands in no observation", match["action"].strip()


CHECKS: dict[str, Callable[[tuple[Turn, ...], str], Iterator[tuple[str, str]]]] = {
    "mind2web": check_mind2web,
    "webshop": check_webshop,
    "db": check_database,
    "kg": check_knowledge_graph,
    "alfworld": check_alfworld,
}
