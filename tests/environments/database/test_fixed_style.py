"""What the fixed style mends of AgentBench's grammar."""

import pytest

from megatron_agent.environments.database import DatabaseEnvironment
from megatron_agent.environments.database.instructions import UNREADABLE
from tests.environments.database.episodes import answer, operation, question


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Action: Operation\n```sql\nSELECT 1\n```", "[(1,)]"),
        ("action:operation \r\n```SQL\r\nSELECT 1;\r\n```\r\n", "[(1,)]"),
        ("Action: Operation\n```\nSELECT 1\n```", "[(1,)]"),
        ("Action: Operation\n```sql\nSELECT 1", "[(1,)]"),  # cut off by the token limit
        ("Action: Operation ```sql SELECT 1```", "[(1,)]"),
        ("Action: Operation\n```sql\nSELECT 1 -- one\n+ 1\n```", "[(2,)]"),  # the comment ends with its line
        ("Action: Operation\n```sql\nSELECT 1\n```\nAction: Answer\nFinal Answer: [2]", "[(1,)]"),
        ("", UNREADABLE),
        ("SELECT 1", UNREADABLE),
        ("Action: Operation", UNREADABLE),
        ("Action: Operation\n```sql\n```", UNREADABLE),
        ("Action: Think", UNREADABLE),
        ("Action: Answer", UNREADABLE),
    ],
)
def test_fixed_style_reads_more_and_says_what_it_could_not(reply: str, text: str) -> None:
    environment = DatabaseEnvironment("fixed")
    environment.reset(question())
    observation = environment.step(reply)
    assert (observation.done, observation.text) == (False, text)


@pytest.mark.parametrize(
    "reply",
    [
        answer("[2]"),
        "Final Answer: 2",  # on the first line
        "Action: Answer Final Answer: [2]",
        "Action: Answer\nfinal answer: [\n  2.0\n]\n",
        'Action: Answer\nFinal Answer: ["2"]\nThat is all.',
    ],
)
def test_fixed_style_answers(reply: str) -> None:
    environment = DatabaseEnvironment("fixed")
    environment.reset(question())
    last = environment.step(reply)
    assert (last.done, last.reward, last.status) == (True, 1.0, "completed")


def test_fixed_style_counts_unreadable_replies() -> None:
    environment = DatabaseEnvironment("fixed", max_rounds=2)
    environment.reset(question())
    assert environment.step("what?").text == UNREADABLE
    assert environment.step(operation("SELECT 1")).text == "[(1,)]"
    last = environment.step("what?")
    assert (last.done, last.reward, last.status) == (True, 0.0, "limit reached")
    environment.reset(question())
    environment.step("what?")
    environment.step("what?")
    assert environment.step(answer("[2]")).reward == 1.0
