"""The episode loop: endings, what the model sees, what is recorded."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from megatron_agent.agents.client import ContextLimitError, Reply, RequestError, ScriptedClient
from megatron_agent.agents.episode import play, play_many
from megatron_agent.agents.trajectory import trajectory_to_conversation
from megatron_agent.chat.conversation import check_trainable, conversation_to_record, parse_conversation
from megatron_agent.environments.base import EnvironmentFault, EpisodeOver, Message, Observation
from megatron_agent.environments.database import DatabaseEnvironment, DatabaseTask, Table
from megatron_agent.environments.database.backend import SqliteBackend
from megatron_agent.errors import UserError
from tests.agents.walking import Walk, Walking

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


def test_a_task_error_carries_no_scores() -> None:
    """Mind2Web's measures are made of them: a step right so far is none when the server fails."""
    environment = Walking()
    environment.stop = lambda status: Observation(  # type: ignore[method-assign,assignment]
        "", done=True, reward=1.0, status=status, scores={"step_sr": 1.0}
    )
    assert play(environment, Walk("w"), Failing(ContextLimitError("4096"))).scores == {"step_sr": 1.0}
    assert play(environment, Walk("w"), Failing(RequestError("status 500"))).scores == {}


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


@pytest.mark.parametrize(
    ("where", "rounds", "messages", "status", "reward"),
    [
        ("reset", 0, 0, "task error", 0.0),
        ("step", 1, 4, "task error", 0.0),
        ("stop", 2, 6, "task error", 0.0),
        ("close", 2, 6, "repetition", 2 / 3),
    ],
)
def test_a_fault_of_the_machinery_is_a_task_error(
    where: str, rounds: int, messages: int, status: str, reward: float
) -> None:
    environment = Walking()

    def fail(*arguments: object) -> None:
        raise EnvironmentFault("the sandbox is gone")

    setattr(environment, where, fail)
    trajectory = play(environment, Walk("w"), ScriptedClient(lambda messages: "on"), repetition_limit=2)
    assert (trajectory.status, trajectory.reward, trajectory.rounds) == (status, reward, rounds)
    assert (len(trajectory.messages), trajectory.context_messages) == (messages, min(messages, 3))
    assert "the sandbox is gone" in (trajectory.error or "")
    assert environment.closed == (where != "close")


def test_both_failures_are_told_when_an_environment_cannot_be_stopped_either() -> None:
    environment = Walking()

    def fail(status: str) -> Observation:
        raise EnvironmentFault("the sandbox is gone")

    environment.stop = fail  # type: ignore[method-assign,assignment]
    trajectory = play(environment, Walk("w"), Failing(RequestError("status 500")))
    assert trajectory.error == "status 500; the sandbox is gone"


def test_a_bug_in_an_environment_is_seen() -> None:
    """Any other exception ends the run as it is, names the task, and closes the environment."""
    environment = Walking()

    def fail(reply: str) -> Observation:
        raise ZeroDivisionError("a bug")

    environment.step = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError) as error:
        play(environment, Walk("walk 7"), ScriptedClient(lambda messages: "on"))
    if sys.version_info >= (3, 11):
        assert error.value.__notes__ == ["while playing task walk 7, after 1 replies"]
    assert environment.closed == 1


class Counting:
    """Replies with counts, as a served model's are."""

    def complete(self, messages: Sequence[Message]) -> Reply:
        return Reply("on", 100, 7, cost=0.25, seconds=0.5, finish_reason="length" if len(messages) == 3 else "stop")


def test_counts_and_cost_of_an_episode() -> None:
    trajectory = play(Walking(), Walk("w"), Counting())
    assert (trajectory.prompt_tokens, trajectory.completion_tokens, trajectory.cost) == (300, 21, 0.75)
    assert trajectory.finish_reasons == {"length": 1, "stop": 2}
    assert trajectory.request_seconds == (0.5, 0.5, 0.5)
    unknown = play(Walking(), Walk("w"), ScriptedClient(lambda messages: "on"))
    assert (unknown.prompt_tokens, unknown.cost, unknown.finish_reasons) == (None, None, {})


def test_events_tell_the_episode_as_it_goes() -> None:
    events: list[dict[str, Any]] = []
    seen: list[int] = []

    class Watching(Counting):
        def complete(self, messages: Sequence[Message]) -> Reply:
            seen.append(len(events))
            return super().complete(messages)

    trajectory = play(Walking(), Walk("w"), Watching(), on_event=events.append)
    assert seen == [3, 5, 7], "every message was told before the next request"
    *messages, end = json.loads(json.dumps(events))
    assert [{"role": e["role"], "content": e["content"]} for e in messages] == list(trajectory.messages)
    assert [e["index"] for e in messages] == list(range(8))
    assert {e["event"] for e in messages} == {"message"}
    assert {e["task_id"] for e in events} == {"w"}
    times = [e["seconds"] for e in events]
    assert times == sorted(times)
    replies = [e for e in messages[3:] if e["role"] == "assistant"]
    assert [(e["prompt_tokens"], e["completion_tokens"], e["cost"]) for e in replies] == [(100, 7, 0.25)] * 3
    assert messages[0]["cost"] is None
    del end["seconds"]
    assert end == {
        "event": "end",
        "task_id": "w",
        "reward": 1.0,
        "status": "completed",
        "scores": {"rooms": 3},
        "rounds": 3,
        "prompt_tokens": 300,
        "completion_tokens": 21,
        "cost": 0.75,
        "error": None,
    }


