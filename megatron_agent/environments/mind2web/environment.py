"""Mind2Web as AgentBench plays it: one recorded step an episode, its element found by a tournament of questions."""

from collections.abc import Sequence

from megatron_agent.environments.base import EpisodeOver, Message, Observation, Status
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.mind2web.page import Dom
from megatron_agent.environments.mind2web.question import (
    GRAMMAR,
    LETTERS,
    NONE_OF_THE_ABOVE,
    Answer,
    AnswerError,
    ask,
    read_answer,
    read_answer_strictly,
)
from megatron_agent.environments.mind2web.scoring import score_step
from megatron_agent.environments.mind2web.task import Mind2WebTask
from megatron_agent.environments.mind2web.tournament import Tournament

PROMPT_STYLES = ("paper", "fixed")
MAX_ATTEMPTS = 3
"""Replies to one question in the style `fixed`; when none can be read, the question counts as answered A."""


class Mind2WebEnvironment:
    """Plays :class:`Mind2WebTask` episodes. Every question comes without memory of the others (`restart`).

    A step that cannot succeed (no right element among the candidates, or fewer than two of them) counts 0 and is not
    asked about, as in the released evaluator.
    """

    def __init__(self, demonstrations: Sequence[Message], prompt_style: str = "paper") -> None:
        check_choice("--prompt-style", prompt_style, PROMPT_STYLES)
        self.demonstrations = list(demonstrations)
        self.prompt_style = prompt_style
        self._task: Mind2WebTask | None = None
        self._dom: Dom | None = None

    def reset(self, task: Mind2WebTask) -> list[Message]:
        """Parse the step's page; return the demonstrations and the first question.

        Raises EpisodeOver for a step that cannot succeed.
        """
        self._task = task
        self._tournament = Tournament(task.candidates)
        batch = self._tournament.next_batch()
        if not task.gold or not batch:
            why = "it is the only candidate" if task.gold else "the right element is not among the candidates"
            note = {"role": "user", "content": f"Not asked: {why}.\nTask: {task.confirmed_task}"}
            raise EpisodeOver(self._finish("completed"), [note])
        self._dom = Dom(task.page.html, f"step {task.id}")
        return [*self.demonstrations, {"role": "user", "content": self._ask(batch)}]

    def step(self, reply: str) -> Observation:
        """Read the reply; go on to the next five candidates, or score the last choice."""
        if self._task is None:
            raise RuntimeError("reset() must come before step() and stop()")
        if self.prompt_style == "paper":
            answer = read_answer(reply)
        else:
            try:
                answer = read_answer_strictly(reply, len(self._choices))
            except AnswerError as error:
                self._attempts += 1
                if self._attempts < MAX_ATTEMPTS:
                    return Observation(f"The reply cannot be used: {error}.\n{GRAMMAR}", done=False)
                answer = Answer(NONE_OF_THE_ABOVE, "")
        index = LETTERS.index(answer.letter) - 1
        if 0 <= index < len(self._choices):  # a letter without a choice is A, as in AgentBench
            self._tournament.choose(self._choices[index].node_id, answer.action)
        batch = self._tournament.next_batch()
        if batch:
            return Observation(self._ask(batch), done=False, restart=True)
        return self._finish("completed" if self._tournament.prediction else "invalid action")

    def stop(self, status: Status) -> Observation:
        """End the episode from outside: the questions left count as answered A, as empty replies do in AgentBench."""
        if self._task is None:
            raise RuntimeError("reset() must come before step() and stop()")
        while self._tournament.next_batch():
            pass
        return self._finish(status)

    def close(self) -> None:
        """Let go of the page. Safe to call twice."""
        self._task = self._dom = None

    def _ask(self, batch: Sequence[str]) -> str:
        assert self._task is not None
        assert self._dom is not None
        page, self._choices = self._dom.show(batch)
        self._attempts = 0
        question = ask(page, self._task.confirmed_task, self._task.previous_actions, self._choices)
        return question + GRAMMAR if self.prompt_style == "fixed" else question

    def _finish(self, status: Status) -> Observation:
        assert self._task is not None
        prediction = None if status == "task error" else self._tournament.prediction
        scores = score_step(self._task, prediction)
        self.close()
        return Observation("", done=True, reward=scores["step_sr"], status=status, scores=scores)
