"""Grammar, feedback and scores as in AgentBench's task.py, its traps included; and the fixed style without them."""

from collections.abc import Sequence

import pytest

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play
from megatron_agent.environments.base import EnvironmentFault, Message, Observation
from megatron_agent.environments.knowledge_graph import (
    KnowledgeGraphEnvironment,
    KnowledgeGraphTask,
)
from megatron_agent.environments.knowledge_graph.ontology import Ontology
from megatron_agent.environments.knowledge_graph.store import QueryRefusedError, load_lines

NS = "http://rdf.freebase.com/ns/"
ONTOLOGY = Ontology(
    relations=frozenset({"film.film.starring", "film.film.director", "film.actor.film", "people.person.spouse"}),
    attributes=frozenset({"film.film.runtime", "people.person.born"}),
    domains={},
    ranges={
        "film.film.starring": "film.actor", "film.film.director": "people.person", "film.actor.film": "film.film",
        "people.person.spouse": "people.person", "film.film.runtime": "type.float",
        "people.person.born": "type.datetime",
    },
    supertypes={"film.actor": frozenset({"people.person"})},
)  # fmt: skip
TRIPLES = [
    ("m.f1", "film.film.starring", "m.a1"), ("m.f1", "film.film.starring", "m.a2"),
    ("m.f1", "film.film.director", "m.a1"), ("m.f2", "film.film.starring", "m.a2"),
    ("g.f3", "film.film.starring", "m.a3"), ("m.a1", "film.actor.film", "m.f1"), ("m.a2", "film.actor.film", "m.f1"),
    ("m.a2", "film.actor.film", "m.f2"), ("m.f1", "other.unknown.relation", "m.a3"),
]  # fmt: skip
LINES = [
    *(f"<{NS}{s}> <{NS}{p}> <{NS}{o}> ." for s, p, o in TRIPLES),
    f'<{NS}m.f1> <{NS}film.film.runtime> "95.5"^^<http://www.w3.org/2001/XMLSchema#float> .',
    f'<{NS}m.f2> <{NS}film.film.runtime> "120"^^<http://www.w3.org/2001/XMLSchema#float> .',
]
TASK = KnowledgeGraphTask(
    id="t",
    question="who plays in it?",
    category="grailqa",
    entities=(("First Film", "m.f1"), ("Second, the Sequel (Part 2)", "m.f2"), ("Third", "g.f3")),
    actions=(),
    answer=("m.a1", "m.a2"),
)


def started(style: str = "paper", task: KnowledgeGraphTask = TASK) -> KnowledgeGraphEnvironment:
    environment = KnowledgeGraphEnvironment(load_lines(LINES), ONTOLOGY, style)
    environment.reset(task)
    return environment


def say(environment: KnowledgeGraphEnvironment, *calls: str) -> str:
    text = ""
    for call in calls:
        text = environment.step(f"Thought: hm.\nAction: {call}").text
    return text


FIRST = ("get_relations(First Film)", "get_neighbors(First Film, film.film.starring)")


def test_an_episode() -> None:
    environment = KnowledgeGraphEnvironment(load_lines(LINES), ONTOLOGY)
    messages = environment.reset(TASK)
    assert [message["role"] for message in messages[-3:]] == ["user", "assistant", "user"]
    assert messages[-1]["content"] == (
        "A new question: who plays in it?\nEntities: [First Film, Second, the Sequel (Part 2), Third]"
    )
    assert "at most 15" in messages[0]["content"]
    assert say(environment, FIRST[0]) == "Observation: [film.film.director, film.film.starring]"
    assert say(environment, FIRST[1]) == "Observation: variable #0, which are instances of film.actor"
    assert say(environment, "count(#0)") == "Observation: variable #1, which is a number"
    assert say(environment, "get_relations(#0)") == "Observation: [film.actor.film]"
    assert say(environment, "get_relations(#1)") == "Observation: []"
    assert say(environment, "get_neighbors(#0, film.actor.film)") == (
        "Observation: variable #2, which are instances of film.film"
    )
    assert say(environment, "get_attributes(#2)") == "Observation: [film.film.runtime]"
    assert say(environment, "argmax(#2, film.film.runtime)") == (
        "Observation: variable #3, which are instances of film.film"
    )
    done = environment.step("Thought: I see.\nFinal Answer: #0")
    scores = {"F1": 1.0, "exact_match": 1.0, "executability": 1.0}
    assert done == Observation("", done=True, reward=1.0, status="completed", scores=scores)
    with pytest.raises(RuntimeError):
        environment.step("Final Answer: #0")
    environment.close()
    environment.close()


