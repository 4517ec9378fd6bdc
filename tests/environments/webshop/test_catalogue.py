"""Building catalogues out of the original's files: its cleaning rules, resuming, and what is refused."""

import gzip
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from data_prep import build_webshop_catalogue
from data_prep.webshop_catalogue.__main__ import write_shop
from data_prep.webshop_catalogue.generator import SEED
from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.webshop import build
from megatron_agent.environments.webshop.build import build_catalogue
from megatron_agent.environments.webshop.catalogue import Catalogue
from megatron_agent.environments.webshop.goal import PRICE_BOUNDS
from megatron_agent.environments.webshop.kind import SHIPPED, TASK_KIND, WebShopOptions
from megatron_agent.environments.webshop.search import SqliteSearch
from megatron_agent.errors import UserError
from tests.environments.webshop.shops import record, write_sources


def instruction(text: str = "buy it.", attributes: Any = ("leak proof",), options: Any = ("red",)) -> dict[str, Any]:
    if isinstance(options, tuple):
        options = list(options)
    return {"instruction": text, "instruction_attributes": list(attributes), "instruction_options": options}


def test_cleaning_rules(tmp_path: Path) -> None:
    products = [
        record("B000000001"),
        record("nan"),
        record("B0000000012"),  # eleven characters
        record("B000000001", name="a second one"),
        record("B000000002", pricing=None, small_description="one text", full_description=None,
               customization_options=None),
        record("B000000003", pricing="$1,299.00$1,399.50$9"),
    ]  # fmt: skip
    sources = write_sources(tmp_path, products, {"B000000001": {"attributes": ["leak proof"]}, "B000000002": {}})
    assert build_catalogue(sources, tmp_path / "c.sqlite") == "built"
    catalogue = Catalogue(tmp_path / "c.sqlite")
    assert [asin for (asin,) in catalogue.rows("SELECT asin FROM products ORDER BY position")] == [
        "B000000001", "B000000002", "B000000003",
    ]  # fmt: skip
    first, second, third = (catalogue.product(f"B00000000{i}") for i in (1, 2, 3))
    assert first.title == "Aldo Steel Bottle B000000001"
    assert first.query == "water bottles"
    assert first.options == {"color": ("red | blue", "black")}
    assert (first.attributes, first.pricing, first.price_tag) == (("leak proof",), (24.95,), "$24.95")
    assert (first.rating, first.reviews) == ("N.A.", ())
    assert first.search_text == "aldo steel bottle b000000001 keeps cold. leak proof color: red | blue, black"
    assert (second.attributes, second.pricing, second.price_tag) == (("DUMMY_ATTR",), (100.0,), "$100.0")
    assert (second.bullet_points, second.options, second.description) == (("one text",), {}, "")
    assert (third.pricing, third.price_tag) == ((1299.0, 1399.5), "$1299.0 to $1399.5")
    assert set(catalogue.draw(random.Random(1), 50)) == {first.asin, second.asin, third.asin}
    assert len(catalogue.draw(random.Random(1), 2)) == 2
    catalogue.close()


def test_goals_are_drawn_and_shuffled_as_in_the_original(tmp_path: Path) -> None:
    products = [record(f"B{i:09}", pricing=f"${i}") for i in range(1, 1000)]
    goals = {f"B{i:09}": [instruction(f"number {i}.."), instruction(attributes=())] for i in range(999, 0, -1)}
    goals["B999999999"] = [instruction()]  # no such product
    goals["B000000007"].append(instruction("another", options={"color": "red"}))
    build_catalogue(write_sources(tmp_path, products, goals=goals), tmp_path / "c.sqlite")
    catalogue = Catalogue(tmp_path / "c.sqlite")
    tasks = catalogue.tasks()
    order = [f"B{i:09}" for i in range(1, 1000)]
    order.insert(7, "B000000007")
    random.seed(233)
    random.shuffle(order)
    assert [task.asin for task in tasks] == order
    assert [task.id for task in tasks[:2]] == ["webshop_0", "webshop_1"]
    for task in tasks:
        price = float(int(task.asin[1:]))
        bounds = [bound for bound in PRICE_BOUNDS if bound > price][:4]
        if len(bounds) >= 2:
            assert task.price_upper in bounds[1:]
            assert task.instruction.endswith(f", and price lower than {task.price_upper:.2f} dollars")
        else:
            assert task.price_upper == 1_000_000
            assert task.instruction == f"number {int(price)}"
    assert {task.options for task in tasks if task.asin == "B000000007"} == {("red",), (("color", "red"),)}
    assert catalogue.tasks(200, 280) == tasks[200:280]
    catalogue.close()


def test_limit_takes_the_first_records(tmp_path: Path) -> None:
    sources = write_sources(tmp_path, [record(f"B00000000{i}") for i in range(9)], limit=4)
    build_catalogue(sources, tmp_path / "c.sqlite")
    catalogue = Catalogue(tmp_path / "c.sqlite")
    assert catalogue.count() == 4
    catalogue.close()


