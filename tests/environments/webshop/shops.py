"""Small shops for tests: records in the layout of WebShop's files, and a catalogue of products in memory."""

import json
from pathlib import Path
from typing import Any

from megatron_agent.environments.webshop.build import Sources
from megatron_agent.environments.webshop.goal import WebShopTask
from megatron_agent.environments.webshop.product import Product


def record(asin: str = "B000000001", **changes: Any) -> dict[str, Any]:
    """A record of items_shuffle.json."""
    fields = {
        "asin": asin,
        "name": f"Aldo Steel Bottle {asin}",
        "category": "garden",
        "query": " Water Bottles ",
        "product_category": "Home & Kitchen › Kitchen › Bottles",
        "pricing": "$24.95",
        "full_description": "Keeps cold.",
        "small_description": ["Leak proof", "BPA free"],
        "customization_options": {"Color": [{"value": " Red/Blue ", "image": None}, {"value": "Black"}], "Size": None},
        "images": ["x.jpg"],
    }
    return {**fields, **changes}


def write_sources(folder: Path, products: Any, attributes: Any = None, goals: Any = None, **more: Any) -> Sources:
    """Write the three files and return where they are."""
    contents = {"products": products, "attributes": attributes or {}, "goals": goals or {}}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return Sources(folder / "products.json", folder / "attributes.json", folder / "goals.json", **more)


def goal(**changes: Any) -> WebShopTask:
    """A goal that nothing is known of."""
    fields: dict[str, Any] = {
        "id": "webshop_0",
        "category": "garden",
        "asin": "B000000001",
        "instruction": "i need a steel bottle, and price lower than 40.00 dollars",
        "name": "Aldo Steel Bottle",
        "query": "water bottles",
        "product_category": "Home & Kitchen › Kitchen › Bottles",
        "attributes": ("leak proof",),
        "options": (),
        "price_upper": 40.0,
    }
    return WebShopTask(**{**fields, **changes})


def product(**changes: Any) -> Product:
    """A product that nothing is known of."""
    fields: dict[str, Any] = {
        "asin": "B000000001",
        "title": "",
        "description": "",
        "bullet_points": (),
        "pricing": (35.0,),
        "price_tag": "$35.0",
        "options": {},
        "attributes": (),
        "category": "garden",
        "query": "",
        "product_category": "",
    }
    return Product(**{**fields, **changes})


class MemoryCatalogue:
    """Products by asin, and a search that finds what it is told to: stands for catalogue and engine."""

    def __init__(self, products: dict[str, Product], found: list[str] | None = None) -> None:
        self.products = products
        self.found = list(products) if found is None else found

    def product(self, asin: str) -> Product:
        return self.products[asin]

    def search(self, keywords: str, limit: int) -> list[str]:
        return self.found[:limit]
