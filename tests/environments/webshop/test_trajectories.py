"""The shop against 411 real WebShop trajectories: every page that the original showed comes out the same."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.environments.webshop.environment import find_action
from megatron_agent.environments.webshop.pages import PREVIOUS_PAGE, SEPARATOR
from megatron_agent.environments.webshop.product import Product, parse_product
from megatron_agent.environments.webshop.site import Visit
from tests.environments.webshop.shops import MemoryCatalogue, goal

OPTION_NAMES = {"scent", "style", "fit type", "color", "flavor", "size", "flavor name", "pattern name", "team name"}


def test_pages_and_clicks_are_those_of_the_original(shared_data: Path) -> None:
    path = shared_data / "agenttraj" / "webshop.jsonl"
    counts: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        replay(json.loads(line)["conversations"][2:], counts)
    assert counts == {"trajectories": 411, "pages": 2079, "clicks": 1668}


def replay(turns: list[dict[str, Any]], counts: Counter[str]) -> None:
    """Carry the recorded replies out in a shop that sells what the recorded pages show."""
    pages = [turn["value"] for turn in turns if turn["from"] == "human"]
    replies = [turn["value"] for turn in turns if turn["from"] == "gpt"]
    products, found = rebuild(pages, replies)
    shop = MemoryCatalogue(products, found)
    visit = Visit(shop, shop, goal(instruction=pages[0].split(SEPARATOR)[2]))  # type: ignore[arg-type]
    counts["trajectories"] += 1
    for page, reply in zip(pages, replies, strict=True):
        assert visit.page.text == page
        counts["pages"] += 1
        action = find_action(reply, "paper")
        assert action is not None
        if action[0] == "click":
            assert action[1].lower() in visit.page.clickables
            counts["clicks"] += 1
        visit.act(*action)
    assert visit.bought == ("click[buy now]" in replies[-1].lower())


def rebuild(pages: list[str], replies: list[str]) -> tuple[dict[str, Product], list[str]]:
    """Return the products of a trajectory, parsed from its pages, and the order in which its search found them."""
    records: dict[str, dict[str, Any]] = {}
    places: dict[int, str] = {}
    asin = ""
    for page, reply in zip(pages, replies, strict=True):
        parts = page.split(SEPARATOR)
        if len(parts) > 3 and parts[3].startswith("Page "):
            first = 10 * (int(parts[3].split()[1]) - 1)
            items = parts[6:] if parts[4] == PREVIOUS_PAGE else parts[5:]
            for place in range(len(items) // 3):
                asin_here, title, price = items[3 * place : 3 * place + 3]
                places[first + place] = asin_here
                records.setdefault(asin_here, empty_record(asin_here, title, price))
        elif parts[-1] == "Buy Now":
            records[asin]["customization_options"] = options(parts[4 : parts.index("Rating: N.A.") - 2])
        clicked = (find_action(reply, "paper") or ("", ""))[1].upper()
        asin = clicked if clicked in records else asin
    products = {}
    for name, fields in records.items():
        parsed = parse_product(fields, [], "trajectory")
        assert parsed is not None
        products[name] = parsed
    return products, [places.get(place, "unseen") for place in range(50)]


def empty_record(asin: str, title: str, price: str) -> dict[str, Any]:
    return {
        "asin": asin,
        "name": title,
        "pricing": price.replace(" to ", ""),
        "full_description": "",
        "small_description": [],
        "customization_options": {},
        "category": "",
        "query": "",
        "product_category": "",
    }


def options(parts: list[str]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        if part in OPTION_NAMES:
            values = found.setdefault(part, [])
        else:
            values.append({"value": part})
    return found


@pytest.mark.parametrize(
    ("pricing", "tag"), [("$27", "$27.0"), ("$1,234.50", "$1234.5"), ("$9.99$20", "$9.99 to $20.0")]
)
def test_price_tags(pricing: str, tag: str) -> None:
    parsed = parse_product(empty_record("B1", "t", pricing), [], "here")
    assert parsed is not None
    assert parsed.price_tag == tag
