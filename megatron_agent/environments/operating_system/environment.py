"""AgentBench's Operating System environment: at most eight commands in a shell, and an answer."""

import re
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.environments.base import Message, Observation, Status
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.operating_system.grammar import Action, clean_output, feedback, find_action
from megatron_agent.environments.operating_system.sandbox import Sandbox, SandboxLost, SandboxProvider
from megatron_agent.environments.operating_system.task import Match, OperatingSystemTask
from megatron_agent.environments.prompts import read_prompt
from megatron_agent.errors import UserError

MAX_ROUNDS = 8
PROMPT_STYLES = ("paper", "fixed")
SHIPPED_PROMPT = Path(__file__).with_name("prompts.json")
NEW_PROBLEM = "Now, I will start a new problem in a new OS. My problem is:\n\n"
FORMAT_REMINDER = (
    "That is not one of the three actions. Write a line `Act: bash` and a block ```bash ... ``` with the commands, "
    "or a line `Act: finish`, or a line `Act: answer(...)`."
)
TIME_NOTICE = "\n[stopped after {seconds:g} seconds]"


class OperatingSystemEnvironment:
    """Plays :class:`OperatingSystemTask` episodes; grammar, feedback and judging are AgentBench v0.1's.

    Every episode has a sandbox of its own. A reply that is no action ends the episode (style `paper`) or is told
    and costs a round (`fixed`). The task is judged however the episode ends; a sandbox that went over its limits
    or destroyed itself ends it with status `invalid action` and reward 0.
    """

    def __init__(
        self,
        provider: SandboxProvider,
        prompt_style: str = "paper",
        prompt: Sequence[Message] | None = None,
        max_rounds: int = MAX_ROUNDS,
        command_seconds: float = 5.0,
    ) -> None:
        check_choice("--prompt-style", prompt_style, PROMPT_STYLES)
        self.provider = provider
        self.prompt_style = prompt_style
        self.prompt = list(prompt if prompt is not None else read_prompt(SHIPPED_PROMPT))
        self.max_rounds = max_rounds
        self.command_seconds = command_seconds
        self._task: OperatingSystemTask | None = None
        self._sandbox: Sandbox | None = None
        self._rounds = 0

    def reset(self, task: OperatingSystemTask) -> list[Message]:
        """Start a sandbox, prepare it as the task says, and return instruction, demonstration and problem.

        Raises EnvironmentFault when no sandbox starts. An init script's exit code does not matter, as in
        AgentBench v0.1: several end in a failing `su`.
        """
        self.close()
        self._sandbox, self._task, self._rounds = self.provider.start(task.image), task, 0
        try:
            for script in task.init:
                self._sandbox.run(script)
            if task.start is not None:
                self._sandbox.execute(task.start.code)
        except SandboxLost as lost:
            self.close()
            raise UserError(f"task {task.id}: its own init or start ended the sandbox: {lost}") from lost
        return [*self.prompt, {"role": "user", "content": NEW_PROBLEM + task.description}]

    def step(self, reply: str) -> Observation:
        """Run the reply's commands, or judge its answer and end the episode."""
        if self._sandbox is None:
            raise RuntimeError("reset() must come before step()")
        action = find_action(reply, self.prompt_style)
        if action is not None and action.kind == "commit":
            return self._finish(action.content, "completed")
        if action is None and self.prompt_style == "paper":
            return self._finish(None, "invalid format")
        self._rounds += 1
        try:
            text = self._run(action)
        except SandboxLost:
            return self._finish(None, "invalid action")
        if self._rounds >= self.max_rounds:
            return self._finish(None, "limit reached")
        return Observation(text, done=False)

    def stop(self, status: Status) -> Observation:
        """End the episode from outside; the machine is judged as it stands, without an answer."""
        if self._sandbox is None:
            raise RuntimeError("reset() must come before stop()")
        return self._finish(None, status)

    def close(self) -> None:
        """End the sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
        self._sandbox = self._task = None

    def _run(self, action: Action | None) -> str:
        assert self._sandbox is not None
        if action is None:
            return FORMAT_REMINDER
        execution = self._sandbox.execute(action.content or "")
        text = feedback(execution.output)
        if execution.timed_out and self.prompt_style == "fixed":
            text += TIME_NOTICE.format(seconds=self.command_seconds)
        return text

    def _finish(self, answer: str | None, status: Status) -> Observation:
        assert self._sandbox is not None
        assert self._task is not None
        try:
            passed = judge(self._task, self._sandbox, answer)
        except SandboxLost:
            passed = False
        self.close()
        return Observation("", done=True, reward=float(passed), status=status)


def judge(task: OperatingSystemTask, sandbox: Sandbox, answer: str | None) -> bool:
    """Return whether the answer, or the machine's state, is what the task asks for (AgentBench v0.1 `_judge`).

    Check scripts run in order; each gets the answer and the outputs of those before it; all must exit with 0.
    """
    if task.match is not None:
        return matches(task.match, answer)
    arguments = [str(answer)]
    for script in task.check:
        chosen = script if script is not None else task.example
        assert chosen is not None, "the loader refuses a null check without an example"
        execution = sandbox.run(chosen, arguments)
        if execution.exit_code != 0:
            return False
        arguments.append(execution.output)
    return True


def matches(match: Match, answer: str | None) -> bool:
    """Return whether an answer is the expected text or holds the regular expression; no answer never does."""
    if answer is None:
        return False
    text = answer.strip() if match.strip else answer
    if match.regex is not None:
        return re.search(match.regex, text) is not None
    return text == match.answer


def reference_answer(task: OperatingSystemTask, output: str) -> str:
    """Return the reply that ends a replayed reference solution, given its output.

    An answer has one line; a solution that prints several changed the machine, and ends with `finish`.
    """
    if task.match is not None and task.match.answer is not None:
        return f"Act: answer({task.match.answer})"
    answer = clean_output(output).strip()
    return f"Act: answer({answer})" if "\n" not in answer else "Act: finish"
