"""Games as the engine takes them, in either of ALFWorld's two grammars."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megatron_agent.environments.alfworld.engine import Game
from megatron_agent.environments.alfworld.room import Room, write_problem
from megatron_agent.environments.alfworld.wheel import domain_and_grammar
from megatron_agent.errors import UserError

GRAMMARS = ("put", "move")
"""`put a in/on b` up to alfworld 0.3 (AgentBench, AgentInstruct, AgentLM); `move a to b` from 0.4 on."""

_TEXTS = (
    ("put {o} in/on {r}", "move {o} to {r}"),
    ("You put the {o.name} in/on the {r.name}.", "You move the {o.name} to the {r.name}."),
    ("You arrive at {lend.name}.", "You arrive at {r.name}."),
)
"""All that differs between the two grammars' texts (AgentBench `data/alfworld/logic` against alfworld 0.4.2)."""


def game_of_room(room: Room, grammar: str) -> Game:
    """Return the game of a room, with the domain and grammar of the installed package."""
    domain, text = domain_and_grammar()
    return in_grammar(Game(domain, text.replace("UNKNOWN GOAL", room.instruction), write_problem(room)), grammar)


def read_game(path: Path, grammar: str) -> Game:
    """Return the game of a `game.tw-pddl` file, which carries its own domain and grammar."""
    record = read_game_record(path)
    return in_grammar(Game(record["pddl_domain"], record["grammar"], record["pddl_problem"]), grammar)


def read_game_record(path: Path) -> dict[str, Any]:
    """Return the JSON object of a `game.tw-pddl` file. Raises UserError naming the file and what is wrong with it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); fetch it again with alfworld-download") from error
    for key in ("pddl_domain", "grammar", "pddl_problem"):
        if not isinstance(record, dict) or not isinstance(record.get(key), str):
            raise UserError(f'{path}: expected a game of ALFWorld with a text under "{key}"; it has none')
    return record


def in_grammar(game: Game, grammar: str) -> Game:
    """Return the game with the commands and feedback of `grammar` (put or move).

    In `put` the command `help`, which alfworld 0.4 added, is taken away.
    """
    old, new = (1, 0) if grammar == "put" else (0, 1)
    text = game.grammar
    for pair in _TEXTS:
        text = text.replace(pair[old], pair[new])
    domain = _without_action(game.pddl_domain, "help") if grammar == "put" else game.pddl_domain
    return Game(domain, text, game.pddl_problem)


def commands_in_grammar(commands: Sequence[str], grammar: str) -> list[str]:
    """Return commands in `grammar`, whichever they were written in."""
    if grammar == "put":
        return [re.sub(r"^move (.+) to (.+)$", r"put \1 in/on \2", command) for command in commands]
    return [re.sub(r"^put (.+) in/on (.+)$", r"move \1 to \2", command) for command in commands]


def _without_action(domain: str, name: str) -> str:
    """Cut `(:action name ...)` out of a PDDL domain."""
    start = domain.find(f"(:action {name}")
    if start < 0:
        return domain
    depth, end = 0, start
    for end in range(start, len(domain)):
        depth += {"(": 1, ")": -1}.get(domain[end], 0)
        if not depth:
            break
    return domain[:start] + domain[end + 1 :]
