"""AgentBench's Knowledge Graph environment: at most 15 turns of one call each, then a variable as the answer."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from megatron_agent.environments.base import EnvironmentFault, Message, Observation, Status
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.demonstrations import checked
from megatron_agent.environments.knowledge_graph import calls
from megatron_agent.environments.knowledge_graph.functions import NAMES, CallError, Functions, Outcome, Variable
from megatron_agent.environments.knowledge_graph.ontology import Ontology
from megatron_agent.environments.knowledge_graph.scoring import answer_scores
from megatron_agent.environments.knowledge_graph.store import QueryRefusedError, Store
from megatron_agent.environments.knowledge_graph.task import KnowledgeGraphTask

MAX_ROUNDS = 15
PROMPT_STYLES = ("paper", "fixed")
PROMPT = Path(__file__).with_name("prompt.json")

NO_CALL = "No executable function found! Need to recheck the action."
NOT_EXECUTED = "Function is not executed!"
NO_VARIABLE = "Invalid variable id! Need to recheck the action."


def load_prompt(path: Path = PROMPT) -> list[Message]:
    """Return the shipped instruction, acknowledgement and demonstration."""
    return checked(json.loads(path.read_text(encoding="utf-8")), str(path))


class KnowledgeGraphEnvironment:
    """Plays :class:`KnowledgeGraphTask` episodes over a store that others may share.

    A reply holds one `Action:` line with a call, or `Final Answer: #k`. A call that fails is told to the model and
    costs its turn. The answer is the set of entities or values that the variable's program gives.
    """

    def __init__(
        self,
        store: Store,
        ontology: Ontology,
        prompt_style: str = "paper",
        prompt: Sequence[Message] | None = None,
        max_rounds: int = MAX_ROUNDS,
    ) -> None:
        check_choice("--prompt-style", prompt_style, PROMPT_STYLES)
        self.store = store
        self.ontology = ontology
        self.style = prompt_style
        self.prompt = list(prompt) if prompt is not None else load_prompt()
        self.max_rounds = max_rounds
        self._task: KnowledgeGraphTask | None = None

    def reset(self, task: KnowledgeGraphTask) -> list[Message]:
        """Return the prompt and the question with the names of its entities."""
        self._task = task
        self._entities = dict(task.entities)
        self._functions = Functions(self.store, self.ontology, task.graph, self.style)
        self._variables: list[Variable] = []
        self._last_arguments: list[str] | None = None
        self._rounds = 0
        question = f"A new question: {task.question}\nEntities: [{', '.join(self._entities)}]"
        return [*(dict(message) for message in self.prompt), {"role": "user", "content": question}]

    def step(self, reply: str) -> Observation:
        """Run the reply's call, or its answer's program and end the episode.

        What follows an `Observation:` of the reply's own is neither read nor kept in the conversation.
        """
        if self._task is None:
            raise RuntimeError("reset() must come before step()")
        self._rounds += 1
        kept = calls.clean_reply(reply)
        observation = self._answer(kept)
        return observation if kept == reply else replace(observation, reply=kept)

    def stop(self, status: Status) -> Observation:
        """End the episode from outside: nothing was answered."""
        return self._finish(None, status)

    def close(self) -> None:
        """Forget the episode; the store belongs to the world."""
        self._task = None

    def _answer(self, reply: str) -> Observation:
        answer = calls.find_answer(reply)
        if answer is None:
            text = self._act(reply)
        elif 0 <= answer < len(self._variables):
            return self._finish(self._variables[answer], "completed")
        else:
            text = NO_VARIABLE
        if self._rounds >= self.max_rounds:
            return self._finish(None, "limit reached")
        return Observation(text, done=False)

    def _act(self, reply: str) -> str:
        """Run the first call of the action line that can be run, and return the feedback."""
        line = calls.find_action_line(reply)
        if line is None:
            return NO_CALL
        text = NOT_EXECUTED
        for name in calls.called_names(line):
            try:
                outcome = self._call(name, line)
            except (CallError, QueryRefusedError) as error:
                text = self._refusal(name, error)
                continue
            if outcome.variable is None:
                return outcome.text
            self._variables.append(outcome.variable)
            return outcome.text.replace("##", f"#{len(self._variables) - 1}")
        return text

    def _call(self, name: str, line: str) -> Outcome:
        if self.style == "fixed":
            self._last_arguments = None
        if name not in NAMES:
            raise CallError(f"There is no function {name}.")
        if self.style == "fixed":
            self._last_arguments = calls.split_whole_arguments(line, name, self._entities)
        else:
            self._last_arguments = calls.split_arguments(line, name)
        arguments = calls.resolve(self._last_arguments, self._variables, self._entities)
        return self._functions.call(name, arguments)

    def _refusal(self, name: str, error: Exception) -> str:
        """Say that a call failed.

        The released code names the arguments it parsed last, those of an earlier call when this one could not be
        parsed, and gives one reason for all that can go wrong with an intersection. The fixed style gives the reason.
        """
        if self._last_arguments is None:
            return (
                f"I may make a syntax error when calling {name} (e.g., unmatched parenthesis). "
                "I need to fix it and reuse the tool"
            ) + (f". {error}" if self.style == "fixed" else "")
        call = f"{name}({', '.join(self._last_arguments)}) cannot be executed."
        if self.style == "fixed":
            return f"{call} {error if isinstance(error, CallError) else 'The graph did not answer.'}"
        if name == "intersection":
            return (
                f"{call} The two variables are not of the same type. You may further explore them by call get_relations"
            )
        return f"{call} You may make a mistake and need to fix it."

    def _finish(self, answer: Variable | None, status: Status) -> Observation:
        task = self._task
        if task is None:
            raise RuntimeError("reset() must come before stop()")
        try:
            predicted = self._functions.members(answer) if answer is not None else ()
        except QueryRefusedError as error:
            raise EnvironmentFault(f"the answer's program could not be run: {error}") from error
        scores = answer_scores(predicted, task.answer)
        self.close()
        return Observation("", done=True, reward=scores["F1"], status=status, scores=scores)