def test_a_stopped_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    products = [record(f"B{i:09}") for i in range(60)]
    sources = write_sources(tmp_path, products, goals={"B000000005": [instruction()]})
    monkeypatch.setattr(build, "COMMIT_EVERY", 10)
    parse, seen = build.parse_product, []

    def stop_at_35(value: Any, *rest: Any) -> Any:
        seen.append(value["asin"])
        if len(seen) == 36:
            raise KeyboardInterrupt
        return parse(value, *rest)

    monkeypatch.setattr(build, "parse_product", stop_at_35)
    with pytest.raises(KeyboardInterrupt):
        build_catalogue(sources, tmp_path / "c.sqlite")
    assert not (tmp_path / "c.sqlite").exists()
    with pytest.raises(UserError, match="expected a finished WebShop catalogue, got an unfinished one"):
        Catalogue(tmp_path / "c.sqlite.partial")
    assert build_catalogue(sources, tmp_path / "c.sqlite") == "resumed"
    assert seen[36] == "B000000030"
    assert build_catalogue(sources, tmp_path / "c.sqlite") == "up to date"
    with sqlite3.connect(tmp_path / "c.sqlite") as last_step:  # killed just before it was called complete
        last_step.execute("DELETE FROM facts WHERE name = 'complete'")
    last_step.close()
    (tmp_path / "c.sqlite").rename(tmp_path / "c.sqlite.partial")
    assert build_catalogue(sources, tmp_path / "c.sqlite") == "resumed"
    whole = tmp_path / "whole.sqlite"
    build_catalogue(sources, whole)
    first, second = Catalogue(tmp_path / "c.sqlite"), Catalogue(whole)
    for table in ("products", "attributes", "goals", "facts"):
        assert first.rows(f"SELECT * FROM {table}") == second.rows(f"SELECT * FROM {table}")
    assert SqliteSearch(first).search("steel b000000041", 50) == SqliteSearch(second).search("steel b000000041", 50)
    first.close()
    second.close()
    (tmp_path / "goals.json").write_text("{}")
    assert build_catalogue(sources, tmp_path / "c.sqlite") == "built"


def test_search_ranks_and_quotes(tmp_path: Path) -> None:
    names = ["wool socks, red", "red wool hat", "running shoes for men's feet", "size 9.5 shoes", "lamp"]
    sources = write_sources(tmp_path, [record(f"B00000000{i}", name=name) for i, name in enumerate(names)])
    build_catalogue(sources, tmp_path / "c.sqlite")
    engine = SqliteSearch(Catalogue(tmp_path / "c.sqlite"))

    def ranks(keywords: str) -> list[int]:
        return [int(asin[-1]) for asin in engine.search(keywords, 50)]

    assert ranks("wool hats")[0] == 1  # hats finds hat: Porter's stemmer
    assert ranks("9.5") == [3]
    assert set(ranks("shoe")) == {2, 3}
    assert ranks("men's") == ranks("men") == [2]
    assert ranks('red" AND (lamp* OR NEAR -x:y')[0] in (0, 1, 4)
    assert ranks("the and of") == ranks("zebra") == ranks("") == []
    assert len(engine.search("bottle keeps cold", 3)) == 3
    engine.catalogue.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asin": None}, "item 1: expected asin to be a text, got 'None'"),
        ({"asin": "b00000000a"}, "expected an asin in upper case"),
        ({"name": 5}, r"item 1 \(asin B000000002\): expected name to be a text, got '5'"),
        ({"category": None}, "expected category to be a text"),
        ({"pricing": "12.00"}, r"expected pricing such as '\$9.99' or '\$9.99\$14.99', got '12.00'"),
        ({"pricing": "$1.2.3"}, "expected pricing"),
        ({"pricing": 9}, "expected pricing"),
        ({"small_description": [1]}, "expected small_description to be a text or a list of texts, got '1'"),
        ({"customization_options": {"color": [{"name": "red"}]}}, "expected customization_options such as"),
        ({"customization_options": ["red"]}, "expected customization_options such as"),
        ({"name": "\ud800"}, r"item 1: lone surrogate"),
    ],
)
def test_malformed_products_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    sources = write_sources(tmp_path, [record(), {**record("B000000002"), **changes}])
    with pytest.raises(UserError, match=message):
        build_catalogue(sources, tmp_path / "c.sqlite")
    assert not (tmp_path / "c.sqlite").exists()


