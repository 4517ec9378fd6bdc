"""One pool of engine processes for all tests, and a room small enough to load in a fraction of a second."""

from collections.abc import Iterator

import pytest

from megatron_agent.environments.alfworld.engine import EnginePool
from megatron_agent.environments.alfworld.room import Room


@pytest.fixture(scope="session")
def engines() -> Iterator[EnginePool]:
    """The real engine; skips where it is not installed."""
    pytest.importorskip("textworld", reason="pip install 'agentlm-megatron[alfworld]'")
    pytest.importorskip("fast_downward", reason="pip install 'agentlm-megatron[alfworld]'")
    pool = EnginePool(workers=2)
    yield pool
    pool.close()


@pytest.fixture
def small_room() -> Room:
    return Room(
        id="pick_and_place_simple-Apple-None-Fridge-1/trial_small",
        scene="FloorPlan1",
        task_type="pick_and_place_simple",
        goal={"object_target": "Apple", "parent_target": "Fridge", "toggle_target": ""},
        instruction="put some apple on fridge",
        start="loc|0|0|0|30",
        receptacles={
            "CounterTop|+00.10|+01.00|-01.00": "loc|1|2|0|30",
            "Fridge|-01.50|+00.00|-00.70": "loc|-4|3|3|30",
            "Drawer|+01.50|+00.40|+00.70": "loc|4|3|3|30",
        },
        objects={
            "Apple|+00.12|+01.10|-01.10": "CounterTop|+00.10|+01.00|-01.00",
            "Apple|+01.52|+00.45|+00.70": "CounterTop|+00.10|+01.00|-01.00",
            "Knife|+00.22|+01.10|-01.10": "CounterTop|+00.10|+01.00|-01.00",
        },
        walkthrough=(
            "go to countertop 1",
            "take apple 1 from countertop 1",
            "go to fridge 1",
            "open fridge 1",
            "move apple 1 to fridge 1",
        ),
    )
