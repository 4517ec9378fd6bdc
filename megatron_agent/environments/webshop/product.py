"""Products of the shop: what `load_products` of princeton-nlp/WebShop keeps of a record of items_shuffle.json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron_agent.errors import UserError

PRICE_WITHOUT_TAG = 100.0
"""The price of a product whose record has none."""


@dataclass(frozen=True)
class Review:
    """A buyer's words on the Reviews page."""

    title: str
    score: str
    body: str


@dataclass(frozen=True)
class Product:
    """One article. `options` maps an option's name (color, size) to its values, both in lower case.

    `pricing` holds one price, or the lowest and the highest, in dollars.
    """

    asin: str
    title: str
    description: str
    bullet_points: tuple[str, ...]
    pricing: tuple[float, ...]
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    category: str
    query: str
    product_category: str
    rating: str = "N.A."
    reviews: tuple[Review, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return the product as JSON values."""
        return {**vars(self), "reviews": [vars(review) for review in self.reviews]}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Product":
        """Return the product that :meth:`to_record` wrote."""
        record = dict(record)
        for name in ("bullet_points", "pricing", "attributes"):
            record[name] = tuple(record[name])
        record["options"] = {name: tuple(values) for name, values in record["options"].items()}
        record["reviews"] = tuple(Review(**review) for review in record["reviews"])
        return cls(**record)

    @property
    def search_text(self) -> str:
        """What the search engine indexes: title, description, first bullet point and options, in lower case.

        The rule is that of `search_engine/convert_product_file_format.py`.
        """
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        first_bullet = self.bullet_points[0] if self.bullet_points else ""
        return " ".join([self.title, self.description, first_bullet, options]).lower()


def parse_product(
    record: Any, attributes: Sequence[str] | None, where: str, reviews: Mapping[str, Any] | None = None
) -> Product | None:
    """Turn a record of items_shuffle.json into a product; None for one that the original leaves out.

    That is an asin of more than ten characters or `nan`. `attributes` are the product's in items_ins_v2.json (None:
    it has no entry there, which the original marks with the attribute `DUMMY_ATTR`), `reviews` its record in
    reviews.json, if that is read. Raises UserError naming the field, after `where`.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a product (a JSON object), got {type(record).__name__}")
    asin = _text(record, "asin", where)
    if asin == "nan" or len(asin) > 10:
        return None
    where = f"{where} (asin {asin})"
    if asin != asin.upper():
        raise UserError(f"{where}: expected an asin in upper case: a click finds no other")
    bullets = record.get("small_description")
    if not isinstance(bullets, list):
        bullets = [bullets]
    pricing, price_tag = parse_pricing(record.get("pricing"), where)
    return Product(
        asin=asin,
        title=_text(record, "name", where),
        description=_text(record, "full_description", where, optional=True),
        bullet_points=tuple(_plain(bullet, "small_description", where) for bullet in bullets),
        pricing=pricing,
        price_tag=price_tag,
        options=parse_options(record.get("customization_options"), where),
        attributes=("DUMMY_ATTR",) if attributes is None else tuple(attributes),
        category=_text(record, "category", where),
        query=_text(record, "query", where).lower().strip(),
        product_category=_text(record, "product_category", where),
        rating="N.A." if reviews is None else str(reviews.get("average_rating", "N.A.")),
        reviews=() if reviews is None else _reviews(reviews, where),
    )


def parse_pricing(pricing: Any, where: str) -> tuple[tuple[float, ...], str]:
    """Return the prices in a text such as `$12.99$24.50` (at most two) and the tag that the pages show."""
    if not pricing:
        return (PRICE_WITHOUT_TAG,), f"${PRICE_WITHOUT_TAG}"
    try:
        prices = [float(re.sub(r"[^\d.]", "", price)) for price in pricing.split("$")[1:]]
    except (AttributeError, ValueError):
        prices = []
    if not prices:
        raise UserError(f"{where}: expected pricing such as '$9.99' or '$9.99$14.99', got {str(pricing)[:60]!r}")
    if len(prices) == 1:
        return (prices[0],), f"${prices[0]}"
    return tuple(prices[:2]), f"${prices[0]} to ${prices[1]}"


def parse_options(options: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Return the options of `customization_options`: names and values in lower case, `/` written ` | `."""
    if not options:
        return {}
    try:
        return {
            name.lower(): tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
            for name, values in options.items()
            if values is not None
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f'{where}: expected customization_options such as {{"color": [{{"value": "red"}}]}}, '
            f"got {str(options)[:80]!r}"
        ) from error


def _reviews(record: Mapping[str, Any], where: str) -> tuple[Review, ...]:
    reviews = record.get("reviews")
    if not isinstance(reviews, list) or not all(isinstance(review, dict) for review in reviews):
        raise UserError(f"{where}: expected reviews to be a list of objects, got {str(reviews)[:60]!r}")
    return tuple(
        Review(
            str(review.get("title", "")),
            str(review.get("score", review.get("stars", ""))),
            str(review.get("review", "")),
        )
        for review in reviews
    )


def _text(record: dict[str, Any], name: str, where: str, optional: bool = False) -> str:
    value = record.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str) or (name == "asin" and not value):
        raise UserError(f"{where}: expected {name} to be a text, got {str(value)[:60]!r}")
    return value


def _plain(value: Any, name: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: expected {name} to be a text or a list of texts, got {str(value)[:60]!r}")
    return value