@pytest.mark.parametrize(
    ("before", "reply", "feedback"),
    [
        (FIRST[:1], "Action: get_neighbors(First Film, film.actor.film)",
         "get_neighbors(First Film, film.actor.film) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: get_neighbors(First Film, film.film.starring)",
         "get_neighbors(First Film, film.film.starring) cannot be executed. "
         "You may make a mistake and need to fix it."),
        ((), "Action: get_relations(Nobody)",
         "get_relations(Nobody) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: get_relations(Third)",  # the released pattern knows no g. ids
         "get_relations(Third) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: get_relations(Second, the Sequel (Part 2))",
         "get_relations(Second, the Sequel (Part 2) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: argmax(#0 , , ,x)",
         "argmax(#0, , , x) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: get_relations(#0)",
         "get_relations(#0) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: intersection(#0, #1)",
         "intersection(#0, #1) cannot be executed. The two variables are not of the same type. "
         "You may further explore them by call get_relations"),
        (FIRST, "Action: intersection(#0, First Film)",
         "intersection(#0, First Film) cannot be executed. The two variables are not of the same type. "
         "You may further explore them by call get_relations"),
        (FIRST, "Action: count(First Film)",
         "count(First Film) cannot be executed. You may make a mistake and need to fix it."),
        (FIRST, "Action: argmax(#0, people.person.born)",
         "argmax(#0, people.person.born) cannot be executed. You may make a mistake and need to fix it."),
        (FIRST, "Action: get_attributes(#0)", "Observation: []"),
        ((), "Action: get_relations(First Film",
         "I may make a syntax error when calling get_relations (e.g., unmatched parenthesis). "
         "I need to fix it and reuse the tool"),
        ((), "Action: get_facts(First Film)",
         "I may make a syntax error when calling get_facts (e.g., unmatched parenthesis). "
         "I need to fix it and reuse the tool"),
        # the arguments parsed last are named, whoever they belonged to
        (FIRST[:1], "Action: get_facts(#7)",
         "get_facts(First Film) cannot be executed. You may make a mistake and need to fix it."),
        ((), "Action: look around", "Function is not executed!"),
        ((), "I look around.", "No executable function found! Need to recheck the action."),
        ((), "action: get_relations(First Film)", "No executable function found! Need to recheck the action."),
        ((), "", "No executable function found! Need to recheck the action."),
        ((), "Final Answer: #0", "Invalid variable id! Need to recheck the action."),
        (FIRST, "Final Answer: #1", "Invalid variable id! Need to recheck the action."),
        ((), "Final Answer: #" + "9" * 5000, "Invalid variable id! Need to recheck the action."),
        # read as the released parser reads
        ((), "Action 1: get\\_relations(First Film)", "Observation: [film.film.director, film.film.starring]"),
        ((), "Action: nonsense(x) then get_relations(m.f2) and count(#0)", "Observation: [film.film.starring]"),
        ((), "Action: get_relations(m.f2)\nAction: get_relations(m.f1)", "Observation: [film.film.starring]"),
        ((), "Action: get_relations(m.f2)\nObservation: [x]\nFinal Answer: #0", "Observation: [film.film.starring]"),
        (FIRST, "Action: get_relations(variable #0)", "Observation: [film.actor.film]"),
        (FIRST, "Action: union(#0, #0)", "Observation: variable #1, which are instances of film.actor"),
        (FIRST, "Action: count(#0, #0)",
         "count(#0, #0) cannot be executed. You may make a mistake and need to fix it."),
    ],
)  # fmt: skip
def test_paper_feedback(before: tuple[str, ...], reply: str, feedback: str) -> None:
    environment = started()
    say(environment, *before)
    observation = environment.step(reply)
    assert (observation.text, observation.done) == (feedback, False)


@pytest.mark.parametrize(
    ("before", "call", "feedback"),
    [
        ((), "get_relations(Third)", "Observation: [film.film.starring]"),
        ((), "get_relations( First Film )", "Observation: [film.film.director, film.film.starring]"),
        ((), "get_relations(Second, the Sequel (Part 2))", "Observation: [film.film.starring]"),
        (("get_relations(Second, the Sequel (Part 2))",),
         "get_neighbors(Second, the Sequel (Part 2), film.film.starring)",
         "Observation: variable #0, which are instances of film.actor"),
        ((*FIRST, "get_neighbors(First Film, film.film.director)"), "intersection(#0, #1)",
         "Observation: variable #2, which are instances of film.actor"),
        ((*FIRST, "count(#0)"), "intersection(#0, #1)",
         "intersection(#0, #1) cannot be executed. The two variables are not of the same type: "
         "film.actor and type.int."),
        (FIRST[:1], "get_facts(#7)",
         "I may make a syntax error when calling get_facts (e.g., unmatched parenthesis). "
         "I need to fix it and reuse the tool. There is no function get_facts."),
        ((), "get_neighbors(First Film, film.film.starring)",
         "get_neighbors(First Film, film.film.starring) cannot be executed. "
         "Its relations were not listed; call get_relations on it first."),
    ],
)  # fmt: skip
def test_fixed_feedback(before: tuple[str, ...], call: str, feedback: str) -> None:
    environment = started("fixed")
    say(environment, *before)
    assert say(environment, call) == feedback


