"""The demonstrations that the evaluator shows before a task: WebShop one, ALFWorld one a game type, Mind2Web three.

The texts in `demonstrations/` are this project's own, in the grammar of AgentTuning's evaluator
(`AgentBench.old/src/tasks`). A folder with AgentBench's prompt files gives the paper's instead. The other tasks carry
theirs in their instruction (knowledge graph, operating system) or have none (database).
"""

import json
from pathlib import Path

from megatron_agent.chat.conversation import refuse_lone_surrogates
from megatron_agent.environments.base import Message
from megatron_agent.errors import UserError

FOLDER = Path(__file__).with_name("demonstrations")
FILES = {
    "alfworld": ("alfworld.json", "alfworld_multiturn_react.json"),
    "webshop": ("webshop.json",),
    "mind2web": ("mind2web.json", "llm_prompt_cot.json"),
}
"""The names under which a task's demonstrations are looked for: this project's, then AgentBench's."""
ALFWORLD_GAMES = ("put", "clean", "heat", "cool", "examine", "puttwo")
ALFWORLD_OPENING = "Here is one example.\n"
ROLES = {"user": "user", "agent": "assistant", "assistant": "assistant"}


def load_demonstrations(task: str, folder: str | Path | None = None) -> dict[str, list[Message]]:
    """Return a task's demonstrations, by game type for alfworld and under `""` for the others.

    Messages alternate user, assistant; the first user message of an alfworld game begins `Here is one example.` as
    the evaluator prefixes it. Raises `UserError` for a missing or malformed file.
    """
    where = Path(folder) if folder is not None else FOLDER
    names = FILES[task]
    path = next((where / name for name in names if (where / name).is_file()), None)
    if path is None:
        raise UserError(f"{where}: holds no demonstrations of {task}; expected a file {' or '.join(names)} there")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); expected demonstrations of {task}") from error
    if task != "alfworld":
        return {"": checked(data, f"{path}")}
    return alfworld_demonstrations(data, f"{path}")


def alfworld_demonstrations(data: object, where: str) -> dict[str, list[Message]]:
    """Return ALFWorld's demonstrations by game type, from a decoded prompt file; `UserError` names `where`."""
    if not isinstance(data, dict) or any(game not in data for game in ALFWORLD_GAMES):
        raise UserError(f'{where}: expected {{"{ALFWORLD_GAMES[0]}": [...]}} with keys {", ".join(ALFWORLD_GAMES)}')
    games = {}
    for game in ALFWORLD_GAMES:
        texts = data[game]
        if not isinstance(texts, list):
            raise UserError(
                f"{where}: {game}: expected a list of texts, user and agent in turn, got {str(texts)[:60]!r}"
            )
        messages = [{"role": ("user", "agent")[i % 2], "content": text} for i, text in enumerate(texts)]
        games[game] = checked(messages, f"{where}: {game}")
        games[game][0]["content"] = ALFWORLD_OPENING + games[game][0]["content"]
    return games


def checked(data: object, where: str) -> list[Message]:
    """Return messages of alternating roles; `UserError` names `where` and the first bad one.

    AgentBench's Mind2Web file ends with an empty user message, where the question goes; it is left out.
    """
    if not isinstance(data, list):
        raise UserError(f'{where}: expected a list of {{"role": ..., "content": ...}}, got {type(data).__name__}')
    if data and isinstance(data[-1], dict) and not data[-1].get("content"):
        data = data[:-1]
    messages = []
    for number, message in enumerate(data, start=1):
        role = ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        expected = ("assistant", "user")[number % 2]
        if role != expected or not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: message {number}: expected a text of role {expected}, got {str(message)[:60]!r}")
        refuse_lone_surrogates(text, f"{where}: message {number}")
        messages.append({"role": role, "content": text})
    if not messages or len(messages) % 2:
        raise UserError(f"{where}: expected pairs of user and assistant messages, got {len(messages)} messages")
    return messages
