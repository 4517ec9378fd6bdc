"""Generate ALFWorld games in AI2-THOR's rooms, each one won by an expert in the real engine."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.errors import UserError, run_command


def generate_alfworld_games(
    count: int, seed: int, output: str | Path, max_receptacles: int = 100, rooms: str | Path | None = None
) -> dict[str, int]:
    """Write `count` games of each of the six task types below `output`, in the layout of ALFWorld's own.

    `<output>/<type>-<object>-None-<place>-<room>/<trial>/` holds `game.tw-pddl` (with its walkthrough) and
    `traj_data.json`. With `rooms` the games are also written there, in the compact form of the shipped set (JSONL).
    The same arguments give the same files. Returns counts: games kept, and discarded by reason. Raises UserError for
    bad arguments and a folder that already holds games.
    """
    from tqdm import tqdm

    from data_prep.alfworld_games.checked import generate_checked
    from data_prep.alfworld_games.generator import TASK_TYPES
    from megatron_agent.environments.alfworld.game import game_of_room
    from megatron_agent.environments.alfworld.room import room_to_record
    from megatron_agent.files import atomic_write, check_writable, write_json_lines

    if count < 1:
        raise UserError(f"--count: expected at least 1, got {count}")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output}: expected a new or empty folder; remove it or choose another")
    if rooms is not None:
        check_writable(rooms, "--rooms")
    discarded: Counter[str] = Counter()
    generated = generate_checked(count, seed, max_receptacles, discarded)
    kept = []
    for room in tqdm(generated, total=count * len(TASK_TYPES), desc="games", unit="game"):
        game = {
            **vars(game_of_room(room, "move")),
            "solvable": True,
            "walkthrough": list(room.walkthrough),
        }
        trajectory = {
            "task_id": room.id.split("/")[1],
            "task_type": room.task_type,
            "pddl_params": {**room.goal, "object_sliced": False},
            "scene": {"floor_plan": room.scene, "scene_num": int(room.scene.removeprefix("FloorPlan"))},
            "turk_annotations": {"anns": [{"task_desc": f"{room.instruction}.", "high_descs": []}]},
        }
        for name, content in (("game.tw-pddl", game), ("traj_data.json", trajectory)):
            with atomic_write(output / room.id / name) as handle:
                json.dump(content, handle)
        kept.append(room_to_record(room))
    if rooms is not None:
        write_json_lines(rooms, kept)
    return {"games": len(kept), "discarded": discarded.total(), **discarded}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the games."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.generate_alfworld_games",
        description="Generate ALFWorld games: AI2-THOR's rooms as the alfworld package lists them, furnished at "
        "random, with goals of ALFRED's six task types. TextWorld's engine plays each game's own solution; games it "
        "does not win are discarded and counted. --alfworld-games plays the folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="example: python -m data_prep.generate_alfworld_games --count 10 --seed 1 --output runs/alfworld_games",
    )
    parser.add_argument("--count", required=True, type=int, help="games of each of the six task types")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same files")
    parser.add_argument("--output", required=True, type=Path, help="folder, new or empty")
    parser.add_argument("--max-receptacles", type=int, default=100, help="rooms with more are not used (largest: 54)")
    parser.add_argument("--rooms", type=Path, help="also write the games in the compact form of the shipped set")
    arguments = parser.parse_args(argv)
    counts = generate_alfworld_games(
        arguments.count, arguments.seed, arguments.output, arguments.max_receptacles, arguments.rooms
    )
    print("\n".join(f"{name}: {number}" for name, number in counts.items()))


if __name__ == "__main__":
    run_command(main)