def test_intersection_of_unequal_types_is_refused_in_paper() -> None:
    environment = started()
    say(environment, *FIRST, "get_neighbors(First Film, film.film.director)")
    assert "not of the same type" in say(environment, "intersection(#0, #1)")


def test_answers_leave_out_entities_the_program_names() -> None:
    environment = started(task=KnowledgeGraphTask("t", "q", "c", (("First Film", "m.f1"),), (), ("m.f2",)))
    say(environment, *FIRST, "get_relations(#0)", "get_neighbors(#0, film.actor.film)")
    assert environment.step("Find Answer: #1").reward == 1.0  # m.f1 is a film of its actors too


def test_partial_answers() -> None:
    environment = started()
    say(environment, "get_relations(m.f2)", "get_neighbors(m.f2, film.film.starring)")
    done = environment.step("Final Answer: #0")
    assert done.reward == pytest.approx(2 / 3)
    assert done.scores == {"F1": pytest.approx(2 / 3), "exact_match": 0.0, "executability": 1.0}


def test_a_relation_must_be_listed_in_this_episode() -> None:
    environment = started()
    say(environment, FIRST[0])
    environment.reset(TASK)
    assert "cannot be executed" in say(environment, FIRST[1])


def test_fifteen_rounds() -> None:
    environment = started()
    for _ in range(14):
        assert not environment.step("Action: get_relations(m.f1)").done
    done = environment.step("Action: get_relations(m.f1)")
    assert (done.done, done.status, done.reward) == (True, "limit reached", 0.0)
    environment.reset(TASK)
    assert environment.stop("repetition").scores == {"F1": 0.0, "exact_match": 0.0, "executability": 0.0}


def test_hostile_replies() -> None:
    """Backtracking patterns would take hours here."""
    environment = started()
    say(environment, *FIRST)
    for _ in range(5):
        say(environment, "intersection(#0, #0)")
    for reply in (
        "Action: " + "a" * 300_000,
        "Action: " + "count(" * 50_000,
        "Action: count(" + " " * 300_000 + ")",
        "Action: count(" + "," * 300_000 + ")",
        "Action" * 50_000,
        "Action: get_relations(m.x> ?y . <http://x)",
        "Final Answer: #" * 20_000 + "\ud800",
    ):
        assert not environment.step(reply).done


def test_a_program_that_doubles_stays_small() -> None:
    environment = started()
    say(environment, *FIRST)
    for k in range(12):
        say(environment, f"intersection(#{k}, #{k})")
    assert environment.step("Final Answer: #12").reward == 1.0


@pytest.mark.parametrize("style", ["paper", "fixed"])
def test_what_a_reply_observes_itself_is_neither_read_nor_kept(style: str) -> None:
    """As the released loop does: the history gets the message that was cut."""
    replies = [
        "Action: get\\_relations(First Film)\nObservation: [a.b.c]\nFinal Answer: #0",
        "Action: get_neighbors(First Film, film.film.starring)",
        "Observation: variable #7\nFinal Answer: #7",
        "Final Answer: #0\nObservation: right!",
    ]
    seen: list[list[str]] = []

    def respond(messages: Sequence[Message]) -> str:
        seen.append([message["content"] for message in messages])
        return replies[len(seen) - 1]

    environment = KnowledgeGraphEnvironment(load_lines(LINES), ONTOLOGY, style, prompt=[])
    trajectory = play(environment, TASK, ScriptedClient(respond))
    assert (trajectory.status, trajectory.reward) == ("completed", 1.0)
    assert seen[-1][1:] == [
        "Action: get_relations(First Film)\n",
        "Observation: [film.film.director, film.film.starring]",
        replies[1],
        "Observation: variable #0, which are instances of film.actor",
        "",
        "No executable function found! Need to recheck the action.",
    ]
    assert trajectory.messages[-1]["kept"] == "Final Answer: #0\n"


class RefusingStore:
    def select(self, query: str) -> tuple[str, ...]:
        raise QueryRefusedError("status 500: Virtuoso S1T00 Error")


def test_a_refused_query_is_told_and_a_refused_answer_is_a_fault() -> None:
    environment = KnowledgeGraphEnvironment(RefusingStore(), ONTOLOGY)
    environment.reset(TASK)
    assert say(environment, "get_relations(m.f1)") == (
        "get_relations(m.f1) cannot be executed. You may make a mistake and need to fix it."
    )
    environment = started()
    say(environment, *FIRST)
    environment._functions._store = RefusingStore()
    with pytest.raises(EnvironmentFault, match="S1T00"):
        environment.step("Final Answer: #0")
