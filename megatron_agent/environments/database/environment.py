"""AgentBench's Database environment: at most 15 SQL operations, then an answer."""

from megatron_agent.environments.base import Message, Observation, Status
from megatron_agent.environments.database.backend import SqliteBackend, TableBackend
from megatron_agent.environments.database.scoring import answer_is_correct
from megatron_agent.environments.database.task import DatabaseTask
from megatron_agent.errors import UserError

MAX_ROUNDS = 15
ACKNOWLEDGEMENT = "Ok."

# The text of THUDM/AgentBench src/tasks/dbbench (Apache-2.0), as AgentInstruct's db split shows it.
_AGENTBENCH = """\
I will ask you a question, then you should help me operate a MySQL database with SQL to answer the question.
You have to explain the problem and your solution to me and write down your thoughts.
After thinking and explaining thoroughly, every round you can choose to operate or to answer.
your operation should be like this:
Action: Operation
```sql
SELECT * FROM table WHERE condition;
```
You MUST put SQL in markdown format without any other comments. Your SQL should be in one line.
Every time you can only execute one SQL statement. I will only execute the statement in the first SQL code \
block. Every time you write a SQL, I will execute it for you and give you the output.
If you are done operating, and you want to commit your final answer, then write down:
Action: Answer
Final Answer: ["ANSWER1", "ANSWER2", ...]
DO NOT write this pattern unless you are sure about your answer. I expect an accurate and correct answer.
Your answer should be accurate. Your answer must be exactly the same as the correct answer.
If the question is about modifying the database, then after done operation, your answer field can be anything.
If your response cannot match any pattern I mentioned earlier, you will be judged as FAIL immediately.
Your input will be raw MySQL response, you have to deal with it by yourself."""

_SHORT = """\
Answer the question with SQL on a MySQL table. Think, then operate:
Action: Operation
```sql
SELECT * FROM table;
```
or answer:
Action: Answer
Final Answer: ["ANSWER"]"""

INSTRUCTIONS = {"paper": _AGENTBENCH, "short": _SHORT}
"""Instruction texts by prompt style: AgentBench's own, and a short one for small models. The grammar is the same."""


class DatabaseEnvironment:
    """Plays :class:`DatabaseTask` episodes; the grammar, feedback and scoring are AgentBench v0.1's.

    A reply is `Action: Operation` and a fenced sql block, or `Action: Answer` and a line
    `Final Answer: [...]`. A reply that is neither ends the episode, as does one more operation after
    `max_rounds`.
    """

    def __init__(
        self,
        prompt_style: str = "paper",
        backend: TableBackend | None = None,
        max_rounds: int = MAX_ROUNDS,
    ) -> None:
        if prompt_style not in INSTRUCTIONS:
            raise UserError(f"--prompt-style: expected one of {', '.join(INSTRUCTIONS)}, got {prompt_style!r}")
        self.instruction = INSTRUCTIONS[prompt_style]
        self.backend = backend if backend is not None else SqliteBackend()
        self.max_rounds = max_rounds
        self._task: DatabaseTask | None = None
        self._rounds = 0

    def reset(self, task: DatabaseTask) -> list[Message]:
        """Create the task's table and return instruction, acknowledgement and question."""
        self.backend.create(task.table)
        self._task, self._rounds = task, 0
        return [
            {"role": "user", "content": self.instruction},
            {"role": "assistant", "content": ACKNOWLEDGEMENT},
            {"role": "user", "content": f"{task.question}\n{task.table_description}"},
        ]

    def step(self, reply: str) -> Observation:
        """Run the reply's SQL, or score its answer and end the episode."""
        action = find_action(reply)
        if action == "Operation" and self._rounds < self.max_rounds:
            sql = find_sql(reply)
            if sql is None:
                return self._finish("", "invalid format")
            self._rounds += 1
            return Observation(self.backend.execute(sql), done=False)
        answer = find_answer(reply)
        if answer is not None:
            return self._finish(answer, "completed")
        if action == "Operation":
            return self._finish("", "limit reached")
        return self._finish("", "invalid format" if action in (None, "Answer") else "invalid action")

    def stop(self, status: Status) -> Observation:
        """End the episode from outside; a modification is still scored by the table as it stands."""
        return self._finish("", status)

    def close(self) -> None:
        """Drop the table."""
        self.backend.close()
        self._task = None

    def _finish(self, answer: str, status: Status) -> Observation:
        task = self._task
        if task is None:
            raise RuntimeError("reset() must come before step() and stop()")
        if task.modifies:
            correct = self.backend.table_hash(task.table) == task.answer_md5
        else:
            correct = answer_is_correct(answer, task.label)
        self.close()
        return Observation("", done=True, reward=float(correct), status=status)


# The three finders give what AgentBench's patterns `Action: (.*?)\n`, "```sql\n([\s\S]*?)\n```" and
# `\nFinal Answer:(.*)` give, in time linear in the reply (the patterns are quadratic on hostile text).


def find_action(reply: str) -> str | None:
    """Return the first action of a reply: the rest of a line after `Action: `; a newline must follow it."""
    for line in reply.split("\n")[:-1]:
        _, found, action = line.partition("Action: ")
        if found:
            return action
    return None


def find_sql(reply: str) -> str | None:
    """Return the first fenced sql block, on one line, or None."""
    start = reply.find("```sql\n")
    end = reply.find("\n```", start + 7)
    if start < 0 or end < 0:
        return None
    return reply[start + 7 : end].strip().replace("\n", " ")


def find_answer(reply: str) -> str | None:
    """Return the text after the first `Final Answer:` that opens a line other than the first, or None."""
    for line in reply.split("\n")[1:]:
        if line.startswith("Final Answer:"):
            return line[len("Final Answer:") :]
    return None
