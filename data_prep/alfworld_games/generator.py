"""Games of ALFRED's six task types in real rooms, solvable by construction."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from data_prep.alfworld_games.inventories import Inventory, place_object, read_inventory, scene_names
from megatron_agent.environments.alfworld.room import Room, mangle, type_of
from megatron_agent.environments.alfworld.wheel import constants, goals

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
STATIONS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "clean", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "heat", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "cool", "Fridge"),
}
"""What the object of a task type must be, what is done to it, and where."""
LAMP_HOLDERS = ("Desk", "SideTable", "Dresser", "Shelf", "DiningTable", "CoffeeTable")
MOST_OF_A_TYPE = 3
OPEN_SHARE = 0.1
ATTEMPTS = 1000


def generate_room(task_type: str, seed: str, max_receptacles: int) -> Room:
    """Return a game of a task type in a room of at most `max_receptacles` receptacles; the same for the same seed.

    A room, a pair of object and place that it allows, and a position of everything in it are drawn at random; the
    object never starts at a place of the goal's type. Raises ValueError when no room is small enough.
    """
    generator = random.Random(f"{task_type} {seed}")
    kinds = sorted(constants().GOALS_VALID[task_type])
    for _ in range(ATTEMPTS):
        inventory = read_inventory(generator.choice(scene_names(generator.choice(kinds))))
        if len(inventory.receptacles) > max_receptacles:
            continue
        pairs = _possible_goals(inventory, task_type)
        if not pairs:
            continue
        target, parent = generator.choice(sorted(pairs))
        objects = _furnish(inventory, task_type, target, parent, generator)
        opened = tuple(
            thing
            for thing in inventory.receptacles
            if type_of(thing) in constants().OPENABLE_CLASS_SET and generator.random() < OPEN_SHARE
        )
        return _room(inventory, task_type, (target, parent), objects, opened, generator)
    raise ValueError(f"no room of {' or '.join(kinds)} has at most {max_receptacles} receptacles and suits {task_type}")


def _possible_goals(inventory: Inventory, task_type: str) -> list[tuple[str, str]]:
    """Pairs of an object's type and the type of its destination (the lamp, where it is looked at)."""
    tables = constants()
    present = {type_of(thing) for thing in inventory.receptacles}
    objects = [
        kind for kind in inventory.portable_types if any(kind in tables.VAL_RECEPTACLE_OBJECTS[r] for r in present)
    ]
    if task_type == "look_at_obj_in_light":
        lit = inventory.has_desk_lamp and present.intersection(LAMP_HOLDERS)
        return [(kind, "DeskLamp") for kind in objects if lit]
    places = present
    if task_type in STATIONS:
        required, _, station = STATIONS[task_type]
        if station not in present:
            return []
        objects = [kind for kind in objects if kind in tables.VAL_ACTION_OBJECTS[required]]
        places = present - {station}
    return [
        (kind, place)
        for kind in objects
        for place in places
        if kind in tables.VAL_RECEPTACLE_OBJECTS[place] and _holders(inventory, kind, without=place)
    ]


def _holders(inventory: Inventory, kind: str, without: str) -> list[str]:
    """Receptacles that can hold a type of object, those of one type left out."""
    fits = constants().VAL_RECEPTACLE_OBJECTS
    return [r for r in inventory.receptacles if kind in fits[type_of(r)] and type_of(r) != without]


def _furnish(
    inventory: Inventory, task_type: str, target: str, parent: str, generator: random.Random
) -> dict[str, str]:
    """Put one to three of every portable type somewhere; the target's never where the goal wants it."""
    objects: dict[str, str] = {}
    for kind in inventory.portable_types:
        holders = _holders(inventory, kind, without=parent if kind == target else "")
        if not holders:
            continue
        least = 2 if kind == target and task_type == "pick_two_obj_and_place" else 1
        for _ in range(generator.randint(least, MOST_OF_A_TYPE)):
            holder = generator.choice(holders)
            objects[place_object(kind, holder, list(objects), generator)] = holder
    if inventory.has_desk_lamp:
        stands = [thing for thing in inventory.receptacles if type_of(thing) in LAMP_HOLDERS]
        if stands:
            holder = generator.choice(stands)
            objects[place_object("DeskLamp", holder, list(objects), generator)] = holder
    return objects


