"""AgentTuning's ALFWorld environment: at most 35 steps in a text game, ill-formed actions matched by BLEU."""

from collections.abc import Mapping, Sequence

from megatron_agent.environments.action_matching import match_action
from megatron_agent.environments.alfworld.engine import EnginePool, GameSession
from megatron_agent.environments.alfworld.task import AlfworldTask
from megatron_agent.environments.base import EnvironmentFault, Message, Observation, Status
from megatron_agent.errors import UserError

MAX_STEPS = 35
IDENTICAL_REPLIES = 3
"""So many identical replies in a row, the last at step 4 or later, lose the game."""
ENGINE_NOTHING, NOTHING = "Nothing happens.", "Nothing happened."
"""What the engine says to an impossible action, and what the instruction announces."""
FORMAT_REMINDER = f'{NOTHING} Your answer must hold a line "ACTION: your next action".'


class AlfworldEnvironment:
    """Plays :class:`AlfworldTask` episodes after AgentTuning's evaluator (`AgentBench.old/src/tasks/alfworld`).

    `prompts` are the messages before the task by category. With `show_actions` (prompt style `fixed`) every
    observation ends with what can be done next, an impossible action gets the words that the instruction announces, a
    reply without `ACTION:` is told so instead of matched, and the third identical reply still counts when it wins.
    Games run in the processes of `engines`.
    """

    def __init__(self, engines: EnginePool, prompts: Mapping[str, Sequence[Message]], show_actions: bool) -> None:
        self._engines = engines
        self._prompts = prompts
        self._show_actions = show_actions
        self._session: GameSession | None = None
        self._replies: list[str] = []

    def reset(self, task: AlfworldTask) -> list[Message]:
        """Load the game; return instruction, acknowledgement, the demonstration of its type, and the task.

        Raises EnvironmentFault when the engine fails or the file of the game can no longer be read.
        """
        self.close()
        try:
            game = task.game()
        except UserError as error:  # its file was right when the run began
            raise EnvironmentFault(str(error)) from error
        self._session = self._engines.open(game)
        self._replies = []
        state = self._session.state
        description = "\n".join(state.text.split("\n\n")[1:])  # behind the engine's greeting
        text = f"Here is your task. {description}{self._actions(state.admissible)}"
        return [*self._prompts[task.category], {"role": "user", "content": text}]

    def step(self, reply: str) -> Observation:
        """Send the reply's action to the game. Raises EnvironmentFault when the engine fails."""
        session = self._require_session()
        self._replies.append(reply)
        if self._show_actions and "ACTION:" not in reply:
            state, text = session.state, FORMAT_REMINDER
        else:
            action = find_action(reply)
            state = session.step(match_action(action, session.state.admissible) or action)
            text = clean_observation(state.text)
            if self._show_actions and text == ENGINE_NOTHING:
                text = NOTHING
        won_anyway = self._show_actions and state.won
        if self._repeated() and not won_anyway:
            return self._finish("repetition", 0.0)
        if state.won:
            return self._finish("completed", 1.0)
        if len(self._replies) >= MAX_STEPS:
            return self._finish("limit reached", 0.0)
        return Observation(text + self._actions(state.admissible), done=False)

    def stop(self, status: Status) -> Observation:
        """End the episode from outside; a game not won by now scores 0."""
        self._require_session()
        return self._finish(status, 0.0)

    def close(self) -> None:
        """Leave the game."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _require_session(self) -> GameSession:
        if self._session is None:
            raise RuntimeError("reset() must come before step() and stop()")
        return self._session

    def _repeated(self) -> bool:
        return len(self._replies) > IDENTICAL_REPLIES and len(set(self._replies[-IDENTICAL_REPLIES:])) == 1

    def _finish(self, status: Status, reward: float) -> Observation:
        self.close()
        return Observation("", done=True, reward=reward, status=status)

    def _actions(self, admissible: Sequence[str]) -> str:
        """Return the list of actions behind an observation.

        AgentBench v0.2 lists every `go to` in the newest message and strips the list from older ones. The history
        here only grows, so places, which never change, are not repeated.
        """
        if not self._show_actions:
            return ""
        return "\nAVAILABLE ACTIONS: " + ", ".join(
            ["go to ...", *(action for action in admissible if not action.startswith("go to "))]
        )


def find_action(reply: str) -> str:
    """Return the rest of the line after the first `ACTION:`, or the first line of a reply without one, lower-cased."""
    _, found, rest = reply.partition("ACTION:")
    action = rest.split("\n")[0] if found else reply
    return action.strip().lower().split("\n")[0]


def clean_observation(text: str) -> str:
    """Return the engine's text without `You arrive at loc N. `."""
    return text[text.find(". ") + 2 :] if text.startswith("You arrive at loc ") else text
