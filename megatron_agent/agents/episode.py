"""The ReAct loop: a model and an environment take turns until the episode ends."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event
from typing import Any

from megatron_agent.agents.client import ChatClient, ContextLimitError, Reply, RequestError
from megatron_agent.agents.history import MAX_SEGMENTS, truncate_history
from megatron_agent.agents.trajectory import Trajectory, sum_known
from megatron_agent.environments.base import Environment, Message, Observation, Task


def play(
    environment: Environment,
    task: Task,
    client: ChatClient,
    *,
    system_prompt: str | None = None,
    repetition_limit: int = 0,
    max_segments: int = MAX_SEGMENTS,
) -> Trajectory:
    """Play one episode and return its trajectory.

    The model sees the truncated history (`max_segments`, AgentBench's rule) behind `system_prompt`, if any.
    `repetition_limit` identical replies in a row end the episode (0: never; AgentTuning's collection of
    trajectories took 3). A request the server refuses ends it with status `task error` and reward 0, whatever was
    done before; a server that is not there raises UserError.
    """
    started = time.monotonic()
    context = environment.reset(task)
    messages, conversation = list(context), list(context)
    prefix: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    replies: list[Reply] = []
    error: str | None = None
    try:
        while True:
            try:
                reply = client.complete([*prefix, *truncate_history(conversation, max_segments)])
            except ContextLimitError as limit:
                observation, error = environment.stop("context limit"), str(limit)
                break
            except RequestError as failure:
                observation, error = replace(environment.stop("task error"), reward=0.0), str(failure)
                break
            replies.append(reply)
            _append(messages, conversation, "assistant", reply.text)
            observation = environment.step(reply.text)
            if not observation.done and _repeats(replies, repetition_limit):
                observation = environment.stop("repetition")
            if observation.done:
                break
            if observation.restart:
                conversation = list(context[:-1])
            _append(messages, conversation, "user", observation.text)
    finally:
        environment.close()
    return _trajectory(task, messages, len(context), observation, replies, time.monotonic() - started, error)


def play_many(
    tasks: Sequence[Any],
    make_environment: Callable[[], Environment],
    client_for: Callable[[Any], ChatClient],
    concurrency: int = 8,
    **options: Any,
) -> Iterator[Trajectory]:
    """Play `tasks` in `concurrency` threads and yield trajectories as they finish (not in order).

    Each episode gets its own environment and the client that `client_for` gives for its task (a served model's is
    the same for all, an expert's knows its task). The first exception (a dead server, Ctrl-C) cancels what has not
    started, ends running episodes at their next request, and is raised. `options` go to :func:`play`.
    """
    queue = iter(tasks)
    stopped = Event()
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        running: set[Future[Trajectory]] = set()
        try:
            while True:
                while len(running) < concurrency and (task := next(queue, None)) is not None:
                    client = _StoppingClient(client_for(task), stopped)
                    running.add(pool.submit(play, make_environment(), task, client, **options))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            stopped.set()
            for future in running:
                future.cancel()


class _StoppingClient:
    """Passes requests on until `stopped` is set."""

    def __init__(self, client: ChatClient, stopped: Event) -> None:
        self.client = client
        self.stopped = stopped

    def complete(self, messages: Sequence[Message]) -> Reply:
        if self.stopped.is_set():
            raise CancelledError
        return self.client.complete(messages)


def _append(messages: list[Message], conversation: list[Message], role: str, text: str) -> None:
    messages.append({"role": role, "content": text})
    conversation.append(messages[-1])


def _repeats(replies: Sequence[Reply], limit: int) -> bool:
    last = [reply.text for reply in replies[-limit:]] if limit else []
    return limit > 0 and len(last) == limit and len(set(last)) == 1


def _trajectory(
    task: Task,
    messages: list[Message],
    context_messages: int,
    observation: Observation,
    replies: list[Reply],
    seconds: float,
    error: str | None,
) -> Trajectory:
    if observation.status is None:
        raise RuntimeError(f"the environment ended task {task.id} without a status")
    return Trajectory(
        task_id=task.id,
        category=task.category,
        messages=tuple(messages),
        context_messages=context_messages,
        reward=observation.reward,
        scores=dict(observation.scores),
        status=observation.status,
        rounds=len(replies),
        seconds=seconds,
        prompt_tokens=sum_known(reply.prompt_tokens for reply in replies),
        completion_tokens=sum_known(reply.completion_tokens for reply in replies),
        error=error,
    )