def _room(
    inventory: Inventory,
    task_type: str,
    pair: tuple[str, str],
    objects: dict[str, str],
    opened: tuple[str, ...],
    generator: random.Random,
) -> Room:
    target, parent = pair
    looks = task_type == "look_at_obj_in_light"
    goal = {
        "object_target": target,
        "parent_target": "" if looks else parent,
        "toggle_target": parent if looks else "",
        "mrecep_target": "",
        "object_sliced": "",
    }
    template = generator.choice(list(goals()[task_type]["templates"]))  # type: ignore[call-overload]
    words = {"obj": target.lower(), "recep": goal["parent_target"].lower(), "toggle": goal["toggle_target"].lower()}
    number = inventory.scene.removeprefix("FloorPlan")
    trial = f"trial_G{generator.getrandbits(40):010X}"
    room = Room(
        id=f"{task_type}-{target}-None-{parent}-{number}/{trial}",
        scene=inventory.scene,
        task_type=task_type,
        goal=goal,
        instruction=template.format(**words),
        start=generator.choice(inventory.free),
        receptacles=inventory.receptacles,
        objects=objects,
        opened=opened,
    )
    return replace(room, walkthrough=tuple(_solve(room, generator)))


def _solve(room: Room, generator: random.Random) -> list[str]:
    """Return commands that win: fetch the object, treat it, bring it where it belongs."""
    names = names_in_game([*room.objects, *room.receptacles])
    targets = [thing for thing in room.objects if type_of(thing) == room.goal["object_target"]]
    wanted = 2 if room.task_type == "pick_two_obj_and_place" else 1
    closed = {
        thing
        for thing in room.receptacles
        if type_of(thing) in constants().OPENABLE_CLASS_SET and thing not in room.opened
    }
    commands: list[str] = []

    here = room.start

    def visit(receptacle: str, reach_in: bool = True) -> None:
        nonlocal here
        if room.receptacles[receptacle] != here:  # the engine has no command to go where one is
            commands.append(f"go to {names[receptacle]}")
            here = room.receptacles[receptacle]
        if reach_in and receptacle in closed:
            commands.append(f"open {names[receptacle]}")
            closed.remove(receptacle)

    destination = ""
    if room.goal["parent_target"]:
        destination = generator.choice(_of_type(room.receptacles, room.goal["parent_target"]))
    for thing in generator.sample(targets, wanted):
        visit(room.objects[thing])
        commands.append(f"take {names[thing]} from {names[room.objects[thing]]}")
        if room.task_type in STATIONS:
            _, verb, kind = STATIONS[room.task_type]
            station = generator.choice(_of_type(room.receptacles, kind))
            visit(station, reach_in=False)
            commands.append(f"{verb} {names[thing]} with {names[station]}")
        if destination:
            visit(destination)
            commands.append(f"move {names[thing]} to {names[destination]}")
        else:
            lamp = generator.choice(_of_type(room.objects, room.goal["toggle_target"]))
            visit(room.objects[lamp])
            commands.append(f"use {names[lamp]}")
    return commands


def names_in_game(things: Sequence[str]) -> dict[str, str]:
    """Return the names ALFWorld gives to ids: a word and a number, the highest number to the first id in order.

    The word is the id's own, not its type's: one bathtub of alfworld's rooms (FloorPlan420) has a sink's basin.
    """
    members: dict[str, list[str]] = {}
    for thing in sorted(things, key=lambda thing: mangle(thing).lower()):
        word = thing.split("|", 1)[0].lower() + ("basin" if thing.endswith("Basin") else "")
        members.setdefault(word, []).append(thing)
    return {thing: f"{word} {len(same) - place}" for word, same in members.items() for place, thing in enumerate(same)}


def _of_type(things: Iterable[str], kind: str) -> list[str]:
    return [thing for thing in things if type_of(thing) == kind]
