"""Episodes a second of the agent loop with its real client, against a local server that thinks for 50 ms.

    python -m tests.benchmarks.agent_loop_speed --json

An environment of 5 rounds that takes no time, a server process of its own: the ideal is concurrency / (5 * 50 ms)
episodes a second, and what is missing is the cost of the client and the loop, which one core has to carry. Exit
status 1 when a request takes more than `MAX_CPU_MS` of the core.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from megatron_agent.agents.client import OpenAIChatClient
from megatron_agent.agents.episode import play_many
from megatron_agent.environments.base import Message, Observation, Status

CONCURRENCIES = (1, 8, 32, 128)
ROUNDS, THINKING = 5, 0.05
MAX_CPU_MS = 8.0
"""At most this much time of a core a request: a bound that other programs on the machine do not move."""

REPLY = json.dumps(
    {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Action: go"}}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 3},
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(REPLY), REPLY)


@dataclass(frozen=True)
class Walk:
    """A task without content."""

    id: str
    category: str = "walk"


class Walking:
    """Says the same for `ROUNDS` rounds, in texts of a usual length."""

    def reset(self, task: Walk) -> list[Message]:
        self.round = 0
        text = "You walk through a house of many rooms. " * 20
        roles = ("user", "assistant", "user")
        return [{"role": role, "content": text} for role in roles]

    def step(self, reply: str) -> Observation:
        self.round += 1
        if self.round == ROUNDS:
            return Observation("", True, 1.0, "completed")
        return Observation("You are in another room. " * 10, False)

    def stop(self, status: Status) -> Observation:
        return Observation("", True, 0.0, status)

    def close(self) -> None:
        pass


def serve(ready: Connection) -> None:
    """Answer every request after `THINKING` seconds; send the port once listening."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line]
                await reader.readexactly(int(length))
                await asyncio.sleep(THINKING)
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def measure(base_url: str, concurrency: int, episodes: int) -> dict[str, float]:
    """Play `episodes` and return the speed, its share of the ideal, and what it cost."""
    client = OpenAIChatClient(base_url, "fake", retries=0)
    client.complete([{"role": "user", "content": "warm up"}])
    tasks = [Walk(str(number)) for number in range(episodes)]
    started, cpu = time.perf_counter(), time.process_time()
    played = list(play_many(tasks, Walking, client.for_task, concurrency))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    assert all(trajectory.reward == 1 for trajectory in played)
    speed = episodes / seconds
    return {
        "concurrency": concurrency,
        "episodes_per_second": round(speed, 2),
        "share_of_ideal": round(speed / (concurrency / (ROUNDS * THINKING)), 3),
        "cpu_ms_per_request": round(1000 * cpu_seconds / (episodes * ROUNDS), 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Measure every concurrency and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long to measure each (default: 4)")
    arguments = parser.parse_args()
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sender,), daemon=True)
    server.start()
    try:
        base_url = f"http://127.0.0.1:{receiver.recv()}/v1"
        rows: list[dict[str, Any]] = []
        for concurrency in CONCURRENCIES:
            ideal = concurrency / (ROUNDS * THINKING)
            episodes = max(concurrency, int(arguments.seconds * min(ideal, 60)))
            rows.append(measure(base_url, concurrency, episodes))
            if not arguments.json:
                print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    finally:
        server.terminate()
        server.join()
    if arguments.json:
        print(json.dumps({"rounds": ROUNDS, "thinking_seconds": THINKING, "measured": rows}))
    missed = [row for row in rows if row["cpu_ms_per_request"] > MAX_CPU_MS]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
