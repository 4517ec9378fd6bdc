"""A furnished room with a goal, and the PDDL problem it stands for.

The compact form of a game: AI2-THOR ids, where things are, what is asked. ALFRED's files hold the same as PDDL text,
thirty times longer; the facts that follow from types (what can be opened, washed, heated, what fits where) come from
the `alfworld` package when the problem is written.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from megatron_agent.environments.alfworld.wheel import constants, goals

AGENT = "agent1"
_MANGLED = (("|", "_bar_"), ("-", "_minus_"), ("+", "_plus_"), (".", "_dot_"))
_PROPERTIES = (
    ("Cleanable", "cleanable"),
    ("Heatable", "heatable"),
    ("Coolable", "coolable"),
    ("Toggleable", "toggleable"),
    ("Sliceable", "sliceable"),
)
_DOMAIN_CONSTANTS = {"otype": ("Knife", "ButterKnife"), "rtype": ("SinkBasin", "Microwave", "Fridge")}


@dataclass(frozen=True)
class Room:
    """A game of one of ALFRED's six task types.

    Ids are AI2-THOR's (`Apple|-00.47|+01.15|+00.48`), locations ALFRED's (`loc|x|z|rotation|horizon`).
    `receptacles` maps ids to locations, `objects` ids to the receptacle that holds them, `opened` lists receptacles
    that stand open. `goal` has ALFRED's `object_target`, `parent_target` and `toggle_target`. `instruction` is the
    sentence after "Your task is to: ". `walkthrough` wins the game, in the commands of alfworld 0.4 (`move a to b`).
    """

    id: str
    scene: str
    task_type: str
    goal: Mapping[str, str]
    instruction: str
    start: str
    receptacles: Mapping[str, str]
    objects: Mapping[str, str]
    opened: tuple[str, ...] = ()
    walkthrough: tuple[str, ...] = ()


def room_to_record(room: Room) -> dict[str, Any]:
    """Return the JSON form of a room."""
    return asdict(room)


def room_from_record(record: dict[str, Any]) -> Room:
    """Return the room of a JSON record that :func:`room_to_record` made."""
    return Room(**{**record, "opened": tuple(record["opened"]), "walkthrough": tuple(record["walkthrough"])})


def type_of(thing: str) -> str:
    """Return the type of an AI2-THOR id; the basin of a sink or bathtub is a type of its own."""
    return thing.rsplit("|", 1)[1] if thing.endswith("Basin") else thing.split("|", 1)[0]


def write_problem(room: Room) -> str:
    """Return the room as a PDDL problem for alfworld's domain."""
    tables = constants()
    object_types = sorted({type_of(thing) for thing in room.objects})
    receptacle_types = sorted({type_of(thing) for thing in room.receptacles})
    locations = sorted({room.start, *room.receptacles.values()})
    declared = [f"{AGENT} - agent"]
    declared += [f"{mangle(location)} - location" for location in locations]
    declared += [f"{mangle(thing)} - object" for thing in sorted(room.objects)]
    declared += [f"{mangle(thing)} - receptacle" for thing in sorted(room.receptacles)]
    declared += [f"{name}Type - otype" for name in sorted({*object_types, *_DOMAIN_CONSTANTS["otype"]})]
    declared += [f"{name}Type - rtype" for name in sorted({*receptacle_types, *_DOMAIN_CONSTANTS["rtype"]})]
    facts = ["= (total-cost) 0", f"atLocation {AGENT} {mangle(room.start)}"]
    for kind in receptacle_types:
        fitting = sorted(tables.VAL_RECEPTACLE_OBJECTS[kind] & set(object_types))
        facts += [f"canContain {kind}Type {name}Type" for name in fitting]
    for thing, location in sorted(room.receptacles.items()):
        facts += [f"receptacleType {mangle(thing)} {type_of(thing)}Type"]
        facts += [f"receptacleAtLocation {mangle(thing)} {mangle(location)}"]
        if type_of(thing) in tables.OPENABLE_CLASS_SET:
            facts += [f"openable {mangle(thing)}"]
            facts += [f"opened {mangle(thing)}"] if thing in room.opened else []
    for thing, holder in sorted(room.objects.items()):
        facts += [f"{fact} {mangle(thing)}" for fact in _facts_of_type(type_of(thing))]
        facts += [f"objectType {mangle(thing)} {type_of(thing)}Type"]
        facts += [f"inReceptacle {mangle(thing)} {mangle(holder)}"]
        facts += [f"objectAtLocation {mangle(thing)} {mangle(room.receptacles[holder])}"]
    return (
        "(define (problem generated)\n(:domain alfred)\n(:objects\n"
        + "\n".join(declared)
        + "\n)\n(:init\n"
        + "\n".join(f"({fact})" for fact in facts)
        + "\n)\n"
        + _goal(room)
        + "\n"
    )


def mangle(name: str) -> str:
    """Return an id as PDDL can name it: letters for the marks, as ALFWorld's own files have them."""
    for mark, letters in _MANGLED:
        name = name.replace(mark, letters)
    return name


def is_portable(kind: str) -> bool:
    """Whether objects of a type can be picked up: everything alfworld lets some receptacle contain."""
    return any(kind in fitting for fitting in constants().VAL_RECEPTACLE_OBJECTS.values())


def _facts_of_type(kind: str) -> list[str]:
    tables = constants()
    facts = [fact for name, fact in _PROPERTIES if kind in tables.VAL_ACTION_OBJECTS[name]]
    if is_portable(kind):
        facts.append("pickupable")
    if kind in tables.MOVABLE_RECEPTACLES_SET:
        facts.append("isReceptacleObject")
    return facts


def _goal(room: Room) -> str:
    """Fill alfworld's template of the task type; it writes `#` for `-` and closes the problem's parenthesis."""
    template = str(goals()[room.task_type]["pddl"])
    return template.format(
        obj=room.goal["object_target"],
        recep=room.goal["parent_target"],
        toggle=room.goal["toggle_target"],
    ).replace("#", "-")
