"""The ReAct loop: a model and an environment take turns until the episode ends."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from threading import Event, Lock
from typing import Any

from megatron_agent.agents.client import ChatClient, ContextLimitError, Reply, RequestError, Stoppable
from megatron_agent.agents.history import MAX_SEGMENTS, truncate_history
from megatron_agent.agents.record import EpisodeRecord, OnEvent
from megatron_agent.agents.trajectory import Trajectory
from megatron_agent.environments.base import (
    Environment,
    EnvironmentFault,
    EpisodeOver,
    Message,
    Observation,
    Task,
)


def play(
    environment: Environment,
    task: Task,
    client: ChatClient,
    *,
    system_prompt: str | None = None,
    repetition_limit: int = 0,
    max_segments: int = MAX_SEGMENTS,
    on_event: OnEvent | None = None,
) -> Trajectory:
    """Play one episode and return its trajectory; `on_event` hears of every message (:class:`EpisodeRecord`).

    The model sees the truncated history (`max_segments`, AgentBench's rule) behind `system_prompt`, if any.
    `repetition_limit` identical replies in a row end the episode (0: never; AgentTuning's collection of
    trajectories took 3). A request the server refuses, and an EnvironmentFault, end it with status `task error` and
    reward 0, whatever was done before; one that fails only in `close` leaves the score and is noted in `error`.

    A server that is not there raises UserError. Any other exception of an environment is a bug in it: it is raised
    as it is, with a note of the task, since an episode scored 0 for it would be taken for the model's failure.
    """
    record = EpisodeRecord(task, on_event)
    prefix: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []

    def ask(conversation: Sequence[Message]) -> Reply:
        return client.complete([*prefix, *truncate_history(conversation, max_segments)])

    try:
        observation = _take_turns(environment, task, ask, record, repetition_limit)
    except EnvironmentFault as fault:
        observation = Observation("", done=True, status="task error")
        record.note(_describe(fault))
    except Exception as error:
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"while playing task {task.id}, after {len(record.replies)} replies")
        raise
    finally:
        try:
            environment.close()
        except EnvironmentFault as fault:
            record.note(f"on closing the environment: {_describe(fault)}")
    return record.finish(observation)


def _take_turns(
    environment: Environment,
    task: Task,
    ask: Callable[[Sequence[Message]], Reply],
    record: EpisodeRecord,
    repetition_limit: int,
) -> Observation:
    """Play from reset to the observation that ends the episode."""
    try:
        context = environment.reset(task)
    except EpisodeOver as over:
        record.begin(over.messages)
        return over.observation
    record.begin(context)
    conversation = list(context)
    while True:
        try:
            reply = ask(conversation)
        except ContextLimitError as limit:
            record.note(str(limit))
            return environment.stop("context limit")
        except RequestError as failure:
            record.note(str(failure))
            # without scores: some tasks' measures are made of these, and what was reached by now must not count
            return replace(environment.stop("task error"), reward=0.0, scores={})
        record.add_reply(reply)
        observation = environment.step(reply.text)
        kept = reply.text if observation.reply is None else observation.reply
        if kept != reply.text:
            record.keep(kept)
        if not observation.done and _repeats(record.replies, repetition_limit):
            observation = environment.stop("repetition")
        if observation.done:
            return observation
        answer = {"role": "user", "content": observation.text}
        record.add(answer)
        if observation.restart:
            conversation = [*context[:-1], answer]
        else:
            conversation += [{"role": "assistant", "content": kept}, answer]


def play_many(
    tasks: Sequence[Any],
    make_environment: Callable[[], Environment],
    client_for: Callable[[Any], ChatClient],
    concurrency: int = 8,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Iterator[Trajectory]:
    """Play `tasks` in `concurrency` threads and yield trajectories as they finish (not in order).

    Each episode gets its own environment and the client that `client_for` gives for its task (a served model's
    `for_task`, an expert's knows its task). `on_event` hears of all episodes, from their threads, one call at a
    time. `options` go to :func:`play`.

    The first exception (a dead server, a bug, Ctrl-C while this waits) starts nothing more, gives up the requests
    under way (those of :class:`Stoppable` clients at once, others when they return), yields the episodes that ended
    all the same, and is then raised. Leaving the iterator early does the same and yields nothing more.
    """
    queue = iter(tasks)
    stopped = Event()
    running: dict[Future[Trajectory], ChatClient] = {}
    if on_event is not None:
        on_event = _one_at_a_time(on_event)

    def stop_all() -> None:
        stopped.set()
        for future, client in running.items():
            future.cancel()
            if isinstance(client, Stoppable):
                client.stop()

    with ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="episode") as pool:
        try:
            while True:
                while len(running) < concurrency and (task := next(queue, None)) is not None:
                    client = client_for(task)
                    arguments = (make_environment(), task, _StoppingClient(client, stopped))
                    running[pool.submit(play, *arguments, on_event=on_event, **options)] = client
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=_failed):  # what ended well is delivered before a failure is raised
                    del running[future]
                    yield future.result()
        except GeneratorExit:
            raise
        except BaseException:
            stop_all()
            wait(running)
            for future in running:
                if not _failed(future):
                    yield future.result()
            raise
        finally:
            stop_all()


class _StoppingClient:
    """Passes requests on until `stopped` is set."""

    def __init__(self, client: ChatClient, stopped: Event) -> None:
        self.client = client
        self.stopped = stopped

    def complete(self, messages: Sequence[Message]) -> Reply:
        if self.stopped.is_set():
            raise CancelledError
        return self.client.complete(messages)


def _failed(future: "Future[Trajectory]") -> bool:
    return future.cancelled() or future.exception() is not None


def _one_at_a_time(on_event: OnEvent) -> OnEvent:
    lock = Lock()

    def tell(event: dict[str, Any]) -> None:
        with lock:
            on_event(event)

    return tell


def _repeats(replies: Sequence[Reply], limit: int) -> bool:
    last = [reply.text for reply in replies[-limit:]] if limit else []
    return limit > 0 and len(last) == limit and len(set(last)) == 1


def _describe(fault: EnvironmentFault) -> str:
    return str(fault) or type(fault).__name__