def test_restarted_conversations_hold_the_context_and_the_new_question() -> None:
    """Mind2Web (environments.md, section 3): the history is reset at every call; the record keeps all."""
    seen: list[list[str]] = []

    class Restarting(Walking):
        def step(self, reply: str) -> Observation:
            return replace(super().step(reply), restart=True)

    def respond(messages: Sequence[Message]) -> str:
        seen.append([message["content"] for message in messages])
        return f"reply {len(seen)}"

    trajectory = play(Restarting(), Walk("w"), ScriptedClient(respond))
    assert seen == [["You walk through a house.", "Ok.", f"w: room {room}"] for room in range(3)]
    assert [m["content"] for m in trajectory.messages[2:]] == [
        "w: room 0", "reply 1", "w: room 1", "reply 2", "w: room 2", "reply 3",
    ]  # fmt: skip


class Cutting(Walking):
    """Keeps of a reply what stands before an "Observation:" of its own, as Knowledge Graph does."""

    def step(self, reply: str) -> Observation:
        return replace(super().step(reply), reply=reply.split("Observation:")[0])


def test_of_a_cut_reply_the_model_sees_what_was_kept_and_the_record_keeps_all() -> None:
    seen: list[list[str]] = []
    events: list[dict[str, Any]] = []
    replies = ["on\nObservation: a palace", "on", "Observation: the end"]

    def respond(messages: Sequence[Message]) -> str:
        seen.append([message["content"] for message in messages])
        return replies[len(seen) - 1]

    trajectory = play(Cutting(), Walk("w"), ScriptedClient(respond), on_event=events.append)
    assert seen[-1][2:] == ["w: room 0", "on\n", "w: room 1", "on", "w: room 2"]
    own = [message for message in trajectory.messages[3:] if message["role"] == "assistant"]
    assert [message["content"] for message in own] == replies
    assert [message.get("kept") for message in own] == ["on\n", None, ""]
    kept = [(e["index"], e["kept"]) for e in events if e["event"] == "kept"]
    assert kept == [(3, "on\n"), (7, "")]
    turns = trajectory_to_conversation(trajectory).turns
    assert [turn.value for turn in turns if turn.loss] == ["on\n", "on", ""]


def test_identical_replies_are_told_by_what_the_model_wrote() -> None:
    numbers = iter(range(9))
    other = play(Cutting(), Walk("w"), ScriptedClient(lambda m: f"on Observation: {next(numbers)}"), repetition_limit=2)
    same = play(Cutting(), Walk("w"), ScriptedClient(lambda m: "on Observation: 1"), repetition_limit=2)
    assert (other.status, same.status, same.rounds) == ("completed", "repetition", 2)
    assert [message.get("kept") for message in same.messages[3:]] == ["on ", None, "on "]


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "w: no way in"}]])
def test_an_episode_can_be_over_before_a_first_request(messages: list[Message]) -> None:
    class Closed(Walking):
        def reset(self, task: Walk) -> list[Message]:
            raise EpisodeOver(Observation("", True, 0.0, "completed", {"rooms": 0}), messages)

    environment, events = Closed(), list[dict[str, Any]]()
    trajectory = play(environment, Walk("w"), Failing(AssertionError("asked")), on_event=events.append)
    assert (trajectory.status, trajectory.reward, trajectory.scores) == ("completed", 0.0, {"rooms": 0})
    assert (trajectory.rounds, list(trajectory.messages), trajectory.context_messages) == (0, messages, len(messages))
    assert [event["event"] for event in events] == ["message"] * len(messages) + ["end"]
    assert environment.closed == 1


def test_an_episode_that_ends_while_the_run_fails_is_delivered() -> None:
    """One client meets a dead server while the other's last step is under way."""
    last_step, failed = threading.Event(), threading.Event()

    class SlowEnd(Walking):
        def step(self, reply: str) -> Observation:
            if self.task.id == "good":
                last_step.set()
                failed.wait(20)
                time.sleep(0.2)
            return super().step(reply)

    def respond_bad(messages: Sequence[Message]) -> str:
        last_step.wait(20)
        failed.set()
        raise UserError("no server")

    clients = {"good": ScriptedClient(lambda messages: "on"), "bad": ScriptedClient(respond_bad)}
    delivered: list[str] = []
    tasks = [Walk(name, rooms=1) for name in ("good", "bad", "never started")]
    played = play_many(tasks, SlowEnd, lambda task: clients[task.id], concurrency=2)
    with pytest.raises(UserError, match="no server"):
        delivered.extend(trajectory.task_id for trajectory in played)
    assert delivered == ["good"]


def test_events_of_many_episodes_come_one_at_a_time() -> None:
    busy, events = threading.Lock(), []

    def on_event(event: dict[str, Any]) -> None:
        assert busy.acquire(blocking=False), "two calls at once"
        time.sleep(0.001)
        events.append(event)
        busy.release()

    tasks = [Walk(str(number)) for number in range(12)]
    list(play_many(tasks, Walking, lambda _: ScriptedClient(lambda messages: "on"), 6, on_event=on_event))
    assert sum(event["event"] == "end" for event in events) == 12
    for task in tasks:
        assert [e["index"] for e in events if e["task_id"] == task.id and e["event"] == "message"] == list(range(8))


def test_a_listener_that_fails_ends_the_run() -> None:
    def on_event(event: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(play_many([Walk("w")], Walking, lambda _: ScriptedClient(lambda m: "on"), on_event=on_event))


def test_play_many_plays_all_at_once() -> None:
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
