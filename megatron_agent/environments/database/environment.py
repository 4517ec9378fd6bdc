"""AgentBench's Database environment: at most 15 SQL operations, then an answer."""

from collections.abc import Sequence

from megatron_agent.environments.base import EnvironmentFault, Message, Observation, Status
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.database.backend import SqliteBackend, TableBackend
from megatron_agent.environments.database.dialect.parsing import split_statements
from megatron_agent.environments.database.instructions import ACKNOWLEDGEMENT, INSTRUCTIONS, UNREADABLE
from megatron_agent.environments.database.replies import read_fixed_reply, read_paper_reply
from megatron_agent.environments.database.scoring import answer_is_correct, answer_says_the_same
from megatron_agent.environments.database.task import DatabaseTask

MAX_ROUNDS = 15


class DatabaseEnvironment:
    """Plays :class:`DatabaseTask` episodes; the grammar, feedback and scoring are AgentBench v0.1's.

    A reply is `Action: Operation` and a fenced sql block, or `Action: Answer` and a line
    `Final Answer: [...]`. A reply that is neither ends the episode, as does one more operation after
    `max_rounds`. In the `fixed` style it is told so and costs a round. `prompt` stands before the task instead of
    the style's instruction.
    """

    def __init__(
        self,
        prompt_style: str = "paper",
        backend: TableBackend | None = None,
        max_rounds: int = MAX_ROUNDS,
        prompt: Sequence[Message] | None = None,
    ) -> None:
        check_choice("--prompt-style", prompt_style, tuple(INSTRUCTIONS))
        self.fixed = prompt_style == "fixed"
        self.prompt = prompt or (
            {"role": "user", "content": INSTRUCTIONS[prompt_style]},
            {"role": "assistant", "content": ACKNOWLEDGEMENT},
        )
        self.backend = backend if backend is not None else SqliteBackend()
        self.max_rounds = max_rounds
        self._task: DatabaseTask | None = None
        self._rounds = 0

    def reset(self, task: DatabaseTask) -> list[Message]:
        """Create the task's table and return instruction, acknowledgement and question."""
        self.backend.create(task.table)
        self._task, self._rounds = task, 0
        question = {"role": "user", "content": f"{task.question}\n{task.table_description}"}
        return [*map(dict, self.prompt), question]

    def step(self, reply: str) -> Observation:
        """Run the reply's SQL, or score its answer and end the episode."""
        self._playing()
        may_operate = self._rounds < self.max_rounds
        move = read_fixed_reply(reply) if self.fixed else read_paper_reply(reply, may_operate)
        if move.action == "answer":
            return self._finish(move.text, "completed")
        if move.fault and not self.fixed:
            return self._finish("", move.fault)
        if not may_operate:
            return self._finish("", "limit reached")
        self._rounds += 1
        return Observation(UNREADABLE if move.fault else self.backend.execute(move.text), done=False)

    def stop(self, status: Status) -> Observation:
        """End the episode from outside; a modification is still scored by the table as it stands."""
        return self._finish("", status)

    def close(self) -> None:
        """Drop the table."""
        self.backend.close()
        self._task = None

    def _playing(self) -> DatabaseTask:
        if self._task is None:
            raise RuntimeError("reset() must come before step() and stop()")
        return self._task

    def _finish(self, answer: str, status: Status) -> Observation:
        task = self._playing()
        if task.modifies:
            reached = self.backend.table_hash(task.table)
            correct = reached == (task.answer_md5 or self._gold_hash(task))
        elif self.fixed:
            correct = answer_says_the_same(answer, task.label)
        else:
            correct = answer_is_correct(answer, task.label)
        self.close()
        return Observation("", done=True, reward=float(correct), status=status)

    def _gold_hash(self, task: DatabaseTask) -> str:
        """Return the hash of the table after the gold SQL, where the file gives none."""
        self.backend.create(task.table)
        for statement in split_statements(task.gold_sql or ""):
            result = self.backend.execute(statement)
            if not result.startswith("["):
                raise EnvironmentFault(f"task {task.id}: its gold SQL fails: {result}")
        return self.backend.table_hash(task.table)
