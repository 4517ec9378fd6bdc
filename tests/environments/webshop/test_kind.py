"""The world as the harness opens it: where goals come from, what is shared, what the scores say."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from megatron_agent.agents.client import ScriptedClient
from megatron_agent.agents.episode import play_many
from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.registry import get_task_kind
from megatron_agent.environments.task_kind import EpisodeScore, World
from megatron_agent.environments.webshop import TASK_KIND, WebShopOptions
from megatron_agent.environments.webshop.build import build_catalogue
from megatron_agent.environments.webshop.catalogue import Catalogue
from megatron_agent.environments.webshop.kind import CATALOGUE_NAME, webshop_scores
from megatron_agent.environments.webshop.search import LuceneSearch
from megatron_agent.errors import UserError
from tests.environments.webshop.shops import record, write_sources


def test_shipped_world(world: World) -> None:
    assert get_task_kind("webshop") is TASK_KIND
    assert len({task.id for task in world.tasks}) == len(world.tasks) == 240
    assert {task.category for task in world.tasks} == {"beauty", "electronics", "fashion", "garden", "grocery"}
    assert world.facts["search"] == "sqlite fts5"
    assert world.facts["title_words"] == "content words"
    assert len(str(world.facts["catalogue"])) == 64
    with TASK_KIND.open(WebShopOptions()) as again:
        assert repr(again.tasks) == repr(world.tasks)
        assert again.facts == world.facts


def test_32_experts_at_once(world: World) -> None:
    expert = TASK_KIND.expert
    assert expert is not None
    tasks = world.tasks[:96]
    played = list(play_many(tasks, world.make_environment, lambda task: ScriptedClient(expert(task)), concurrency=32))
    assert [trajectory.reward for trajectory in played] == [1.0] * 96


def test_splits_of_a_catalogue(tmp_path: Path) -> None:
    goals = {
        f"B{i:09}": [{"instruction": f"n {i}", "instruction_attributes": ["a"], "instruction_options": []}]
        for i in range(520)
    }
    sources = write_sources(tmp_path, [record(asin) for asin in goals], goals=goals)
    build_catalogue(sources, tmp_path / CATALOGUE_NAME)
    for path in (tmp_path, tmp_path / CATALOGUE_NAME):
        for split, first, count in (("std", 0, 200), ("dev", 200, 80), ("train", 500, 20), (None, 0, 520)):
            with TASK_KIND.open(WebShopOptions(tasks=path, split=split)) as opened:
                assert (opened.tasks[0].id, len(opened.tasks)) == (f"webshop_{first}", count)
    with pytest.raises(UserError, match="--split: expected one of std, dev, train, got 'test'"):
        opened_with(tasks=tmp_path, split="test")
    some = dict(list(goals.items())[:279])
    build_catalogue(write_sources(tmp_path, [record(asin) for asin in some], goals=some), tmp_path / "some.sqlite")
    with TASK_KIND.open(WebShopOptions(tasks=tmp_path / "some.sqlite", split="std")) as opened:
        assert len(opened.tasks) == 200
    with pytest.raises(UserError, match="expected goals from number 200 to 279, it holds 279; choose another --split"):
        opened_with(tasks=tmp_path / "some.sqlite", split="dev")  # one is missing


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--split std: needs --tasks"):
        opened_with(split="std")
    with pytest.raises(UserError, match=r"expected webshop_catalogue.sqlite there.*build_webshop_catalogue --products"):
        opened_with(tasks=tmp_path, split="std")
    with pytest.raises(UserError, match=r"none.sqlite: no such file or folder"):
        opened_with(tasks=tmp_path / "none.sqlite")
    build_catalogue(write_sources(tmp_path, [record()]), tmp_path / CATALOGUE_NAME)
    with pytest.raises(UserError, match="expected goals from number 0 to 199, it holds 0"):
        opened_with(tasks=tmp_path, split="std")


def opened_with(**options: Any) -> None:
    with TASK_KIND.open(WebShopOptions(**options)):
        pass


def test_missing_thefuzz_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "megatron_agent.environments.webshop.kind.find_spec", lambda name: None if name == "thefuzz" else find(name)
    )
    with pytest.raises(UserError, match=r"pip install 'agentlm-megatron\[webshop\]'"):
        opened_with()


def test_lucene_behind_the_same_interface(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyserini is not installed here: a module with its two calls stands for it."""
    catalogue: Catalogue = world.make_environment().catalogue  # type: ignore[attr-defined]
    asin = world.tasks[0].asin
    monkeypatch.setitem(sys.modules, "pyserini.search.lucene", None)
    with pytest.raises(UserError, match=r"--webshop-lucene-index .*: pyserini cannot be imported"):
        LuceneSearch(tmp_path, catalogue)

    class LuceneSearcher:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def search(self, keywords: str, k: int) -> list[Any]:
            if keywords == "break":
                raise OSError("no heap")
            return [SimpleNamespace(docid=name) for name in ("B0UNKNOWN0", asin)][:k]

        def close(self) -> None:
            pass

    for name in ("pyserini", "pyserini.search", "pyserini.search.lucene"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["pyserini.search.lucene"].LuceneSearcher = LuceneSearcher  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="expected the folder of a Lucene index"):
        LuceneSearch(tmp_path / "none", catalogue)
    with TASK_KIND.open(WebShopOptions(webshop_lucene_index=tmp_path)) as opened:
        assert opened.facts["search"] == "lucene"
        engine = opened.make_environment().engine  # type: ignore[attr-defined]
        assert engine.search("lamp", 50) == [asin]
        with pytest.raises(EnvironmentFault, match="Lucene could not search: no heap"):
            engine.search("break", 50)


def test_a_catalogue_that_goes_bad_is_a_fault_of_the_machinery(tmp_path: Path) -> None:
    path = tmp_path / CATALOGUE_NAME
    build_catalogue(write_sources(tmp_path, [record()]), path)
    catalogue = Catalogue(path)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    with pytest.raises(EnvironmentFault, match=r"webshop_catalogue\.sqlite: "):
        catalogue.product("B000000001")
    catalogue.close()


def test_scores() -> None:
    parts = {"r_type": 1.0, "r_attribute": 0.5, "r_price": 1.0}
    episodes = [
        EpisodeScore("beauty", 1.0, "completed", {**parts, "r_option": 1.0}),
        EpisodeScore("beauty", 0.5, "completed", parts),
        EpisodeScore("garden", 0.0, "invalid format"),
        EpisodeScore("garden", 0.0, "task error"),
    ]
    scores = webshop_scores(episodes)
    assert next(iter(scores)) == TASK_KIND.main_metric == "reward"
    assert scores == {
        "reward": 0.375,
        "reward_without_task_errors": 0.5,
        "success_rate": 0.25,
        "purchase_rate": 0.5,
        "format_fail_rate": 0.25,
        "r_type": 1.0,
        "r_attribute": 0.5,
        "r_option": 1.0,
        "r_price": 1.0,
        "beauty_reward": 0.75,
        "garden_reward": 0.0,
    }
    assert webshop_scores([]) == {"reward": 0.0}