@pytest.mark.parametrize(
    ("attributes", "goals", "message"),
    [
        ({"B1": {"attributes": "red"}}, {}, "attributes.json: B1: expected attributes to be a list of texts"),
        ({"B1": []}, {}, "attributes.json: B1: expected an object, got list"),
        ([1], {}, "attributes.json: expected a JSON object, got"),
        ({}, {"B000000001": {}}, "goals.json: B000000001: expected a list of instructions, got dict"),
        ({}, {"B000000001": [instruction(), 5]}, "instruction 1: expected an object, got int"),
        ({}, {"B000000001": [instruction(text=None)]}, "expected instruction to be a text"),  # type: ignore[arg-type]
        ({}, {"B000000001": [instruction(attributes=[1])]}, "expected instruction_attributes to be a list of texts"),
        ({}, {"B000000001": [instruction(options="red")]}, "expected instruction_options to be a list or an object"),
    ],
)
def test_malformed_goals_are_named(tmp_path: Path, attributes: Any, goals: Any, message: str) -> None:
    sources = write_sources(tmp_path, [record()], attributes, goals)
    with pytest.raises(UserError, match=message):
        build_catalogue(sources, tmp_path / "c.sqlite")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(connection: sqlite3.Connection, *rest: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute("CREATE TABLE more (x)")

    monkeypatch.setattr(build, "_store_goals", full)
    with pytest.raises(UserError, match=r"c\.sqlite\.partial: cannot be written: database or disk is full"):
        build_catalogue(write_sources(tmp_path, [record()]), tmp_path / "c.sqlite")


def test_two_builds_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, output = write_sources(tmp_path, [record()]), tmp_path / "c.sqlite"
    store, refused = build._store_goals, []

    def build_meanwhile(*rest: Any) -> None:
        with pytest.raises(UserError, match=r"c\.sqlite: another process builds it now") as caught:
            build_catalogue(sources, output)
        refused.append(caught.value)
        store(*rest)

    monkeypatch.setattr(build, "_store_goals", build_meanwhile)
    assert build_catalogue(sources, output) == "built"
    assert len(refused) == 1
    assert build_catalogue(sources, output) == "up to date"
    assert not list(tmp_path.glob("c.sqlite.*"))


def test_a_file_that_is_no_catalogue_is_not_overwritten(tmp_path: Path) -> None:
    sources = write_sources(tmp_path, [record()])
    before = sources.goals.read_bytes()
    with pytest.raises(UserError, match=r"is there and no catalogue; remove it, or choose another file"):
        build_catalogue(sources, sources.goals)
    assert sources.goals.read_bytes() == before


def test_a_damaged_unfinished_build_is_named(tmp_path: Path) -> None:
    sources = write_sources(tmp_path, [record(f"B{i:09}") for i in range(400)])
    build_catalogue(sources, tmp_path / "c.sqlite")
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("DELETE FROM facts WHERE name = 'complete'")
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'goals'")
        ((size,),) = connection.execute("PRAGMA page_size")
    connection.close()
    data = bytearray((tmp_path / "c.sqlite").read_bytes())
    data[(page - 1) * size : page * size] = b"\x55" * size
    (tmp_path / "c.sqlite").unlink()
    (tmp_path / "c.sqlite.partial").write_bytes(data)
    with pytest.raises(UserError, match=r"c\.sqlite\.partial: damaged .*; remove it and start again"):
        build_catalogue(sources, tmp_path / "c.sqlite")


def test_a_damaged_catalogue_is_a_fault_of_the_machinery(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    build_catalogue(write_sources(tmp_path, [record()], goals={"B000000001": [instruction()]}), path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE products SET record = x'00112233'")
        connection.execute("UPDATE goals SET record = '{'")
    connection.close()
    catalogue = Catalogue(path)
    with pytest.raises(EnvironmentFault, match=r"the product B000000001 is damaged or missing"):
        catalogue.product("B000000001")
    catalogue.close()
    with pytest.raises(UserError, match=r"--tasks .*the catalogue is damaged"), TASK_KIND.open(WebShopOptions(path)):
        pass


def test_files_that_are_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello" * 1000)
    sqlite3.connect(tmp_path / "empty").close()
    for name in ("text", "empty", "missing"):
        with pytest.raises(UserError, match=rf"expected a WebShop catalogue, got .*{name}.*build_webshop_catalogue"):
            Catalogue(tmp_path / name)


def test_the_shipped_shop_is_the_generators(tmp_path: Path) -> None:
    write_shop(tmp_path, SEED)
    for path in (SHIPPED.products, SHIPPED.attributes, SHIPPED.goals, SHIPPED.reviews):
        assert path is not None
        assert gzip.decompress(path.read_bytes()) == gzip.decompress((tmp_path / path.name).read_bytes())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--products", str(SHIPPED.products), "--attributes", str(SHIPPED.attributes)]
    flags += ["--goals", str(SHIPPED.goals), "--output", str(tmp_path / "c.sqlite")]
    for outcome in ("built", "up to date"):
        build_webshop_catalogue.main(flags)
        assert f"c.sqlite: {outcome}; products 1,200  goals 240" in capsys.readouterr().out
    with pytest.raises(UserError, match="--limit: expected at least 1, got 0"):
        build_webshop_catalogue.main([*flags, "--limit", "0"])
    flags[1] = str(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"--products .*none.json: no such file"):
        build_webshop_catalogue.main(flags)
