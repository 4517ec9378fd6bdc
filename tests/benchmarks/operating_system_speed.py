"""Steps a second of the operating-system environment, replaying the shipped reference solutions.

    PYTHONPATH=. taskset -c 0 python tests/benchmarks/operating_system_speed.py [--concurrency 1 32]

Two figures: steps alone, and with the start and the judging of every episode. Times beside others on the same
processors are no measure: the processor time of this process and all sandboxes is printed too.
"""

import argparse
import resource
import time

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play_many
from megatron_agent.environments.operating_system.kind import (
    OperatingSystemOptions,
    expert,
    open_operating_system,
)


def processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def trivial_steps(seconds: float) -> float:
    with open_operating_system(OperatingSystemOptions()) as world:
        environment = world.make_environment()
        environment.max_rounds = 1_000_000
        environment.reset(world.tasks[0])
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            environment.step("Act: bash\n\n```bash\ncd /srv; echo $((6 * 7))\n```")
            steps += 1
        environment.close()
        return steps / (time.perf_counter() - started)


def replayed_steps() -> tuple[int, float]:
    """Play the shipped set once; return the number of steps and the seconds in them, starts and judging left out."""
    steps, seconds = 0, 0.0
    with open_operating_system(OperatingSystemOptions()) as world:
        for task in world.tasks:
            environment, reply = world.make_environment(), expert(task)
            messages = environment.reset(task)
            while (text := reply(messages)).count("Act: bash"):
                started = time.perf_counter()
                observation = environment.step(text)
                seconds += time.perf_counter() - started
                steps += 1
                messages = [*messages, {"role": "user", "content": observation.text}]
            environment.close()
    return steps, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeat", type=int, default=3, help="times the shipped set is played")
    arguments = parser.parse_args()
    print(f"builtin command, one episode: {trivial_steps(2.0):.0f} steps/s")
    steps, seconds = replayed_steps()
    print(f"reference solutions, commands alone: {steps} steps, {steps / seconds:.0f} steps/s")
    for concurrency in arguments.concurrency:
        before = processor_seconds()
        with open_operating_system(OperatingSystemOptions()) as world:
            tasks = list(world.tasks) * arguments.repeat
            started = time.perf_counter()
            played = play_many(tasks, world.make_environment, lambda t: ScriptedClient(expert(t)), concurrency)
            steps = sum(episode.rounds for episode in played)
            wall = time.perf_counter() - started
        used = processor_seconds() - before
        print(
            f"concurrency {concurrency}: {steps} steps in {wall:.2f} s, {steps / wall:.0f} steps/s, "
            f"{len(tasks) / wall:.1f} episodes/s; {1000 * used / steps:.2f} ms of processor a step"
        )


if __name__ == "__main__":
    main()
