"""A small world for tests of the loop: a walk of some rooms, won by walking on."""

from dataclasses import dataclass, field

from megatron_agent.environments.base import Message, Observation, Status

ON = "Thought: Go on.\nAction: on"


@dataclass(frozen=True)
class Walk:
    """A walk of `rooms` rounds."""

    id: str
    rooms: int = 3
    category: str = "walk"


@dataclass
class Walking:
    """Ends `completed` after the last room; every message names the task, the room is named in observations."""

    closed: int = field(default=0, init=False)

    def reset(self, task: Walk) -> list[Message]:
        self.task, self.room = task, 0
        return [
            {"role": "user", "content": "You walk through a house."},
            {"role": "assistant", "content": "Ok."},
            {"role": "user", "content": f"{task.id}: room 0"},
        ]

    def step(self, reply: str) -> Observation:
        self.room += 1
        if self.room == self.task.rooms:
            return Observation("", True, 1.0, "completed", {"rooms": self.room})
        return Observation(f"{self.task.id}: room {self.room}", False)

    def stop(self, status: Status) -> Observation:
        return Observation("", True, self.room / self.task.rooms, status)

    def close(self) -> None:
        self.closed += 1
