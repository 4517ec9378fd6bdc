"""Many episodes over a server that misbehaves at random, one that dies, and one that never answers."""

import hashlib
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from megatron_agent.agents.client import OpenAIChatClient
from megatron_agent.agents.episode import play_many
from megatron_agent.agents.trajectory import Trajectory
from megatron_agent.errors import UserError
from tests.agents.misbehaviour import BROKEN, HEAD, NO_COMPLETIONS, dripping, slow, status
from tests.agents.openai_server import openai_server
from tests.agents.walking import ON, Walk, Walking

TIMEOUT, RETRIES, ROOMS = 4.0, 2, 4
TOO_LONG = status(400, "This model's maximum context length is 4096 tokens")
FAULTS: dict[str, Any] = {
    **NO_COMPLETIONS,
    **BROKEN,
    "status 429 with Retry-After": status(429, Retry_After="0.05"),
    "slow": slow(TIMEOUT + 1),
    "dripping body": dripping(HEAD + b"Content-Length: 9999\r\n\r\n"),
}


def answer_of(prompt: str, attempt: int) -> str:
    """The name of what the server does at the n-th request for a prompt: the same in every run, whatever the order."""
    rng = random.Random(hashlib.sha256(f"{prompt}/{attempt}".encode()).digest())
    kind = rng.random()
    if kind < 0.55:
        return "good"
    if kind < 0.57:
        return "too long"
    if kind < 0.59:
        return rng.choice(["slow", "dripping body"])
    return rng.choice([name for name in FAULTS if name not in ("slow", "dripping body")])


def expected(task: Walk) -> tuple[str, int, int]:
    """Status, rounds and number of requests of an episode, from the rules of the client and the loop."""
    requests = 0
    for room in range(task.rooms):
        for attempt in range(RETRIES + 1):
            requests += 1
            name = answer_of(f"{task.id}: room {room}", attempt)
            if name == "too long":
                return "context limit", room, requests
            if name == "good":
                break
        else:
            return "task error", room, requests
    return "completed", task.rooms, requests


def test_every_episode_ends_with_a_status_and_none_is_lost() -> None:
    tasks = [Walk(f"walk {number}", ROOMS) for number in range(80)]
    attempts: Counter[str] = Counter()
    met: Counter[str] = Counter()
    lock = threading.Lock()

    def respond(body: dict[str, Any]) -> Any:
        prompt = body["messages"][-1]["content"]
        with lock:
            name = answer_of(prompt, attempts[prompt])
            attempts[prompt] += 1
            met[name] += 1
        return ON if name == "good" else TOO_LONG if name == "too long" else FAULTS[name]

    with openai_server(respond) as server:
        client = OpenAIChatClient(server.base_url, "m", timeout=TIMEOUT, retries=RETRIES, first_pause=0.01)
        played = {t.task_id: t for t in play_many(tasks, Walking, client.for_task, concurrency=16)}

    assert set(played) == {task.id for task in tasks}
    for task in tasks:
        status, rounds, requests = expected(task)
        trajectory = played[task.id]
        asked = sum(attempts[f"{task.id}: room {room}"] for room in range(ROOMS))
        assert (trajectory.status, trajectory.rounds, asked) == (status, rounds, requests), task.id
        assert (trajectory.error is None) == (status == "completed")
        assert trajectory.reward == {"completed": 1.0, "task error": 0.0}.get(status, rounds / ROOMS)
        assert trajectory.completion_tokens == (7 * rounds or None)
    statuses = Counter(trajectory.status for trajectory in played.values())
    assert min(statuses[name] for name in ("completed", "context limit", "task error")) >= 3
    assert set(met) >= {*FAULTS, "good", "too long"}, "every fault was met"


def test_a_server_that_dies_ends_the_run_and_loses_nothing() -> None:
    tasks = [Walk(f"walk {number}") for number in range(40)]
    delivered: list[Trajectory] = []
    ended: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "end":
            ended.append(event["task_id"])

    def run(played: Iterator[Trajectory], stop: Any) -> None:
        for trajectory in played:
            delivered.append(trajectory)
            if len(delivered) == 5:
                stop()

    with openai_server(lambda body: ON) as server:
        client = OpenAIChatClient(server.base_url, "m", retries=2, first_pause=0.02)
        played = play_many(tasks, Walking, client.for_task, concurrency=4, on_event=on_event)
        with pytest.raises(UserError, match="no OpenAI-compatible server answers"):
            run(played, server.stop)
    assert 5 <= len(delivered) < 40
    assert sorted(trajectory.task_id for trajectory in delivered) == sorted(ended), "what ended was delivered"
    assert {trajectory.status for trajectory in delivered} == {"completed"}

    remaining = [task for task in tasks if task.id not in ended]
    with openai_server(lambda body: ON) as server:
        client = OpenAIChatClient(server.base_url, "m")
        again = list(play_many(remaining, Walking, client.for_task, concurrency=4))
    assert len(again) + len(delivered) == 40


def test_ctrl_c_ends_requests_that_would_never_end() -> None:
    """One episode ends, seven wait for a server that does not answer; its time limits are minutes away."""
    waiting = threading.Semaphore(0)
    over, answered = threading.Event(), []

    def respond(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["content"].startswith("walk 0:"):
            return ON
        waiting.release()
        return answer_late

    def answer_late(handler: Any) -> None:
        over.wait(60)
        answered.append(over.is_set())

    environments: list[Walking] = []

    def make_environment() -> Walking:
        environments.append(Walking())
        return environments[-1]

    def interrupt() -> None:
        for _ in range(8):
            waiting.acquire()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    delivered: list[str] = []
    with openai_server(respond) as server:
        client = OpenAIChatClient(server.base_url, "m")
        tasks = [Walk(f"walk {number}") for number in range(40)]
        played = play_many(tasks, make_environment, client.for_task, concurrency=8)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            delivered.extend(trajectory.task_id for trajectory in played)
        assert not answered, "waited for the server"
        over.set()
    assert delivered == ["walk 0"]
    assert len(environments) == 9, "the eight at work and the one that ended; nothing more was started"
    assert all(environment.closed == 1 for environment in environments)
