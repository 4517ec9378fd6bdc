"""Games that the engine agrees can be won: generated, played by their walkthrough, kept or counted."""

from collections import Counter
from collections.abc import Iterator

from data_prep.alfworld_games.generator import TASK_TYPES, generate_room
from megatron_agent.environments.alfworld.engine import EnginePool
from megatron_agent.environments.alfworld.game import commands_in_grammar, game_of_room
from megatron_agent.environments.alfworld.room import Room
from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.errors import UserError

MOST_STEPS = 35
TRIES_A_GAME = 20


def generate_checked(count: int, seed: int, max_receptacles: int, discarded: Counter[str]) -> Iterator[Room]:
    """Yield `count` games of every task type, each won by its walkthrough in the engine, in at most 35 steps.

    The others are counted in `discarded` by reason. Raises UserError when no room is small enough, or 20 games in a
    row are discarded.
    """
    engines = EnginePool(workers=1)
    try:
        for task_type in TASK_TYPES:
            kept = tries = number = 0
            while kept < count:
                try:
                    room = generate_room(task_type, f"{seed} {number}", max_receptacles)
                except ValueError as error:
                    raise UserError(f"--max-receptacles {max_receptacles}: {error}; allow more") from error
                number += 1
                reason = play(room, engines)
                if reason is None:
                    kept, tries = kept + 1, 0
                    yield room
                    continue
                discarded[reason] += 1
                tries += 1
                if tries == TRIES_A_GAME:
                    raise UserError(f"{task_type}: {tries} games in a row discarded, the last: {reason}")
    finally:
        engines.close()


def play(room: Room, engines: EnginePool) -> str | None:
    """Play a room's walkthrough; return None when it wins with its last step, else what is wrong."""
    if len(room.walkthrough) > MOST_STEPS:
        return f"takes more than {MOST_STEPS} steps"
    try:
        session = engines.open(game_of_room(room, "put"))
    except EnvironmentFault as error:
        return str(error)
    try:
        for command in commands_in_grammar(room.walkthrough, "put"):
            if session.state.won:
                return "won before the last step"
            if command not in session.state.admissible:
                return f"not admissible: {command}"
            session.step(command)
    finally:
        session.close()
    return None if session.state.won else "not won"
