"""ALFWorld's tasks: the set shipped here, AgentBench's lists of games, or a folder of games."""

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from megatron_agent.environments.alfworld.engine import Game
from megatron_agent.environments.alfworld.game import commands_in_grammar, game_of_room, read_game, read_game_record
from megatron_agent.environments.alfworld.room import Room, room_from_record
from megatron_agent.errors import UserError
from megatron_agent.files import read_json_object

_LOG = logging.getLogger(__name__)

CATEGORIES = {
    "pick_and_place": "put",
    "pick_clean_then_place": "clean",
    "pick_heat_then_place": "heat",
    "pick_cool_then_place": "cool",
    "look_at_obj": "examine",
    "pick_two_obj": "puttwo",
}
"""What a game's name begins with, and AgentBench's key of its demonstration: the category of its task."""

GAME_FILE = "game.tw-pddl"
NOT_PLAYED = ("movable", "Sliced")
"""Parts of the names of games that ALFWorld itself leaves out: its text engine does not support them."""


@dataclass(frozen=True)
class AlfworldTask:
    """One game. `sha256` stands for its content; it is read from `path`, or made from `room`, when played."""

    id: str
    category: str
    grammar: str
    sha256: str
    path: Path | None = field(default=None, repr=False, compare=False)
    room: Room | None = field(default=None, repr=False, compare=False)

    def game(self) -> Game:
        """Return what the engine needs. Raises UserError when the file is gone, or no game any more."""
        if self.room is not None:
            return game_of_room(self.room, self.grammar)
        assert self.path is not None
        return read_game(self.path, self.grammar)

    def walkthrough(self) -> list[str]:
        """Return the commands that win, in the task's grammar. Raises UserError when the game carries none."""
        commands: object = self.room.walkthrough if self.room is not None else None
        if self.path is not None:
            commands = read_game_record(self.path).get("walkthrough")
        if not isinstance(commands, list | tuple) or not commands:
            raise UserError(
                f"{self.path}: this game carries no walkthrough, so there is no expert for it; the games of "
                "python -m data_prep.generate_alfworld_games and the shipped set carry theirs"
            )
        return commands_in_grammar([str(command) for command in commands], self.grammar)


def read_shipped(path: Path, grammar: str) -> list[AlfworldTask]:
    """Return the games of a file of rooms (JSONL), such as the one shipped here."""
    tasks = []
    for line in path.read_text(encoding="utf-8").splitlines():
        room = room_from_record(json.loads(line))
        digest = hashlib.sha256(line.encode()).hexdigest()
        tasks.append(AlfworldTask(room.id, category_of(room.task_type, str(path)), grammar, digest, room=room))
    return tasks


def read_game_list(path: Path, games: Path | None, grammar: str) -> list[AlfworldTask]:
    """Return the games that one of AgentBench's lists names: `{"pick_and_place": ["json_2.1.1/...", ...], ...}`.

    Paths are relative to `games`, ALFWorld's data folder. Raises UserError when that is not known, a path is named
    twice, or games are not there.
    """
    groups = read_json_object(path, 'AgentBench\'s lists hold {"pick_and_place": ["json_2.1.1/...", ...], ...}')
    names: list[str] = []
    for group, members in groups.items():
        if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
            raise UserError(f'{path}: group "{group}": expected a list of paths of games, got {str(members)[:60]!r}')
        names += members
    if not names:
        raise UserError(f'{path}: names no games; expected groups such as {{"pick_and_place": [...]}}')
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: names {twice} twice; leave one away")
    folder = _data_folder(path, games)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of its {len(names)} games are not in {folder}, first {missing[0]}; "
            "ALFWorld's games come with `alfworld-download`; --alfworld-games or $ALFWORLD_DATA names their folder"
        )
    return [_task(folder / name, name, grammar, f"{path}: {name}") for name in names]


def read_game_folder(folder: Path, grammar: str) -> list[AlfworldTask]:
    """Return every game below a folder in ALFWorld's layout (`.../<type>-<object>-.../<trial>/game.tw-pddl`).

    Those that ALFWorld leaves out (movable receptacles, sliced objects, not solvable) are left out here, and counted
    in a warning.
    """
    if not folder.is_dir():
        raise UserError(f"--alfworld-games {folder}: no such folder")
    paths = sorted(folder.rglob(GAME_FILE))
    tasks, left_out = [], 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if any(part in name for part in NOT_PLAYED) or not read_game_record(path).get("solvable"):
            left_out += 1
            continue
        tasks.append(_task(path, name, grammar, str(path)))
    if left_out:
        _LOG.warning("%s: %d of %d games left out, as ALFWorld does (see the docs)", folder, left_out, len(paths))
    if not tasks:
        raise UserError(
            f"--alfworld-games {folder}: holds no game to play ({GAME_FILE}); fetch ALFWorld's with "
            "`alfworld-download`, or make some with python -m data_prep.generate_alfworld_games"
        )
    return tasks


def category_of(name: str, where: str) -> str:
    """Return the category of a game by the beginning of its name. Raises UserError for an unknown one."""
    for prefix, category in CATEGORIES.items():
        if name.startswith(prefix):
            return category
    raise UserError(f"{where}: expected a game whose name begins with {', '.join(CATEGORIES)}, got {name!r}")


def _task(path: Path, name: str, grammar: str, where: str) -> AlfworldTask:
    folder = Path(name).parent
    if len(folder.parts) < 2:
        raise UserError(f"{where}: expected <type>-<object>-.../<trial>/{GAME_FILE}")
    category = category_of(folder.parts[-2], where)
    read_game_record(path)  # told before a run, not within it
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return AlfworldTask(folder.as_posix(), category, grammar, digest, path=path)


def _data_folder(path: Path, games: Path | None) -> Path:
    if games is not None:
        if not games.is_dir():
            raise UserError(f"--alfworld-games {games}: no such folder")
        return games
    variable = os.environ.get("ALFWORLD_DATA")
    if not variable:
        raise UserError(
            f"--tasks {path}: names games only; where they are say --alfworld-games DIR or $ALFWORLD_DATA (the "
            "folder that holds json_2.1.1; `alfworld-download` fills it)"
        )
    if not Path(variable).is_dir():
        raise UserError(f"$ALFWORLD_DATA {variable}: no such folder")
    return Path(variable)
