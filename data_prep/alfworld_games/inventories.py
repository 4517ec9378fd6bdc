"""What stands in AI2-THOR's 120 rooms, as the `alfworld` package lists it."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from megatron_agent.environments.alfworld.room import type_of
from megatron_agent.environments.alfworld.wheel import alfworld_folder, constants

GRID = 0.25
"""Side of a cell of AI2-THOR's floor grid, in metres; ALFRED's locations count cells."""
STOVE_BURNERS = 4


@dataclass(frozen=True)
class Inventory:
    """A room: receptacles with their locations, where else one can stand, and the types of things in it."""

    scene: str
    receptacles: dict[str, str]
    free: tuple[str, ...]
    portable_types: tuple[str, ...]
    has_desk_lamp: bool


@cache
def scene_names(kind: str) -> tuple[str, ...]:
    """Return the rooms of a kind (Kitchen, LivingRoom, Bedroom, Bathroom), in order of number."""
    folder = alfworld_folder() / "gen" / "layouts"
    return tuple(
        f"FloorPlan{number}"
        for number in constants().SCENE_TYPE[kind]
        if (folder / f"FloorPlan{number}-openable.json").is_file()
    )


def read_inventory(scene: str) -> Inventory:
    """Read a room.

    alfworld lists the coordinates of most receptacles (`openable.json`) and the types of everything (`objects.json`).
    A receptacle of which only the type is known (toaster, towel holder, garbage can ...) gets a place of its own at
    one of the floor's cells, the same one every time.
    """
    import numpy as np

    tables = constants()
    layouts = alfworld_folder() / "gen" / "layouts"
    types: list[str] = _read_json(layouts / f"{scene}-objects.json")
    poses: dict[str, list[float]] = _read_json(layouts / f"{scene}-openable.json")
    receptacles = {_full_name(name): _location(pose) for name, pose in sorted(poses.items())}
    cells = sorted({(float(x), float(z)) for x, z in np.load(layouts / f"{scene}-layout.npy")})
    generator = random.Random(scene)
    generator.shuffle(cells)
    standing = {tuple(pose[:2]) for pose in poses.values()}
    cells = [cell for cell in cells if cell not in standing]
    known = {type_of(name) for name in receptacles}
    fixed = set(tables.VAL_RECEPTACLE_OBJECTS) - tables.MOVABLE_RECEPTACLES_SET
    for kind in sorted(fixed.intersection(types) - known):
        x, z = cells.pop()
        for number in range(STOVE_BURNERS if kind == "StoveBurner" else 1):
            place = _coordinates(x + 0.1 * number, 0.9, z + 0.5)
            receptacles[_full_name(f"{kind}|{place}")] = _location([x, z, 0, 30])
    portable = set().union(*tables.VAL_RECEPTACLE_OBJECTS.values())
    return Inventory(
        scene,
        receptacles,
        tuple(_location([x, z, 0, 30]) for x, z in cells),
        tuple(sorted(portable.intersection(types))),
        "DeskLamp" in types,
    )


def place_object(kind: str, holder: str, taken: Sequence[str], generator: random.Random) -> str:
    """Return an AI2-THOR id for a new object in `holder`: its type and coordinates nearby, unlike those `taken`."""
    x, y, z = (float(part) for part in re.findall(r"[+-]?\d+\.\d+", holder)[:3])
    while True:
        near = [value + generator.uniform(-0.3, 0.3) for value in (x, y, z)]
        name = f"{kind}|{_coordinates(*near)}"
        if name not in taken:
            return name


def _full_name(name: str) -> str:
    """Sinks and bathtubs hold things in their basin, whose id ends in its type."""
    kind = type_of(name)
    if kind in ("SinkBasin", "BathtubBasin") and not name.endswith(kind):
        return f"{name.replace(kind, kind.removesuffix('Basin'), 1)}|{kind}"
    return name


def _coordinates(*values: float) -> str:
    return "|".join(f"{value:+06.2f}" for value in values)


def _location(pose: Sequence[float]) -> str:
    x, z, rotation, horizon = pose
    return f"loc|{round(x / GRID)}|{round(z / GRID)}|{round(rotation / 90)}|{round(horizon)}"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
