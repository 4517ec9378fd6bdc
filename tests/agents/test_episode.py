"""The episode loop: endings, what the model sees, what is recorded."""

import time
from collections.abc import Iterator, Sequence

import pytest

from megatron_agent.agents.client import ContextLimitError, Reply, RequestError, ScriptedClient
from megatron_agent.agents.episode import play, play_many
from megatron_agent.agents.trajectory import trajectory_to_conversation
from megatron_agent.chat.conversation import check_trainable, conversation_to_record, parse_conversation
from megatron_agent.environments.base import Message
from megatron_agent.environments.database import DatabaseEnvironment, DatabaseTask, Table
from megatron_agent.environments.database.backend import SqliteBackend
from megatron_agent.errors import UserError

TABLE = Table("people", ("name", "age"), (("Ada", "36"), ("Bob", "19")))
LOOK = "I look.\nAction: Operation\n```sql\nSELECT age FROM people\n```"
ANSWER = 'I know.\nAction: Answer\nFinal Answer: ["36", "19"]'


def task(number: int = 0) -> DatabaseTask:
    return DatabaseTask(f"t{number}", "Which ages?", "The table is people.", TABLE, "other", ("19", "36"))


def scripted(*replies: str) -> ScriptedClient:
    queue = iter(replies)
    return ScriptedClient(lambda messages: next(queue))


def test_an_episode_and_its_record() -> None:
    trajectory = play(DatabaseEnvironment("short"), task(), scripted(LOOK, ANSWER))
    assert (trajectory.reward, trajectory.status, trajectory.rounds) == (1.0, "completed", 2)
    assert trajectory.messages[4] == {"role": "user", "content": "[('36',), ('19',)]"}
    conversation = trajectory_to_conversation(trajectory, model="script")
    assert [turn.loss for turn in conversation.turns] == [None, False, None, True, None, True]
    assert [turn.speaker for turn in conversation.turns] == ["human", "gpt"] * 3
    assert (conversation.id, conversation.reward, conversation.task) == ("t0", 1.0, "other")
    check_trainable(conversation, "here")
    assert parse_conversation(conversation_to_record(conversation), "here") == conversation


def test_system_prompt_is_sent_but_not_recorded() -> None:
    seen: list[Sequence[Message]] = []

    def respond(messages: Sequence[Message]) -> str:
        seen.append(list(messages))
        return ANSWER

    trajectory = play(DatabaseEnvironment(), task(), ScriptedClient(respond), system_prompt="Be good.")
    assert seen[0][0] == {"role": "system", "content": "Be good."}
    assert len(seen[0]) == 4
    assert trajectory.messages[0]["role"] == "user"


def test_three_identical_replies_are_repetition() -> None:
    trajectory = play(DatabaseEnvironment(), task(), scripted(*[LOOK] * 9), repetition_limit=3)
    assert (trajectory.status, trajectory.rounds, trajectory.reward) == ("repetition", 3, 0.0)
    other = LOOK.replace("look", "think")
    trajectory = play(
        DatabaseEnvironment(), task(), scripted(LOOK, LOOK, other, LOOK, LOOK, ANSWER), repetition_limit=3
    )
    assert (trajectory.status, trajectory.rounds) == ("completed", 6)


def test_without_repetition_limit_the_environment_decides() -> None:
    trajectory = play(DatabaseEnvironment(), task(), scripted(*[LOOK] * 99))
    assert (trajectory.status, trajectory.rounds) == ("limit reached", 16)


def test_long_histories_are_cut_for_the_model_but_kept_in_the_record() -> None:
    rows = tuple((f"name {i}", str(i)) for i in range(100))
    long_task = DatabaseTask("t", "q", "d", Table("people", ("name", "age"), rows), "other", ("x",))
    seen: list[int] = []

    def respond(messages: Sequence[Message]) -> str:
        seen.append(len(messages))
        notice = "messages are omitted." in messages[0]["content"]
        assert notice == (len(messages) < 3 + 2 * (len(seen) - 1))
        if len(seen) == 12:
            return ANSWER
        return f"round {len(seen)}\nAction: Operation\n```sql\nSELECT * FROM people\n```"

    trajectory = play(DatabaseEnvironment(), long_task, ScriptedClient(respond))
    assert len(trajectory.messages) == 3 + 2 * 11 + 1
    assert max(seen) < 3 + 2 * 11


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def complete(self, messages: Sequence[Message]) -> Reply:
        raise self.error


def test_context_limit_and_task_error() -> None:
    trajectory = play(DatabaseEnvironment(), task(), Failing(ContextLimitError("4096")))
    assert (trajectory.status, trajectory.error, trajectory.rounds) == ("context limit", "4096", 0)
    trajectory = play(DatabaseEnvironment(), task(), Failing(RequestError("status 500")))
    assert (trajectory.status, trajectory.error, trajectory.reward) == ("task error", "status 500", 0.0)


def test_a_task_error_never_scores() -> None:
    """The table was changed as asked, then the server failed: AgentBench counts an error as a failure."""
    update = "UPDATE people SET age = '37' WHERE name = 'Ada'"
    changed = Table("people", ("name", "age"), (("Ada", "37"), ("Bob", "19")))
    backend = SqliteBackend()
    backend.create(changed)
    gold = DatabaseTask("u", "Make Ada 37.", "The table.", TABLE, "UPDATE", answer_md5=backend.table_hash(changed))
    for failure, reward in ((RequestError("status 500"), 0.0), (ContextLimitError("4096"), 1.0)):
        replies = iter([f"I change it.\nAction: Operation\n```sql\n{update}\n```"])

        def respond(messages: Sequence[Message], replies: Iterator[str] = replies, error: Exception = failure) -> str:
            for reply in replies:
                return reply
            raise error

        assert play(DatabaseEnvironment(), gold, ScriptedClient(respond)).reward == reward


def test_play_many_plays_all_at_once() -> None:
    import threading

    barrier = threading.Barrier(4, timeout=20)  # breaks unless four episodes are under way together

    def respond(messages: Sequence[Message]) -> str:
        barrier.wait()
        return ANSWER

    tasks = [task(i) for i in range(8)]
    played = list(play_many(tasks, DatabaseEnvironment, lambda _: ScriptedClient(respond), concurrency=4))
    assert sorted(t.task_id for t in played) == sorted(t.id for t in tasks)
    assert all(t.reward == 1 for t in played)


def test_play_many_ends_running_episodes_when_it_is_left() -> None:
    """Closing the iterator (as Ctrl-C does) must not wait for 15 rounds of every running episode."""
    requests: list[int] = []

    def respond(messages: Sequence[Message]) -> str:
        requests.append(len(messages))
        if len(messages) == 3 and len(requests) == 1:
            return ANSWER
        time.sleep(0.1)
        return LOOK

    played = play_many(
        [task(i) for i in range(9)], DatabaseEnvironment, lambda _: ScriptedClient(respond), concurrency=3
    )
    assert next(played).reward == 1
    played.close()  # type: ignore[attr-defined]
    assert len(requests) <= 6


def test_play_many_stops_at_a_dead_server() -> None:
    with pytest.raises(UserError, match="no server"):
        list(play_many([task(i) for i in range(50)], DatabaseEnvironment, lambda _: Failing(UserError("no server"))))
