"""Shopping goals: what a buyer asks for, and what the reward compares the purchase with."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_agent.chat.conversation import refuse_lone_surrogates
from megatron_agent.environments.webshop.product import Product
from megatron_agent.errors import UserError

SHUFFLE_SEED = 233
"""The seed of the order of goals in `SimServer` of princeton-nlp/WebShop."""
SPLITS = {"std": (0, 200), "dev": (200, 280), "train": (500, 12000)}
"""Ranges of goal numbers: AgentBench's test and dev, and the training range its maintainers name (issue 107)."""
PRICE_BOUNDS = tuple(10.0 * step for step in range(1, 100))
NO_PRICE_BOUND = 1_000_000.0


@dataclass(frozen=True)
class WebShopTask:
    """One goal. `options` are values, or pairs of name and value where the file has an object."""

    id: str
    category: str
    asin: str
    instruction: str
    name: str
    query: str
    product_category: str
    attributes: tuple[str, ...]
    options: tuple[str, ...] | tuple[tuple[str, str], ...]
    price_upper: float


def purchase_price(product: Product) -> float:
    """Return the price a purchase is judged by: the tag's, or one drawn between its two.

    The original draws without a seed, once a start of the server; here the asin is the seed.
    """
    if len(product.pricing) == 1:
        return product.pricing[0]
    return random.Random(f"price {product.asin}").uniform(*product.pricing)


def human_goals(product: Product, instructions: Any, where: str) -> list[dict[str, Any]]:
    """Return the goals that items_human_ins.json has for a product, as records without an id.

    Those without attributes are left out. The bound of the price is the higher one of two drawn from the next four
    multiples of ten above the price (`get_human_goals`); the original draws without a seed, here asin and number are
    the seed. Raises UserError for a malformed instruction.
    """
    if not isinstance(instructions, list):
        raise UserError(f"{where}: expected a list of instructions, got {type(instructions).__name__}")
    goals = []
    for number, record in enumerate(instructions):
        text, attributes, options = _instruction(record, f"{where}: instruction {number}")
        if not attributes:
            continue
        price = purchase_price(product)
        bounds = [bound for bound in PRICE_BOUNDS if bound > price][:4]
        price_upper, price_text = NO_PRICE_BOUND, ""
        if len(bounds) >= 2:
            price_upper = max(random.Random(f"bound {product.asin} {number}").sample(bounds, 2))
            price_text = f", and price lower than {price_upper:.2f} dollars"
        goals.append(
            {
                "category": product.category,
                "asin": product.asin,
                "instruction": text.strip(".") + price_text,
                "name": product.title,
                "query": product.query,
                "product_category": product.product_category,
                "attributes": attributes,
                "options": options,
                "price_upper": price_upper,
            }
        )
    return goals


def shuffled(goals: Sequence[Any]) -> list[Any]:
    """Return goals in the order of the original: `random.seed(233); random.shuffle(goals)`."""
    order = list(goals)
    random.Random(SHUFFLE_SEED).shuffle(order)
    return order


def to_task(number: int, record: Mapping[str, Any]) -> WebShopTask:
    """Return the goal of a number as a task."""
    options = record["options"]
    fields = {name: record[name] for name in ("category", "asin", "instruction", "name", "query", "product_category")}
    return WebShopTask(
        id=f"webshop_{number}",
        attributes=tuple(record["attributes"]),
        options=tuple(options.items()) if isinstance(options, dict) else tuple(options),
        price_upper=record["price_upper"],
        **fields,
    )


def _instruction(record: Any, where: str) -> tuple[str, list[str], list[str] | dict[str, str]]:
    """Return text, attributes and options of one human instruction."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object, got {type(record).__name__}")
    text, attributes = record.get("instruction"), record.get("instruction_attributes")
    options = record.get("instruction_options")
    if not isinstance(text, str):
        raise UserError(f"{where}: expected instruction to be a text, got {str(text)[:60]!r}")
    if not isinstance(attributes, list) or not all(isinstance(value, str) for value in attributes):
        raise UserError(f"{where}: expected instruction_attributes to be a list of texts, got {str(attributes)[:60]!r}")
    values = list(options.values()) if isinstance(options, dict) else options
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(
            f"{where}: expected instruction_options to be a list or an object of texts, got {str(options)[:60]!r}"
        )
    refuse_lone_surrogates(" ".join([text, *attributes, *values]), where)
    return text, attributes, options  # type: ignore[return-value]
